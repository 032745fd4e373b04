"""Structures below a backend: every family of residuals and random effects against explicit matrices."""

import functools

import jax
import numpy as np
import pytest
import structure_data as explicit
from numpy.testing import assert_allclose
from structure_data import CASES, VARIANCE_CASES, differentiated

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker
from lmmjax.core.estimate import no_pivoting, objective
from lmmjax.covariance import FAMILIES, family

INTERCEPTS = ((family("us"), 1),)
VISITS = 5


@functools.cache
def optimised():
    """Compiled: the Gram, and the criterion with the optimiser's gradient and Hessian, in the user's θ."""

    def everything(theta, problem):
        def inward(t):
            return problem.structure.change_basis(t, problem.basis.inward)

        # linear in θ
        jacobian = jax.jacfwd(inward)(theta)
        _, first, second, _ = objective(problem, inward(theta), no_pivoting(problem))
        gram = lj.gram(theta, problem)
        return gram, lj.profiled_deviance(theta, problem), first @ jacobian, jacobian.T @ second @ jacobian

    return quick_jit(everything)


class Case:
    """A design at random parameters: what the explicit matrix says, and what a backend says."""

    def __init__(self, d, seed):
        rng = np.random.default_rng(seed)
        self.design, self.reml = d, bool(seed % 2)
        self.theta, self.y = explicit.random_theta(rng, d), rng.normal(size=d.n)
        self.values = np.asarray(explicit.decoder(d.structure)(self.theta)[0])
        self.value = explicit.criterion(d, self.y, self.values, self.reml)
        self.gradient = explicit.gradient(d, self.y, self.theta, self.reml)

    def problem(self, backend=None, **options):
        return ProblemMaker(self.design, backend, **options)(self.y, self.reml)

    def check_criterion(self, value, gradient):
        assert_allclose(value, self.value, rtol=1e-9)
        # sums over rows of terms that are not small where the gradient is
        assert_allclose(gradient, self.gradient, rtol=0, atol=1e-9 * max(1.0, np.abs(self.gradient).max()))

    def check_reverse(self, backend=None, **options):
        self.check_criterion(*differentiated()(self.theta, self.problem(backend, **options)))

    def check_optimised(self, backend=None, **options):
        gram, value, first, second = optimised()(self.theta, self.problem(backend, **options))
        logdet, s = explicit.gram(self.design, self.y, self.values)
        blocks = np.block([[gram.xx, gram.xy[:, None]], [gram.xy[None], gram.yy]])
        assert_allclose(gram.logdet, logdet, rtol=0, atol=1e-9)
        assert_allclose(blocks, s, rtol=0, atol=1e-9 * np.abs(s).max())
        self.check_criterion(value, first)
        # the explicit one is a difference: its rounding errors are 1e-13 over the step
        atol = 1e-7 * max(1.0, np.abs(self.hessian).max())
        assert_allclose(second, self.hessian, rtol=0, atol=atol)

    @functools.cached_property
    def hessian(self):
        return explicit.hessian(self.design, self.y, self.theta, self.reml)


@pytest.mark.parametrize("name", CASES)
def test_correlation_within_random_groups(name, x64):
    """With weights, a variance function, and groups of the residuals finer than those of the random term;

    every group misses one of the five occasions.
    """
    seed = list(CASES).index(name)
    variances = list(VARIANCE_CASES.values())[seed % len(VARIANCE_CASES)]
    d = explicit.design(np.random.default_rng(seed), CASES[name], variances, INTERCEPTS, weights=True)
    case = Case(d, seed)
    case.check_optimised()
    if name == "AR1":
        case.check_optimised("dense")
    if CASES[name].markov:
        case.check_reverse(markov=False)


@pytest.mark.parametrize("name", CASES)
def test_correlation_alone(name, x64):
    """Groups of two sizes, five and six of six occasions."""
    seed = list(CASES).index(name) + 1
    rng = np.random.default_rng(seed)
    case = Case(explicit.design(rng, CASES[name], sizes=(5, 6, 6, 5, 5), visits=6), seed)
    case.check_reverse()


@pytest.mark.parametrize("name", VARIANCE_CASES)
def test_variance_alone(name, x64):
    seed = list(VARIANCE_CASES).index(name)
    d = explicit.design(np.random.default_rng(seed), None, VARIANCE_CASES[name], weights=seed % 2 == 0)
    case = Case(d, seed)
    case.check_optimised()


@pytest.mark.parametrize("name", FAMILIES)
def test_random_family(name, x64):
    seed = sorted(FAMILIES).index(name)
    d = explicit.design(np.random.default_rng(seed), terms=((family(name), 3),), weights=True, inside=False)
    Case(d, seed).check_optimised()


@pytest.mark.parametrize("name", ["cs", "fa"])
def test_random_family_with_residual_structure(name, x64):
    """Correlated rows may belong to different groups of the random term: the dense backend takes over."""
    d = explicit.design(np.random.default_rng(3), CASES["AR1"], terms=((family(name), 3),), inside=False)
    case = Case(d, 1)
    assert type(case.problem().shared).__name__ == "DenseProducts"
    case.check_optimised()
