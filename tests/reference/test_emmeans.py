"""Marginal means, slopes, contrasts and joint tests of R's emmeans (make_emmeans.R), on eleven models."""

import functools
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from r_models import listed

import lmmjax as lj
from lmmjax.postestimation.hypotheses.adjust import range_tail

HERE = Path(__file__).parent
MODELS = json.loads((HERE / "emmeans.json").read_text())
CASES = [(name, k) for name, model in MODELS.items() for k in range(len(model["results"]))]
NUMBERS = ("estimate", "se", "df", "t", "lower", "upper", "p")
EXACT = 1e-5
# lmerTest differentiates numerically
SATTERTHWAITE = 1e-4
# emmeans takes mvtnorm's quasi Monte Carlo, to 1e-3, with whole degrees of freedom
MULTIVARIATE_T = 2e-3


@functools.cache
def fitted_model(name):
    model = MODELS[name]
    data = pd.read_csv(HERE / "emmeans.csv")
    if model["gap"]:
        data = data[~((data["arm"] == "t") & (data["dose"] == 5))]
    residual = lj.Unstructured("visit", group="subject") if name == "visits" else None
    return lj.lmm(model["formula"], data, weights=model["weights"], residual=residual).fit()


def means_of(name, result):
    args = result["args"] if isinstance(result["args"], dict) else {"1": listed(result["args"])[0]}
    args = {("specs" if k == "1" else k): v for k, v in args.items()}
    view = result["view"] or {}
    args |= {"type": view.get("type", "link")} if not result["var"] else {}
    if view.get("bias.adjust"):
        args["bias_adjust"] = True
    fit, ddf = fitted_model(name), MODELS[name]["ddf"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.EstimabilityWarning)
        return fit.emtrends(result["var"], ddf=ddf, **args) if result["var"] else fit.emmeans(ddf=ddf, **args)


def with_rounded_df(table, by):
    """Where a contrast is not estimable emmeans rounds the degrees of freedom for Tukey's p, not for its
    limits."""

    def of_family(own):
        means = round((1 + np.sqrt(1 + 8 * len(own))) / 2)
        t, df = (own[name].to_numpy() for name in ("t", "df"))
        return (
            own["p"]
            if means < 3
            else pd.Series(range_tail(np.sqrt(2) * np.abs(t), means, np.round(df)), own.index)
        )

    families = [own for _, own in table.groupby(list(by))] if by else [table]
    return table.assign(p=pd.concat([of_family(own) for own in families]))


def compare(ours, theirs, ddf, adjust="none"):
    labels = [name for name in ours.columns if name in theirs and name not in NUMBERS]
    assert set(labels) == {name for name in theirs if name not in (*NUMBERS, "null", "1")}
    for label in labels:
        assert [str(v) for v in ours[label]] == [str(v) for v in listed(theirs[label])]
    df = SATTERTHWAITE if ddf == "satterthwaite" else EXACT
    simultaneous = MULTIVARIATE_T if adjust == "mvt" else EXACT
    se = np.max(
        np.array(listed(theirs["se"]), float),
        initial=0.0,
        where=[v is not None for v in listed(theirs["se"])],
    )
    for name in (c for c in NUMBERS if c in ours):
        empty = np.inf if name == "df" and ddf == "normal" else np.nan
        wanted = np.array([empty if v is None else v for v in listed(theirs[name])], float)
        rtol = df if name == "df" else simultaneous if name in ("lower", "upper", "p") else EXACT
        atol = {"df": 0.0, "p": simultaneous, "t": EXACT}.get(name, rtol * se)
        assert_allclose(ours[name].to_numpy(float), wanted, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize(("name", "k"), CASES)
@pytest.mark.filterwarnings("ignore::lmmjax.EstimabilityWarning")
def test_means(name, k):
    result, ddf = MODELS[name]["results"][k], MODELS[name]["ddf"]
    means = means_of(name, result)
    compare(means.table, result["means"], ddf)
    for one in result["contrasts"] or []:
        weights = one["weights"]
        own = means.contrast(one["method"] if weights is None else weights, one["adjust"])
        table = own.table
        if table.attrs["adjust"] == "tukey" and table["t"].isna().any():
            table = with_rounded_df(table, own.functions.by)
        compare(table, one["table"], ddf, one["adjust"])


@pytest.mark.filterwarnings("ignore::lmmjax.EstimabilityWarning")
@pytest.mark.parametrize(("name", "k"), [(n, k) for n, k in CASES if MODELS[n]["results"][k]["joint"]])
def test_joint_tests(name, k):
    result = MODELS[name]["results"][k]
    ours, theirs = means_of(name, result).joint_tests(), result["joint"]
    assert list(ours["term"]) == theirs["model term"]
    assert list(ours["num_df"]) == theirs["df1"]
    # emmeans rounds F and takes Kenward and Roger's covariance without the scaling of F
    single = (ours["num_df"] == 1).to_numpy()
    assert_allclose(ours["F"][single], np.array(theirs["F.ratio"])[single], atol=6e-4)
    assert_allclose(ours["p"][single], np.array(theirs["p.value"])[single], rtol=1e-3)
    assert_allclose(ours["F"], theirs["F.ratio"], rtol=0.02)
