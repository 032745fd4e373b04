"""`by` in batches: every residual structure as in single fits, alone and in lanes."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj
from lmmjax.batch import sources
from lmmjax.residual import CORRELATIONS, VARIANCES

RESPONSES = 3


@functools.cache
def trial():
    """Thirty people in two arms at three visits, and responses of which one has missing values."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(np.arange(30), 3), "t": np.tile(np.arange(3), 30)})
    data["arm"], data["f"] = np.where(data["g"] % 2, "a", "b"), np.tile(["p", "q", "r"], 30)
    data["x"], data["v"] = rng.normal(size=90), rng.uniform(1, 3, 90)
    y = rng.normal(size=(90, RESPONSES)) * np.where(data["arm"] == "a", 1.0, 1.6)[:, None]
    y += rng.normal(size=(30, RESPONSES))[data["g"]]
    y[[4, 17, 53], 2] = np.nan
    return data, y


def structure(name):
    if name in VARIANCES:
        return VARIANCES[name]("f" if name == "VarIdent" else "v", by="arm")
    if name == "CompoundSymmetry":
        return lj.CompoundSymmetry(group="g", by="arm")
    return CORRELATIONS[name]("t", group="g", by="arm")


@pytest.mark.parametrize(
    ("name", "lanes"), [*((name, False) for name in (*CORRELATIONS, *VARIANCES)), ("AR1", True)]
)
def test_a_batch_equals_single_fits(name, lanes, monkeypatch):
    """In lanes NumPy plays the program: nothing is compiled. The third response has rows of its own."""
    if lanes:
        monkeypatch.setattr(sources, "FEW", 0)
    data, y = trial()
    chosen = [0, 1, 2] if name == "AR1" else [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        many = lj.lmm("~ x", data, residual=structure(name)).fit_batch(y[:, chosen])
        for k in chosen[1:]:
            there = ~np.isnan(y[:, k])
            one = lj.lmm("y ~ x", data.assign(y=y[:, k])[there], residual=structure(name)).fit()
            assert many.converged.iloc[k] == one.converged
            assert_allclose(many.deviance[k], one.deviance, rtol=1e-9)
            # both stop where the criterion is flat to its rounding
            assert_allclose(many.params.iloc[k], one.params, rtol=1e-5, atol=1e-6)
            assert_allclose(many.bse.iloc[k], one.bse, rtol=1e-5)
            assert_allclose(many.varcorr_se.iloc[k], one.varcorr()["se"], rtol=1e-3)


def test_no_correlation_is_an_ordinary_point_of_an_autoregression():
    """At φ = 0 the derivatives of φ⁰ and φ¹ are numbers, and descents that end there converge."""
    data, _ = trial()
    y = np.random.default_rng(5).normal(size=(90, 2))
    y[1::3] = -0.6 * y[0::3] + 0.8 * y[1::3]
    with pytest.warns(lj.FitWarning, match="singular"):
        fit = lj.lmm("y ~ x", data.assign(y=y[:, 0]), residual=lj.CAR1("t", group="g")).fit(start=[-1.2])
    assert fit.converged
    assert fit.estimate.n_iter < 20
    assert fit.varcorr()["sdcor"][0] == 0.0
    assert_allclose(fit.deviance, lj.lmm("y ~ x", data.assign(y=y[:, 0])).fit().deviance, rtol=1e-12)
