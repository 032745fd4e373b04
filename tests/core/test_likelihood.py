"""The likelihood against the explicit multivariate normal density and the explicit REML formula."""

import jax
import numpy as np
import pytest
from core_data import assert_near, design, problem, random_theta, relative_covariance, response
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker
from lmmjax.core.likelihood import profile

# two stable evaluations of sums of 36 terms of order 1 to 100
TOL = 1e-9

pytestmark = pytest.mark.usefixtures("x64")

evaluate = quick_jit(
    lambda p, beta, sigma2, theta: (
        lj.loglik(p, beta, sigma2, theta),
        lj.restricted_loglik(p, sigma2, theta),
        lj.profiled_deviance(theta, p),
        profile(lj.gram(theta, p)),
    )
)


def explicit_restricted(d, y, v):
    """−½[(n − p) log 2π + log|V| + log|XᵀV⁻¹X| + rᵀV⁻¹r], and β̂."""
    inverse = np.linalg.inv(v)
    xvx = d.x.T @ inverse @ d.x
    beta = np.linalg.solve(xvx, d.x.T @ inverse @ y)
    r = y - d.x @ beta
    logdets = np.linalg.slogdet(v)[1] + np.linalg.slogdet(xvx)[1]
    return -0.5 * ((d.n - d.p) * np.log(2 * np.pi) + logdets + r @ inverse @ r), beta


@pytest.mark.parametrize("terms", ["us2", "us2+diag1"])
@given(seed=st.integers(0, 10**6), weights=st.booleans(), offset=st.booleans())
def test_densities(terms, seed, weights, offset):
    rng = np.random.default_rng(seed)
    d = design(rng, terms, weights=weights, offset=offset)
    theta, beta, sigma2 = random_theta(rng, d, 0.3), rng.normal(size=d.p), float(rng.uniform(0.2, 3))
    y = response(rng, d, random_theta(rng, d))
    shifted = y - (0.0 if d.offset is None else d.offset)
    v = sigma2 * relative_covariance(d, theta)
    full, restricted, _, _ = evaluate(problem(d, y, compress=False), beta, sigma2, theta)
    assert_near(full, multivariate_normal(d.x @ beta, v).logpdf(shifted), TOL)
    assert_near(restricted, explicit_restricted(d, shifted, v)[0], TOL)


@given(seed=st.integers(0, 10**6))
def test_profiled_is_the_maximum_over_beta_and_sigma(seed):
    rng = np.random.default_rng(seed)
    d = design(rng, "us2", weights=True)
    theta, y = random_theta(rng, d), rng.normal(size=d.n)
    for reml in (False, True):
        p = problem(d, y, reml, compress=False)
        nu = d.n - reml * d.p
        fit = evaluate(p, np.zeros(d.p), 1.0, theta)[3]
        best, sigma2 = np.asarray(fit.beta), float(fit.r2) / nu
        values = []
        for factor in (1.0, 0.99, 1.01):
            ml, restricted, profiled, _ = evaluate(p, best, sigma2 * factor, theta)
            values.append(float(restricted if reml else ml))
        assert_near(-2 * values[0], profiled, TOL)
        assert max(values[1:]) < values[0]
        if not reml:
            moved = best + 1e-3 * rng.normal(size=d.p)
            assert evaluate(p, moved, sigma2, theta)[0] < values[0]


def test_no_fixed_effects():
    rng = np.random.default_rng(3)
    d = design(rng, "us1")
    d = type(d)(np.zeros((d.n, 0)), d.terms)
    y, theta = rng.normal(size=d.n), np.array([0.7])
    p = problem(d, y, compress=False)
    v = 1.3 * relative_covariance(d, theta)
    expected = multivariate_normal(np.zeros(d.n), v).logpdf(y)
    full, restricted, _, _ = evaluate(p, np.zeros(0), 1.3, theta)
    assert_near((full, restricted), (expected, expected), TOL)


def test_gradient_of_the_likelihood_passes_through_the_response():
    rng = np.random.default_rng(4)
    d = design(rng, "us1")
    y, theta, beta = rng.normal(size=d.n), np.array([0.7]), np.array([0.1, 0.2])
    made = ProblemMaker(d, compress=False)
    gradient = quick_jit(jax.grad(lambda y: lj.loglik(made(y), beta, 1.3, theta)))(y)
    v = 1.3 * relative_covariance(d, theta)
    assert_near(gradient, -np.linalg.solve(v, y - d.x @ beta), TOL)
