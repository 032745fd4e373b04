"""Analytic derivatives against finite differences: the jet of every backend, the criterion, the optimum."""

import functools
import sys

import jax
import numpy as np
import pytest
from core_data import TERMS, arrays, assert_near, design, problem, random_theta, response, several

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import estimate_jit
from lmmjax.core.criterion import chain, criterion, parts
from lmmjax.core.problem import deviance_shift, internal_entries
from lmmjax.gram import BACKENDS

STEP = 1e-5
# central differences err by STEP² and by 1e-16/STEP, times third derivatives of order 100
TOL = 1e-7

pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def jets():
    return quick_jit(jax.vmap(lambda d, problem: problem.shared.jet(d, problem.response), in_axes=(0, None)))


@functools.cache
def deviances():
    """The criterion at many θ, with gradients, by autodiff of `lj.profiled_deviance`."""
    return quick_jit(jax.vmap(jax.value_and_grad(lj.profiled_deviance), in_axes=(0, None)))


@functools.cache
def chained():
    """The criterion's value, gradient and Hessian in θ as the optimiser has them."""

    def evaluate(theta, problem):
        split = parts(problem.shared.jet(internal_entries(theta, problem), problem.response), problem.reml)
        return chain(criterion(split, problem.nu), lambda t: internal_entries(t, problem), theta)

    return quick_jit(evaluate)


SEVERAL = {"nested": ("nested", (1, 2)), "crossed": ("crossed", (2, 1)), "layered": ("mixed", (1, 1, 2))}
"""Backends for several factors: how these lie, and the columns of a term of each."""


def around(x):
    """x, x + STEP e_a, x − STEP e_a: (2m + 1, m)."""
    moves = STEP * np.eye(len(x))
    return np.concatenate([x[None], x + moves, x - moves])


def central(values):
    """Derivatives (m, …) from values (2m + 1, …) at `around`."""
    m = (len(values) - 1) // 2
    return (values[1 : m + 1] - values[m + 1 :]) / (2 * STEP)


def random_problem(terms, backend, seed=5, reml=True):
    rng = np.random.default_rng(seed)
    options = {"compress": False} if backend == "grouped" else {}
    if backend in SEVERAL:
        d = several(rng, *SEVERAL[backend], weights=True)
    else:
        d = design(rng, terms, weights=True)
    y = response(rng, d, random_theta(rng, d))
    return d, problem(d, y, reml, backend=backend, **options), random_theta(rng, d)


@pytest.mark.parametrize(
    ("terms", "backend"),
    [
        (t, b)
        for b in BACKENDS
        for t in ("us2", "diag2", "us2+diag1")
        # residual structures and kernels have tests of their own
        if b not in ("fixed", "whitened", "spectral", "block", "rotated") and (b not in SEVERAL or t == "us2")
    ],
)
def test_jet(terms, backend):
    _, p, theta = random_problem(terms, backend)
    jet = arrays(jets()(around(np.asarray(internal_entries(theta, p))), p))
    at = jax.tree.map(lambda a: a[0], jet)
    assert_near(at.first, jax.tree.map(central, jet.value), TOL)
    assert_near(at.second, jax.tree.map(central, jet.first), TOL)


def test_jet_of_many_groups(monkeypatch):
    """Summed over blocks of groups: rounding apart from all at once, which `test_jet` has checked."""
    rng = np.random.default_rng(8)
    many = design(rng, "us2+diag1", weights=True, groups=8)
    p = problem(many, rng.normal(size=len(many.x)), True, backend="grouped", compress=False)
    d = internal_entries(random_theta(rng, many), p)
    whole = quick_jit(lambda p: p.shared.jet(d, p.response))(p)
    # 8 groups as 3 + 3 + 2
    monkeypatch.setattr(sys.modules["lmmjax.gram.grouped.products"], "BLOCK", 3)
    assert_near(quick_jit(lambda p: p.shared.jet(d, p.response))(p), whole, 1e-13)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("terms", ["us2", "diag2", "us2+diag1"])
def test_criterion_and_its_derivatives(terms, reml):
    _d, p, theta = random_problem(terms, "grouped", reml=reml)
    values, gradients = arrays(deviances()(around(theta), p))
    jet = arrays(chained()(theta, p))
    assert abs(jet.value + deviance_shift(p) - values[0]) < 1e-10 * (1 + abs(values[0]))
    assert_near(jet.first, gradients[0], 1e-10)
    assert_near(jet.first, central(values), TOL)
    assert_near(jet.second, central(gradients), TOL)


@pytest.mark.parametrize("terms", TERMS)
def test_reported_optimum_is_stationary(terms):
    _d, p, _ = random_problem(terms, "grouped", seed=11)
    fit = arrays(estimate_jit(p))
    assert fit.status == lj.Status.CONVERGED
    values, gradients = arrays(deviances()(around(fit.theta), p))
    assert abs(fit.deviance - values[0]) < 1e-10 * (1 + abs(values[0]))
    # the contract: gradients at most 1e-6 relative at every optimum that is reported
    size = 1e-6 * (1 + abs(fit.deviance))
    assert fit.grad_norm < size
    assert np.abs(gradients[0]).max() < size
    assert np.abs(central(values)).max() < size
    curvature = np.linalg.eigvalsh(central(gradients))
    assert curvature.min() > -size
