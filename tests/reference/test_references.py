"""Results of lme4 and nlme in ../shared/reference: every model with iid residuals."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from r_models import ASPECTS

import lmmjax as lj

FOLDER = Path(__file__).parents[2] / ".." / "shared" / "reference"
if not (FOLDER / "models.json").exists():
    pytest.skip("../shared/reference is not beside the repository", allow_module_level=True)

# nlme has no formula for the random part; R codes ordered factors by polynomials, here by request
FORMULAS = {
    "seed4_water_pddiag_lme": "water ~ 1 + ti + ti2 + (ti + ti2 || tree)",
    "cake_split_reml": "angle ~ recipe * C(temperature, contr.poly) + (1 | recipe:replicate)",
}
STORED = json.loads((FOLDER / "models.json").read_text())["models"].values()
DATASETS = {entry["name"]: entry for entry in json.loads((FOLDER / "datasets.json").read_text())}


def covered(ref) -> bool:
    return ref["id"] in FORMULAS or "lmer" in ref["engine"]


MODELS = {ref["id"]: ref for ref in STORED if covered(ref)}


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


@functools.cache
def fitted_model(name):
    ref = MODELS[name]
    formula = FORMULAS.get(name) or ref["formula"]
    return lj.lmm(formula, read(ref), weights=ref["weights"]).fit(reml=ref["method"] == "REML")


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_r(name, aspect):
    ASPECTS[aspect](fitted_model(name), MODELS[name])
