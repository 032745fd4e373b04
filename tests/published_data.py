"""Data that books print with their results."""

import pandas as pd

# Mrode (2014), Linear Models for the Prediction of Animal Breeding Values, 3rd ed., examples 3.1 and 5.1:
# gains before and after weaning of five calves, and their parents without records; variances are given
CALVES = pd.DataFrame(
    {
        "calf": [4, 5, 6, 7, 8],
        "sex": ["male", "female", "female", "male", "male"],
        "wwg": [4.5, 2.9, 3.9, 3.5, 5.0],
        "pwg": [6.8, 5.0, 6.8, 6.0, 7.5],
    }
)
PEDIGREE = pd.DataFrame({"id": [4, 5, 6, 7, 8], "sire": [1, 3, 1, 4, 3], "dam": [None, 2, 2, 5, 6]})
