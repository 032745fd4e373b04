"""Random designs of a few fixed shapes (tests share compiled programs), their algebra in plain NumPy."""

import functools

import jax
import numpy as np

from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker, estimate, response_axes
from lmmjax.covariance import FAMILIES, family
from lmmjax.design import Design, RandomTerm
from lmmjax.gram.base import Gram, GramJet, Projection

N, GROUPS, P = 36, 6, 2
TERMS = {
    **{f"{name}{q}": ((name, q),) for name in FAMILIES for q in (1, 2) if q == 2 or family(name).linear},
    "us3": (("us", 3),),
    "us1+us1": (("us", 1), ("us", 1)),
    "us2+diag1": (("us", 2), ("diag", 1)),
}
"""Random terms by family and number of columns: every registered family, and mixtures on one factor."""


def design(rng, terms="us2", *, weights=False, offset=False, patterns=False, codes=None, n=N, groups=GROUPS):
    """A random design; unless `codes` are given, groups of very different sizes, some smaller than q.

    With `patterns` the groups are of two kinds only, so that products compress.
    """
    if codes is None and patterns:
        codes = np.repeat(np.arange(groups), n // groups)
    elif codes is None:
        sizes = rng.multinomial(n - groups, rng.dirichlet(np.ones(groups))) + 1
        codes = rng.permutation(np.repeat(np.arange(groups), sizes))
    x = np.column_stack([np.ones(n), rng.normal(size=(n, P - 1))])
    made = []
    for name, q in TERMS[terms]:
        z = rng.normal(size=(n, q))
        if patterns:
            z = np.tile(z[: n // groups], (groups, 1))
            z[: n // 2] *= -2
        if not made:
            z[:, 0] = 1.0
        made.append(RandomTerm(z, codes, groups, family(name), "(term)"))
    w = rng.uniform(0.3, 3.0, n) if weights else None
    if w is not None and patterns:
        w = np.tile(w[: n // groups], groups)
    return Design(x, tuple(made), w, rng.normal(size=n) if offset else None)


def several(rng, kind, widths, *, weights=False, n=60):
    """A random unbalanced design with grouping factors "nested", "crossed", or some of both ("mixed").

    `widths` are the columns of the terms, from the coarsest factor to the finest. Who belongs to which group
    depends on `widths` alone, so that designs of one kind share programs.
    """
    draw = np.random.default_rng(widths).integers
    top = np.concatenate([np.arange(4), draw(0, 4, n - 4)])
    middle = top * 3 + draw(0, 3, n)
    low = middle * 3 + draw(0, 3, n)
    free = [draw(0, groups, n) for groups in (4, 5, 9)]
    codes = {"nested": (top, middle, low), "crossed": free, "mixed": (top, free[1], middle)}[kind]
    terms = []
    for q, factor in zip(widths, codes, strict=False):
        labels, own = np.unique(factor, return_inverse=True)
        z = np.column_stack([np.ones(n), rng.normal(size=(n, q - 1))])
        terms.append(RandomTerm(z, own, len(labels), family("us"), "(term)"))
    x = np.column_stack([np.ones(n), rng.normal(size=(n, P - 1))])
    return Design(x, tuple(terms), rng.uniform(0.5, 2.0, n) if weights else None)


def covariances(design, theta):
    """D of each term."""
    structure = design.structure
    return [np.asarray(matrix) for matrix in structure.matrices(structure.decode(jax.numpy.asarray(theta)))]


def relative_covariance(design, theta):
    """H (n, n) with V = σ²H, entry by entry from the definition."""
    h = np.diag(np.ones(design.n) if design.weights is None else 1.0 / design.weights)
    for term, matrix in zip(design.terms, covariances(design, theta), strict=True):
        same = term.codes[:, None] == term.codes[None, :]
        h += same * (term.z @ matrix @ term.z.T)
    return h


def dense_jet(problem, d):
    """The Gram at d (m,) with its derivatives, and what every term sees of the data, by n × n matrices.

    In internal coordinates, from the rows of a problem of the dense backend whose structure is linear.
    """
    shared, p = problem.shared, problem.shared.x.shape[0]
    w, d = np.column_stack([shared.x.T, problem.response.y]), np.asarray(d)
    terms = list(zip(shared.structure.terms, shared.z, shared.codes, strict=True))
    v = np.array(
        [(codes[:, None] == codes) * (z.T @ unit @ z) for term, z, codes in terms for unit in term.units]
    )
    inverse = np.linalg.inv(np.eye(len(w)) + np.tensordot(d, v, axes=1))
    a, solved = inverse @ v, inverse @ w
    half = np.einsum("asj,bjr->abrs", solved.T @ v, a @ solved)
    jet = GramJet(
        Gram.of(shared.logdet_r - np.linalg.slogdet(inverse)[1], w.T @ solved),
        Gram.of(np.trace(a, axis1=1, axis2=2), -solved.T @ v @ solved),
        Gram.of(-np.tensordot(a, a, axes=((1, 2), (2, 1))), half + half.swapaxes(-1, -2)),
    )
    found = []
    for (_, z, codes), groups in zip(terms, shared.n_groups, strict=True):
        own = [z * (codes == g) for g in range(groups)]
        t = np.stack([one @ solved for one in own], axis=-1)
        u = np.stack([one @ inverse @ one.T for one in own], axis=-1)
        found.append(Projection(u, t[:, :p], t[:, p]))
    return jet, tuple(found)


def response(rng, design, theta, sigma=1.0):
    """y drawn from the model with Xβ = 1 + 2x, and offset."""
    y = design.x @ np.arange(1.0, design.p + 1) + (0.0 if design.offset is None else design.offset)
    h = relative_covariance(design, theta)
    return y + sigma * np.linalg.cholesky(h) @ rng.normal(size=design.n)


def random_theta(rng, design, zeros=0.0):
    """θ (m,), standard normal, each entry zero with probability `zeros`."""
    m = design.structure.n_params
    return np.where(rng.random(m) < zeros, 0.0, rng.normal(size=m))


def problem(design, y, reml=True, backend="grouped", **options):
    return ProblemMaker(design, backend, **options)(y, reml)


def stack(problems):
    """One pytree with a leading axis from problems of one shape."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)


@functools.cache
def lanes(method="newton", start=False):
    """Compiled `estimate` over the leading axis of stacked problems, and of starting points."""
    if start:
        return quick_jit(jax.vmap(lambda p, s: estimate(p, s, method=method)))
    return quick_jit(jax.vmap(lambda p: estimate(p, method=method)))


@functools.cache
def responses():
    """Compiled `estimate` over the responses of one design."""
    return quick_jit(lambda p: jax.vmap(estimate, in_axes=(response_axes(p),))(p))


@quick_jit
def jet_and_projection(problem, d):
    """The Gram with its derivatives, and the projections, at natural parameters d."""
    return problem.shared.jet(d, problem.response), problem.shared.project(d, problem.response)


def arrays(tree):
    """The same pytree with NumPy leaves."""
    return jax.tree.map(np.asarray, tree)


def assert_near(actual, expected, tol):
    """Every leaf within tol of its counterpart, relative to the largest entry of the leaf or 1."""
    actual, expected = jax.tree.leaves(arrays(actual)), jax.tree.leaves(arrays(expected))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert np.all(np.isfinite(a))
        if a.size:
            np.testing.assert_allclose(a, b, rtol=0, atol=tol * max(1.0, float(np.abs(b).max())))


def equations(jaxpr):
    """How many a program has, with those of its loops and branches."""
    inner = [v for e in jaxpr.eqns for v in jax.tree.leaves(list(e.params.values()), is_leaf=_is_jaxpr)]
    return len(jaxpr.eqns) + sum(equations(getattr(v, "jaxpr", v)) for v in inner if _is_jaxpr(v))


def _is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def assert_dense(fit, v, x, y):
    """A fit by REML is generalised least squares with V (n, n); its criterion is the dense formula's."""
    half = np.linalg.solve(v, np.column_stack([x, y]))
    xx, xy = x.T @ half[:, :-1], x.T @ half[:, -1]
    beta = np.linalg.solve(xx, xy)
    right = np.linalg.slogdet(v)[1] + np.linalg.slogdet(xx)[1] + y @ half[:, -1] - xy @ beta
    right += (len(y) - x.shape[1]) * np.log(2 * np.pi)
    assert np.isclose(fit.deviance, right, rtol=1e-10)
    np.testing.assert_allclose(fit.params, beta, atol=1e-8)
    np.testing.assert_allclose(fit.bse, np.sqrt(np.diag(np.linalg.inv(xx))), rtol=1e-8)
