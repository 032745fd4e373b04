"""Simulated responses have the moments of the model."""

import jax
import numpy as np
import pandas as pd
import pytest
from fit_data import matrices

import lmmjax as lj

DRAWS = 20_000


@pytest.fixture(scope="module")
def small(sleepstudy):
    """Five subjects with prior weights and an offset: n = 50."""
    data = sleepstudy[sleepstudy["Subject"] < 335]
    model = lj.lmm("Reaction ~ Days + (Days | Subject)", data, weights="1 + Days % 3", offset="3 * Days")
    return model.fit()


def test_moments(small):
    x, _, _, _, v = matrices(small)
    draws = small.simulate(jax.random.key(1), DRAWS)
    assert list(draws.index) == list(small.model.frame.index)
    mean = x @ small.params.to_numpy() + small.model.frame.offset
    sd = np.sqrt(np.diag(v))
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 5 * sd / np.sqrt(DRAWS))
    # Var of a sample covariance: (VᵢᵢVⱼⱼ + Vᵢⱼ²)/N
    spread = np.sqrt((np.outer(sd, sd) ** 2 + v**2) / DRAWS)
    assert np.all(np.abs(np.cov(draws) - v) < 5 * spread)
    # normal: the fourth moment of standardised draws is 3, with variance 96
    z = (draws.to_numpy() - mean[:, None]) / sd[:, None]
    assert np.all(np.abs(np.mean(z**4, axis=1) - 3) < 5 * np.sqrt(96 / DRAWS))


def test_keys(small):
    a, b, c = (small.simulate(jax.random.key(k), 2) for k in (3, 3, 4))
    pd.testing.assert_frame_equal(a, b)
    assert not np.any(a.to_numpy() == c.to_numpy())
    assert not np.any(a[0] == a[1])


def test_draws_of_a_singular_fit(sleepstudy):
    flat = sleepstudy.assign(y=np.tile([1.0, -1.0], 90))
    fit = lj.lmm("y ~ Days + (Days | Subject)", flat).fit()
    assert np.all(np.isfinite(fit.simulate(jax.random.key(0), 3)))


def test_draws_go_into_a_batch(small):
    """Refits of 400 draws: estimates are centred on the parameters that were simulated from."""
    fits = small.model.fit_batch(small.simulate(jax.random.key(5), 400))
    assert fits.converged.all()
    error = fits.params.mean() - small.params
    assert np.all(np.abs(error) < 5 * fits.params.std() / np.sqrt(400))
    scale = fits.estimate.sigma2
    assert abs(scale.mean() - small.scale) < 5 * scale.std() / np.sqrt(400)
