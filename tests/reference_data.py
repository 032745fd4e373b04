"""Results of lme4 and nlme in ../shared/reference, with their data; empty where these are not there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parents[1] / ".." / "shared" / "reference"
PRESENT = (FOLDER / "models.json").exists()


def _stored(name, default):
    return json.loads((FOLDER / name).read_text()) if PRESENT else default


STORED = _stored("models.json", {"models": {}, "comparisons": {}})
DATASETS = {entry["name"]: entry for entry in _stored("datasets.json", [])}

# nlme has no formula for the random part; R codes ordered factors by polynomials, here by request
FORMULAS = {
    "seed4_water_pddiag_lme": "water ~ 1 + ti + ti2 + (ti + ti2 || tree)",
    "cake_split_reml": "angle ~ recipe * C(temperature, contr.poly) + (1 | recipe:replicate)",
}


def read(ref) -> pd.DataFrame:
    entry = DATASETS[ref["dataset"]]
    data = pd.read_csv(FOLDER / entry["file"], keep_default_na=False, na_values=[""])
    for column in entry["columns"]:
        if column["type"] in ("factor", "ordered"):
            levels = column.get("levels")
            text = data[column["name"]].astype(str)
            levels = [levels] if isinstance(levels, str) else levels or sorted(text.unique(), key=float)
            data[column["name"]] = pd.Categorical(text, levels, ordered=column["type"] == "ordered")
    prep = ref["prep"] or ""
    if "t = log(1+(age-45)/10)" in prep:
        data["t"] = np.log(1 + (data["age"] - 45) / 10)
    if "as factor" in prep:
        for column in prep.split("; ")[-1].split(" as factor")[0].split(", "):
            data[column] = data[column].astype(str)
    return data
