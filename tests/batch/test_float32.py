"""Batches that descend in single precision, against the same in double precision."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

T = 600

FORMULAS = {"intercepts": "~ x + (1 | g)", "slopes": "~ x + (x | g)"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(20), 4)
    return pd.DataFrame({"g": g, "x": np.tile(np.arange(4.0), 20), "z": rng.normal(size=80)})


@pytest.fixture(scope="module")
def responses(data):
    """A third without slopes, a third without any random effect, so that optima lie on boundaries."""
    rng = np.random.default_rng(9)
    g, x = data["g"].to_numpy(), data["x"].to_numpy()[:, None]
    some, slope = np.arange(T) % 3 > 0, np.arange(T) % 3 > 1
    b = rng.normal(size=(2, 20, T))
    return 3 + 0.2 * x + some * b[0][g] + 0.4 * slope * b[1][g] * x + rng.normal(size=(80, T))


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=list(FORMULAS))
@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_single_precision(data, responses, formula, scale):
    """Every response is certified, and what is reported is that of an optimum known to four digits.

    The criterion is exact at the θ found, which lies within about eps^½ = 3e-4 of the optimum: it exceeds its
    least value by the square of that times the curvature in θ, of the order of the 20 groups, so by 2e-6.
    The units of y do not matter, though squares of 1e-25 are nothing in single precision.
    """
    model = lj.lmm(formula, data)
    double, single = (model.fit_batch(scale * responses, dtype=kind) for kind in ("float64", "float32"))
    assert single.converged.all()
    assert single.estimate.beta.dtype == np.float64
    assert_allclose(single.deviance, double.deviance, atol=2e-6)
    assert np.all(np.abs(single.params - double.params) <= 1e-3 * double.bse)
    assert_allclose(single.bse, double.bse, rtol=1e-3)
    sigma2 = double.varcorr.to_numpy()[:, -1:]
    assert np.max(np.abs(single.varcorr - double.varcorr) / sigma2) < 1e-2


def test_weights_and_missing_values(data, responses):
    model = lj.lmm("~ x + (1 | g)", data)
    rng = np.random.default_rng(10)
    weights = np.exp(0.3 * rng.normal(size=responses.shape))
    lost = np.where(rng.uniform(size=responses.shape) < 0.03, np.nan, responses)
    for y, w in ((responses, weights), (lost, None)):
        double, single = (model.fit_batch(y, weights=w, dtype=kind) for kind in ("float64", "float32"))
        assert single.converged.all()
        assert_allclose(single.deviance, double.deviance, atol=2e-6)


def test_other_precisions_are_refused(data, responses):
    with pytest.raises(ValueError, match="unknown dtype 'float16'; choose one of: float64, float32"):
        lj.lmm("~ x + (1 | g)", data).fit_batch(responses, dtype="float16")
    with pytest.raises(ValueError, match="unknown dtype 'single precision'"):
        lj.lmm("~ x + (1 | g)", data).fit_batch(responses, dtype="single precision")
