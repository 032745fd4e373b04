"""`estimate` as a pure function: transformations, precision, starting points, methods, and how it ends."""

import jax
import numpy as np
import pytest
from core_data import (
    N,
    arrays,
    assert_near,
    design,
    lanes,
    problem,
    random_theta,
    response,
    responses,
    stack,
)

import lmmjax as lj
from lmmjax.core import METHODS, ProblemMaker, estimate_jit
from lmmjax.optimize import Status

pytestmark = pytest.mark.usefixtures("x64")

# the same operations in another order: errors of the criterion near 1e-14, of a minimum near 1e-9
SAME = 1e-8


def numbers(fit):
    """What must agree between two computations of one fit."""
    return fit.theta, fit.psi, fit.beta, fit.sigma2, fit.cov_beta, fit.deviance, fit.status, fit.singular


def one_problem(seed=0, terms="us2", reml=True):
    rng = np.random.default_rng(seed)
    d = design(rng, terms)
    return problem(d, response(rng, d, 2 * random_theta(rng, d)), reml, compress=False)


@pytest.fixture(scope="module")
def fitted():
    with jax.enable_x64(True):
        return arrays(estimate_jit(one_problem()))


def test_eager_equals_jit():
    p = one_problem(terms="us1")
    assert_near(numbers(lj.estimate(p)), numbers(estimate_jit(p)), SAME)


def test_vmap_over_problems_equals_a_loop():
    problems = [one_problem(seed, reml=seed % 2 == 0) for seed in range(8)]
    mapped = arrays(lanes()(stack(problems)))
    for k, p in enumerate(problems):
        assert_near(numbers(jax.tree.map(lambda a, k=k: a[k], mapped)), numbers(estimate_jit(p)), SAME)


def test_vmap_over_responses_equals_a_loop():
    rng = np.random.default_rng(1)
    d = design(rng, "us2")
    y = np.stack([response(rng, d, random_theta(rng, d)) for _ in range(8)])
    made = ProblemMaker(d, compress=False)
    mapped = arrays(responses()(made(y)))
    for k in range(len(y)):
        single = estimate_jit(made(y[k]))
        assert_near(numbers(jax.tree.map(lambda a, k=k: a[k], mapped)), numbers(single), SAME)


def test_traced_response_equals_a_given_one(fitted):
    rng = np.random.default_rng(0)
    d = design(rng, "us2")
    y = response(rng, d, 2 * random_theta(rng, d))
    made = ProblemMaker(d, compress=False)
    traced = arrays(jax.jit(lambda y: made(y))(y))
    assert_near(numbers(estimate_jit(traced)), numbers(fitted), SAME)


def test_float32(fitted):
    p = jax.tree.map(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, one_problem())
    fit = arrays(estimate_jit(p))
    assert fit.deviance.dtype == fit.theta.dtype == np.float32
    assert fit.status == Status.CONVERGED
    # documented: the criterion to 1e-5 relative, a minimum to the square root of that
    assert abs(fit.deviance - fitted.deviance) < 1e-5 * abs(fitted.deviance)
    assert_near((fit.beta, fit.psi, fit.theta), (fitted.beta, fitted.psi, fitted.theta), 3e-3)


@pytest.mark.parametrize("terms", ["us2", "us2+diag1"])
def test_every_start_leads_to_the_same_optimum(terms):
    rng = np.random.default_rng(7)
    p = one_problem(seed=3, terms=terms)
    m = p.structure.n_params
    # from nearly zero to far above; signs of columns do not matter
    starts = rng.normal(size=(64, m)) * 10.0 ** rng.uniform(-3, 1.5, (64, 1))
    starts[0], starts[1] = 0.0, np.nan
    fits = arrays(lanes(start=True)(stack([p] * 64), starts))
    assert np.all(fits.status == Status.CONVERGED)
    assert np.ptp(fits.deviance) < 1e-9 * (1 + abs(fits.deviance[0]))
    np.testing.assert_allclose(fits.psi, fits.psi[:1].repeat(64, 0), rtol=0, atol=1e-6 * fits.psi[0].max())
    q = p.structure.terms[0].q
    assert np.all(fits.theta[:, np.cumsum([0, *range(q, 1, -1)])] >= 0)


@pytest.mark.parametrize("method", METHODS)
def test_methods_agree(method, fitted):
    # optax itself promotes dtypes implicitly
    with jax.numpy_dtype_promotion("standard"):
        fit = arrays(estimate_jit(one_problem(), method=method))
    assert_near(numbers(fit), numbers(fitted), 1e-7)


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown method 'bfgs'; choose one of: newton, lbfgs"):
        lj.estimate(one_problem(), method="bfgs")


def test_start_at_the_optimum_takes_few_evaluations(fitted):
    again = estimate_jit(one_problem(), fitted.theta)
    assert again.n_iter <= 4
    assert_near(numbers(again), numbers(fitted), SAME)


def ended(y):
    d = design(np.random.default_rng(0), "us2")
    return arrays(estimate_jit(problem(d, y(d), compress=False)))


@pytest.mark.parametrize(
    ("y", "status"),
    [
        (lambda d: d.x @ np.array([3.0, -2.0]), Status.PERFECT_FIT),
        (lambda d: np.full(N, 7.5), Status.PERFECT_FIT),
        (lambda d: np.zeros(N), Status.PERFECT_FIT),
        (lambda d: np.where(np.arange(N) == 3, np.nan, 1.0), Status.NOT_FINITE),
        (lambda d: np.where(np.arange(N) == 3, np.inf, d.x[:, 1]), Status.NOT_FINITE),
    ],
    ids=["linear", "constant", "zero", "nan", "inf"],
)
def test_status_of_hopeless_responses(y, status):
    with np.errstate(invalid="ignore"):
        assert ended(y).status == status


def test_iteration_limit_is_a_status_with_advice():
    limited = arrays(estimate_jit(one_problem(), max_iter=2))
    assert limited.status == Status.ITERATION_LIMIT
    assert limited.n_iter == 2
    assert "raise max_iter" in Status(int(limited.status)).advice


def test_no_random_terms_is_ordinary_least_squares():
    rng = np.random.default_rng(9)
    x = np.column_stack([np.ones(20), rng.normal(size=20)])
    y = rng.normal(size=20)
    fit = lj.estimate(problem(lj.design.Design(x, ()), y, backend="dense"))
    beta, rss, _, _ = np.linalg.lstsq(x, y)
    sigma2 = rss[0] / 18
    assert fit.status == Status.CONVERGED
    assert_near((fit.beta, fit.sigma2, fit.cov_beta), (beta, sigma2, sigma2 * np.linalg.inv(x.T @ x)), 1e-12)
    # Var(s²) from the information about σ² of the restricted likelihood
    assert_near(fit.cov_psi, np.array([[2 * sigma2**2 / 18]]), 1e-12)
