"""Responses with missing values or weights of their own are fitted as if each had its own model."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest

import lmmjax as lj
from lmmjax.batch.lanes import axes_of
from lmmjax.batch.sources import own_problem, own_products
from lmmjax.core.criterion import evaluate
from lmmjax.optimize import Status

N, GROUPS, LANES = 96, 12, 150
FORMULAS = ["~ t + (1 | g)", "~ t + (1 + t | g)", "~ t + (1 | g) + (0 + t | g)"]


def data(seed):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(GROUPS), N // GROUPS)
    design = pd.DataFrame({"t": rng.normal(size=N), "g": g, "w": rng.uniform(0.5, 2.0, size=N)})
    y = 50.0 + rng.normal(size=(N, LANES)) + rng.normal(size=(GROUPS, LANES))[g]
    return rng, design, y


def assert_like_its_own_model(fits, k, formula, design, y, weights=None):
    """Against a model made from the rows and weights of response k alone."""
    keep = np.isfinite(y[:, k]) & (True if weights is None else weights[:, k] > 0)
    frame = design[keep].assign(y=y[keep, k])
    alone = lj.lmm("y " + formula, frame, weights=None if weights is None else weights[keep, k]).fit()
    own = fits[fits.names[k]]
    # a batch makes one descent, a fit three: compared only where they end in the same optimum
    assert own.deviance >= alone.deviance - 1e-8
    if own.deviance > alone.deviance + 1e-8:
        return False
    np.testing.assert_allclose(own.params, alone.params, rtol=1e-7)
    np.testing.assert_allclose(own.bse, alone.bse, rtol=1e-6)
    # near a boundary the criterion is flat: parameters to the root of its accuracy
    np.testing.assert_allclose(own.estimate.psi, alone.estimate.psi, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.fittedvalues, alone.fittedvalues, rtol=1e-6)
    return True


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_response_its_own_missing_values(formula):
    rng, design, y = data(1)
    y[rng.random(size=y.shape) < 0.04] = np.nan
    fits = lj.lmm(formula, design).fit_batch(y)
    assert fits.converged.all()
    assert sum(assert_like_its_own_model(fits, k, formula, design, y) for k in range(4)) >= 3


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_value_its_own_weight(formula):
    rng, design, y = data(2)
    weights = rng.uniform(0.3, 3.0, size=y.shape)
    weights[rng.random(size=y.shape) < 0.02] = 0.0
    y[5, 7] = np.nan
    fits = lj.lmm(formula, design).fit_batch(y, weights=weights)
    assert fits.converged.all()
    assert sum(assert_like_its_own_model(fits, k, formula, design, y, weights) for k in range(4)) >= 3


def test_weights_multiply_those_of_the_model():
    rng, design, y = data(3)
    weights = rng.uniform(0.3, 3.0, size=y.shape)
    twice = lj.lmm("~ t + (1 | g)", design, weights="w").fit_batch(y, weights=weights)
    once = lj.lmm("~ t + (1 | g)", design).fit_batch(y, weights=weights * design["w"].to_numpy()[:, None])
    np.testing.assert_allclose(twice.deviance, once.deviance, rtol=1e-12)


def test_equal_weights_are_no_weights():
    _, design, y = data(4)
    model = lj.lmm("~ t + (1 + t | g)", design)
    plain, weighted = model.fit_batch(y), model.fit_batch(y, weights=np.full_like(y, 2.0))
    # log|R|, log|Sxx| and ν log r² change by −n, p and n − p times log 2: REML criteria are equal
    np.testing.assert_allclose(weighted.deviance, plain.deviance, rtol=1e-10)
    np.testing.assert_allclose(weighted.params, plain.params, rtol=1e-7, atol=1e-8)


def test_offsets_of_their_own():
    rng, design, y = data(5)
    offset = rng.normal(size=y.shape)
    model = lj.lmm("~ t + (1 | g)", design)
    np.testing.assert_array_equal(
        model.fit_batch(y + offset, offset=offset).deviance, model.fit_batch(y + offset - offset).deviance
    )


def test_patterns_in_common_equal_weights_of_zero_and_one():
    _, design, y = data(6)
    y[3, :] = np.nan
    y[17:20, ::2] = np.nan
    model = lj.lmm("~ t + (1 | g)", design)
    by_pattern = model.fit_batch(y)
    weighted = model.fit_batch(y, weights=np.ones_like(y))
    np.testing.assert_allclose(weighted.deviance, by_pattern.deviance, rtol=1e-10)
    np.testing.assert_allclose(weighted.params, by_pattern.params, rtol=1e-7)


def test_too_little_left_is_a_status_and_spoils_nothing():
    rng, design, y = data(7)
    y[rng.random(size=y.shape) < 0.03] = np.nan
    clean = lj.lmm("~ t + (1 | g)", design).fit_batch(y)
    bad = y.copy()
    bad[:, 0] = np.nan
    bad[2:, 1] = np.nan
    bad[N // GROUPS :, 2] = np.nan
    bad[4, 3] = np.inf
    bad[:, 4] = 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fits = lj.lmm("~ t + (1 | g)", design).fit_batch(bad)
    assert [str(w.message)[:36] for w in caught] == ["5 of 150 responses could not be fitte"[:36]]
    names = [Status.NOT_ESTIMABLE] * 3 + [Status.NOT_FINITE, Status.PERFECT_FIT]
    assert fits.status[:5].tolist() == [s.name.lower() for s in names]
    assert fits.params.iloc[:5].isna().all(axis=None)
    np.testing.assert_allclose(fits.deviance[5:], clean.deviance[5:], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones((N, 3))}, "weights are 3 columns for 150 responses"),
        ({"weights": np.ones((5, LANES))}, "weights have 5 rows"),
        ({"weights": -np.ones((N, LANES))}, "weights must be at least 0 and not missing"),
        ({"offset": np.ones((N, 2))}, "offset are 2 columns"),
    ],
)
def test_bad_weights_and_offsets(change, message):
    _, design, y = data(8)
    with pytest.raises(ValueError, match=message):
        lj.lmm("~ t + (1 | g)", design).fit_batch(y, **change)


@pytest.mark.parametrize("weighted", [False, True])
def test_many_fixed_effects_with_gaps(weighted):
    rng, design, y = data(7)
    names = [f"x{k}" for k in range(14)]
    design[names] = rng.normal(size=(N, 14))
    y = y[:, :4]
    y[rng.random(size=y.shape) < 0.04] = np.nan
    weights = rng.uniform(0.5, 2.0, size=y.shape) if weighted else None
    formula = "~ " + " + ".join(names) + " + (1 | g)"
    fits = lj.lmm(formula, design).fit_batch(y, weights=weights)
    assert all(assert_like_its_own_model(fits, k, formula, design, y, weights) for k in range(4))


def test_weights_of_their_own_without_fixed_effects():
    """The criterion of many lanes has an empty X; of shapes alone, which is where it failed."""
    rng, design, y = data(9)
    products = own_products(lj.lmm("~ 0 + (1 | g)", design).data.maker)
    problem = own_problem(products, y, rng.uniform(0.5, 2.0, y.shape), True)[0]
    over = jax.vmap(
        lambda own: evaluate(own.shared, np.ones(1), own.response, own.reml), in_axes=(axes_of(problem),)
    )
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        found = jax.eval_shape(over, problem)
    assert found.fit.beta.shape == (LANES, 0)
    assert found.r2.second.shape == (LANES, 1, 1)
