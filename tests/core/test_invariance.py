"""What must not change an estimate: order of rows, labels of groups, units, the origin of a covariate."""

import dataclasses

import numpy as np
import pytest
from core_data import N, P, arrays, assert_near, design, problem, random_theta, response
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmjax.core import estimate_jit
from lmmjax.optimize import Status

pytestmark = pytest.mark.usefixtures("x64")

many = settings(max_examples=30)
SEEDS = st.integers(0, 10**6)
UNITS = st.sampled_from([1e-6, 1e6])
# the criterion to rounding errors; a minimum to their square root times a margin
CRITERION, POINT = 1e-9, 1e-6


def fit(d, y, reml=True):
    result = arrays(estimate_jit(problem(d, y, reml, compress=False)))
    assert result.status == Status.CONVERGED
    return result


def data(seed, terms="us2"):
    """A design whose X spans the columns of its first term, and a response."""
    rng = np.random.default_rng(seed)
    d = design(rng, terms)
    z = np.column_stack([np.ones(N), d.x[:, 1:], d.terms[0].z[:, P:]])[:, : d.terms[0].q]
    d = dataclasses.replace(d, terms=(dataclasses.replace(d.terms[0], z=z), *d.terms[1:]))
    return rng, d, response(rng, d, random_theta(rng, d))


def change_terms(d, **changes):
    return tuple(
        dataclasses.replace(t, **{name: change(t) for name, change in changes.items()}) for t in d.terms
    )


def assert_same(a, b, shift=0.0, psi=1.0, beta=1.0):
    """b is a, but for a shift of the criterion and units of ψ and β."""
    assert abs(b.deviance - shift - a.deviance) < CRITERION * (1 + abs(a.deviance) + abs(shift))
    assert a.singular == b.singular
    assert_near(b.psi / psi, a.psi, POINT)
    assert_near(b.beta / beta, a.beta, POINT)
    assert_near(np.sqrt(np.diag(b.cov_beta)) / beta, np.sqrt(np.diag(a.cov_beta)), POINT)
    free = np.isfinite(a.cov_psi)
    assert np.array_equal(np.isfinite(b.cov_psi), free)
    scale = np.sqrt(np.diag(a.cov_psi))
    units = np.broadcast_to(psi, scale.shape)
    ratio = b.cov_psi / np.outer(units, units) / np.outer(scale, scale)
    np.testing.assert_allclose(ratio[free], (a.cov_psi / np.outer(scale, scale))[free], rtol=0, atol=1e-5)


@many
@given(seed=SEEDS)
def test_order_of_rows_and_labels_of_groups(seed):
    rng, d, y = data(seed)
    order, labels = rng.permutation(N), rng.permutation(d.terms[0].n_groups)
    moved = dataclasses.replace(
        d,
        x=d.x[order],
        terms=change_terms(d, z=lambda t: t.z[order], codes=lambda t: labels[t.codes][order]),
    )
    assert_same(fit(d, y), fit(moved, y[order]))


@many
@given(seed=SEEDS, unit=UNITS, reml=st.booleans())
def test_units_of_the_response(seed, unit, reml):
    _, d, y = data(seed)
    nu = N - P * reml
    assert_same(fit(d, y, reml), fit(d, unit * y, reml), 2 * nu * np.log(unit), psi=unit**2, beta=unit)


@many
@given(seed=SEEDS, unit=UNITS, reml=st.booleans())
def test_units_of_a_covariate(seed, unit, reml):
    _, d, y = data(seed)
    moved = dataclasses.replace(d, x=d.x * np.array([1.0, unit]))
    shift = 2 * np.log(unit) * reml
    assert_same(fit(d, y, reml), fit(moved, y, reml), shift, beta=np.array([1.0, 1 / unit]))


@pytest.mark.parametrize("terms", ["us2", "diag2"])
@many
@given(seed=SEEDS, unit=UNITS)
def test_units_of_a_random_slope(terms, seed, unit):
    _, d, y = data(seed, terms)
    moved = dataclasses.replace(d, terms=change_terms(d, z=lambda t: t.z * np.array([1.0, unit])))
    # variances of intercept and slope, their covariance if there is one, σ²
    units = np.array([1.0, unit**-2, *([1 / unit] if terms == "us2" else []), 1.0])
    a, b = fit(d, y), fit(moved, y)
    assert_same(a, b, psi=units)
    slope = np.array([1.0, 1 / unit, 1 / unit] if terms == "us2" else [1.0, 1 / unit])
    assert_near(b.theta / slope, a.theta, POINT)


@many
@given(seed=SEEDS, shift=st.sampled_from([-1e3, -3.0, 50.0]))
def test_origin_of_a_random_slope(seed, shift):
    """With X spanning the columns of Z a shift is a change of basis: D becomes tDtᵀ."""
    _, d, y = data(seed)
    change = np.array([[1.0, shift], [0.0, 1.0]])
    moved = dataclasses.replace(d, x=d.x @ change, terms=change_terms(d, z=lambda t: t.z @ change))
    a, b = fit(d, y), fit(moved, y)
    assert abs(a.deviance - b.deviance) < CRITERION * (1 + abs(a.deviance))
    matrix = change @ np.array([[b.psi[0], b.psi[2]], [b.psi[2], b.psi[1]]]) @ change.T
    # a shift of a thousand standard deviations costs its square of the digits
    tol = POINT * max(1.0, (shift / 50) ** 2)
    assert_near(np.array([matrix[0, 0], matrix[1, 1], matrix[0, 1], b.psi[3]]), a.psi, tol)
    assert_near(change @ b.beta, a.beta, tol)


@many
@given(seed=SEEDS)
def test_fixed_part_added_to_the_response(seed):
    rng, d, y = data(seed)
    gamma = 1e4 * rng.normal(size=P)
    a, b = fit(d, y), fit(d, y + d.x @ gamma)
    assert abs(a.deviance - b.deviance) < CRITERION * (1 + abs(a.deviance))
    assert_near(b.psi, a.psi, POINT)
    assert_near(b.beta - gamma, a.beta, POINT)
