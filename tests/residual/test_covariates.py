"""Covariates of variances, and times, of any size: right, or refused with what to do."""

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.gram.whitened.patterns import rounded


@functools.cache
def data():
    rng = np.random.default_rng(5)
    d = pd.DataFrame({"g": np.repeat(np.arange(12), 5), "t": np.tile(np.arange(5), 12)})
    d["v"], d["x"] = rng.uniform(1, 9, 60), rng.normal(size=60)
    d["arm"], d["one"] = np.where(d["g"] % 2, "a", "b"), "only"
    d["y"] = d["x"] + rng.normal(size=12)[d["g"]] + rng.normal(size=60) * np.exp(0.15 * d["v"])
    return d


def fitted(formula, residual=None, **changes):
    return lj.lmm(formula, data().assign(**changes), residual=residual).fit()


@functools.cache
def by_v():
    return fitted("y ~ x", lj.VarExp("v"))


def test_a_shift_of_the_covariate_moves_sigma_alone():
    moved = fitted("y ~ x", lj.VarExp("v"), v=data()["v"] + 250)
    assert moved.converged
    assert_allclose(moved.deviance, by_v().deviance, rtol=1e-10)
    rate = by_v().varcorr()["sdcor"][0]
    assert_allclose(moved.varcorr()["sdcor"], [rate, by_v().sigma * np.exp(-250 * rate)], rtol=1e-5)


@pytest.mark.parametrize(
    ("residual", "v", "message"),
    [
        (lj.VarExp("v"), data()["v"] + 2015, r"VarExp: 'v' lies between 2016\..* subtract 20\d\d\."),
        (lj.VarPower("v"), data()["v"] * 1e150, r"VarPower: 'v' has the value .*e\+150, .* power of 10"),
    ],
)
def test_covariates_without_a_scale_are_refused(residual, v, message):
    with pytest.raises(ValueError, match=message):
        fitted("y ~ x", residual, v=v)


def test_variances_that_cannot_differ_are_no_structure():
    """One level of VarIdent: the model without it, with any degrees of freedom."""
    plain, own = fitted("y ~ x + (1 | g)"), fitted("y ~ x + (1 | g)", lj.VarIdent("one"))
    for ddf in ("satterthwaite", "kenward-roger", "kenward-roger-sas"):
        assert_allclose(own.coef_table(ddf), plain.coef_table(ddf), rtol=1e-6)


def test_small_distances_beside_large_ones_stay_apart():
    values = np.array([0.0, 1e-3, 2e-3, -2e-3, 1e11, 1e11 * (1 + 1e-14)])
    out = rounded(values)
    assert len(np.unique(out)) == 5
    assert_allclose(out, values, rtol=1e-11)


@pytest.mark.parametrize(
    "residual", [lj.Unstructured("t", group="g", by="arm"), lj.AR1("t", group="g", by="arm")]
)
def test_shares_with_covariances_by_level(residual):
    """R² = var(Xβ)/(var(Xβ) + mean of the diagonal of R)."""
    fit = fitted("y ~ x", residual)
    arms = data().drop_duplicates("arm")["g"]
    noise = np.mean([np.diag(fit.residual_cov(group)).mean() for group in arms])
    fixed = np.var(data()["x"] * fit.params["x"], ddof=1)
    assert_allclose(fit.r2()["marginal"], fixed / (fixed + noise), rtol=1e-10)
    assert fit.icc() == 0.0
