"""Groups on a schedule: products by pattern of occasions against explicit matrices, whatever is missing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import structure_data as explicit
from numpy.testing import assert_allclose
from structure_data import CASES

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker
from lmmjax.core.criterion import parts
from lmmjax.core.estimate import no_pivoting, objective
from lmmjax.design import Design, ResidualDesign
from lmmjax.gram.whitened.compress import orthonormal
from lmmjax.gram.whitened.schedule import ScheduleProducts
from lmmjax.residual import ResidualStructure, Space, as_residual

VISITS = 3
CORRELATIONS = {
    "Unstructured": CASES["Unstructured"],
    "Unstructured by": CASES["Unstructured by"],
    "Gaussian, twice at some times": lj.Gaussian("t", group="id", nugget=True),
}


def trial(name, subjects=40, seed=0, weights=True, visits=VISITS):
    """Visits of a trial, some dropped; an arm, a baseline and a covariate of the visits."""
    rng = np.random.default_rng(seed)
    residual = as_residual(CORRELATIONS[name])
    seen = rng.random((subjects, visits)) < 0.6
    # complete subjects, and some with one visit
    seen[: subjects // 2] = True
    seen[subjects // 2 : subjects // 2 + 5] = np.arange(visits)[None] == 2
    seen[~seen.any(axis=1), 0] = True
    codes, place = np.nonzero(seen)
    if name.startswith("Gaussian"):
        codes, place = (np.concatenate([a, a[::4]]) for a in (codes, place.astype(float)))
        # a shift that counts nothing
        place = place + 10.0 * codes
    order = rng.permutation(len(codes))
    codes, place = codes[order], place[order]
    n, arm = len(codes), np.arange(subjects) % 2
    x = np.column_stack([np.ones(n), arm[codes], rng.normal(size=subjects)[codes], rng.normal(size=n)])
    levels = tuple(("a", "b") for _ in residual.variances)
    covariates = tuple(arm[codes] for _ in (*residual.variances, *residual.by))
    structure = ResidualStructure(
        residual, Space(visits, 1.0, tuple("abcdefgh")[:visits]), levels, (("A", "B"),) * len(residual.by)
    )
    own = ResidualDesign(structure, codes, subjects, place, covariates)
    return Design(x, (), rng.uniform(0.5, 2.0, n) if weights else None, residual=own)


def scheduled(d, y, reml=True, **options):
    problem = ProblemMaker(d, **options)(y, reml)
    assert isinstance(problem.shared.products, ScheduleProducts)
    return problem


@functools.cache
def evaluated():
    """Compiled: the criterion by pattern and from the jet of the Gram, and contractions of its curve."""

    def everything(theta, problem, phi, w):
        d = problem.structure.decode(theta)
        split = objective(problem, theta, no_pivoting(problem))[3]
        jet = problem.shared.jet(d, problem.response)
        curve = problem.shared.curve(d, problem.response)
        full = problem.shared.linear_jet(d, problem.response).second
        some = curve.xx.traced(phi), curve.xx.weighted(w), curve.logdet
        whole = (
            jnp.einsum("pr,abpr->ab", phi, full.xx),
            jnp.einsum("ab,abpr->pr", w, full.xx),
            full.logdet,
        )
        return jet.value, split, parts(jet, problem.reml), some, whole

    return quick_jit(everything)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_products_by_pattern_equal_explicit_matrices(name, x64):
    """Criterion and gradient; second derivatives by two ways, and what Kenward & Roger take of them."""
    # weights of rows leave no two columns of X alike
    weights = name.endswith("by")
    d, rng = trial(name, 400, weights=weights), np.random.default_rng(1)
    y, theta = rng.normal(size=d.n), explicit.random_theta(rng, d)
    problem = scheduled(d, y)
    assert weights or problem.shared.products.x.shape[1] < d.residual.n_groups
    k, p = len(theta), d.p
    phi, w = (a @ a.T for a in (rng.normal(size=(p, p)), rng.normal(size=(k, k))))
    inside = problem.structure.change_basis(theta, problem.basis.inward)
    gram, split, by_jet, some, whole = evaluated()(inside, problem, phi, w)
    values = np.asarray(explicit.decoder(d.structure)(theta)[0])
    logdet, s = explicit.gram(d, y, values)
    assert_allclose(gram.logdet, logdet, rtol=1e-10)
    r, scale = problem.basis.x_factor, problem.origin.scale
    assert_allclose(r.T @ gram.xx @ r, s[:-1, :-1], rtol=0, atol=1e-9 * np.abs(s).max())
    shift = r @ problem.origin.beta
    yy = shift @ gram.xx @ shift + 2 * scale * shift @ gram.xy + scale**2 * gram.yy
    assert_allclose(yy, s[-1, -1], rtol=1e-9)
    for mine, theirs in zip(jax.tree.leaves(split), jax.tree.leaves(by_jet), strict=True):
        assert_allclose(mine, theirs, rtol=0, atol=1e-9 * (1 + np.abs(theirs).max()))
    for mine, theirs in zip(some, whole, strict=True):
        assert_allclose(mine, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())


def test_traced_responses_and_rows_are_those_of_numpy(x64):
    d, rng = trial("Unstructured"), np.random.default_rng(2)
    y = rng.normal(size=d.n)
    maker = ProblemMaker(d)
    concrete, traced = maker(y), maker(jnp.asarray(y))
    for mine, theirs in zip(
        jax.tree.leaves(traced.response), jax.tree.leaves(concrete.response), strict=True
    ):
        assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    lanes = maker.lanes(np.stack([y, y**2], axis=1)).response
    for mine, theirs in zip(jax.tree.leaves(lanes), jax.tree.leaves(concrete.response), strict=True):
        assert_allclose(mine[..., 0], theirs, rtol=0, atol=1e-12)


def equations(jaxpr):
    inner = [v for e in jaxpr.eqns for p in e.params.values() for v in (p if isinstance(p, tuple) else (p,))]
    return len(jaxpr.eqns) + sum(equations(getattr(v, "jaxpr", v)) for v in inner if hasattr(v, "eqns"))


def test_the_program_sees_neither_subjects_nor_patterns(x64):
    """400 subjects with 31 patterns, as many equations as 12 with few; products as large as patterns say."""

    def size(subjects, visits):
        d = trial("Unstructured", subjects, weights=False, visits=visits)
        problem = scheduled(d, np.random.default_rng(3).normal(size=d.n))
        theta = np.asarray(problem.structure.encode(problem.structure.prior(float)))
        closed = jax.make_jaxpr(lambda t, q: objective(q, t, no_pivoting(q))[:3])(theta, problem)
        return equations(closed.jaxpr)

    assert size(12, 5) == size(400, 5)

    def shapes(subjects):
        d = trial("Unstructured", subjects, weights=False)
        return [a.shape for a in jax.tree.leaves(scheduled(d, d.x[:, -1] ** 2).shared.products)]

    assert shapes(1000) == shapes(3000)


def test_a_basis_has_as_many_columns_as_differ(x64):
    rng = np.random.default_rng(4)
    base, few = rng.normal(size=(50, 2)), rng.normal(size=(2, 12))
    q = orthonormal(base @ few)
    assert q.shape == (50, 2)
    assert_allclose(q.T @ q, np.eye(2), atol=1e-14)
    assert_allclose(q @ (q.T @ base), base, atol=1e-13)
    # more than are looked for one by one, and no fewer than groups
    many = rng.normal(size=(200, 40))
    q = orthonormal(many)
    assert_allclose(q @ (q.T @ many), many, atol=1e-12)
    assert orthonormal(rng.normal(size=(20, 40))) is None
