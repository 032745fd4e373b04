"""The criterion's parts for many responses equal those of one response after the other."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_data import several

from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker, response_axes
from lmmjax.core.criterion import evaluate, parts
from lmmjax.core.criterion_crossed import parts_of_crossed
from lmmjax.core.criterion_grouped import parts_of_groups
from lmmjax.covariance import FAMILIES, family
from lmmjax.design import Design, RandomTerm

LANES = 4

pytestmark = pytest.mark.usefixtures("x64")


def assert_same(got, want):
    # both sum the same terms, in different orders
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


def problem(q, family, reml, p=3):
    rng = np.random.default_rng(q)
    codes = np.repeat(np.arange(7), [1, 2, 3, 4, 6, 7, 9])
    z = np.column_stack([np.ones(len(codes)), rng.normal(size=(len(codes), q - 1))])
    x = np.column_stack([np.ones(len(codes)), rng.normal(size=(len(codes), p - 1))])
    y = rng.normal(size=(LANES, len(codes)))
    maker = ProblemMaker(Design(x, (RandomTerm(z, codes, 7, family),), weights=1 + codes % 2), compress=False)
    return maker(y, reml)


by_jet = quick_jit(lambda shared, d, response, kappa: parts(shared.jet(d, response), kappa))


@pytest.mark.parametrize(("q", "p"), [(1, 14), (5, 2)])
def test_many_columns(q, p):
    many = problem(q, family("us"), True, p)
    d = many.structure.prior(float)
    axes = response_axes(many).response

    def lanes(shared, response):
        return jax.vmap(lambda y: evaluate(shared, d, y, 1.0), in_axes=(axes,))(response)

    got = quick_jit(lanes)(many.shared, many.response)
    for k in range(LANES):
        own = jax.tree.map(lambda a, k=k: a[k], many.response)
        assert_same(jax.tree.map(lambda a, k=k: a[k], got), by_jet(many.shared, d, own, 1.0))


LINEAR = [name for name in FAMILIES if family(name).linear]
MAPPED = ("response", "response and d", "d")


# every two of columns, family and what is mapped
@pytest.mark.parametrize(
    ("q", "name", "mapped"),
    [(q, name, MAPPED[(q + k) % 3]) for q in (1, 2, 3) for k, name in enumerate(LINEAR)],
)
def test_equal_to_the_jet(q, name, mapped):
    many = problem(q, family(name), True)
    root = np.tril(np.random.default_rng(1).normal(size=(q, q))) + np.eye(q)
    d = many.structure.natural((jnp.asarray(root @ root.T),))
    scale = jnp.linspace(0.1, 2.0, LANES)[:, None]
    ds = d if mapped == "response" else d[None] * scale
    axis = None if mapped == "response" else 0
    one = jax.tree.map(lambda a: a[0], (many.response, many.origin))
    if mapped == "d":
        data, axes = one[0], None
    else:
        data, axes = many.response, response_axes(many).response
    lanes = quick_jit(jax.vmap(parts_of_groups, in_axes=(None, axis, axes, None)))
    for kappa in (1.0, 0.0):
        got = lanes(many.shared, ds, data, kappa)
        for k in range(LANES):
            own = data if mapped == "d" else jax.tree.map(lambda a, k=k: a[k], data)
            want = by_jet(many.shared, ds if axis is None else ds[k], own, kappa)
            assert_same(jax.tree.map(lambda a, k=k: a[k], got), want)


@pytest.mark.parametrize(("heavy", "width"), [(0.8, 1), (0.0, 2)])
def test_crossed_factors(heavy, width, monkeypatch):
    """Inverses by products, at variances from zero to large; some groups or all have dense rows."""
    monkeypatch.setattr(sys.modules["lmmjax.gram.crossed.prepare"], "HEAVY", heavy)
    monkeypatch.setattr(sys.modules["lmmjax.arrays.linalg"], "UNROLL", 3)
    rng = np.random.default_rng(4)
    many = several(rng, "crossed", (width, width), weights=True)
    lanes = ProblemMaker(many, "crossed")(rng.normal(size=(LANES, many.n)), True)
    d = lanes.structure.prior(np.float64)
    ds = d[None] * jnp.asarray([0.0, 1e-6, 1.0, 1e4])[:, None]
    kappa = jnp.asarray(lanes.reml)
    axes = (None, 0, response_axes(lanes).response, None)
    got = quick_jit(jax.vmap(parts_of_crossed, in_axes=axes))(lanes.shared, ds, lanes.response, kappa)
    for k in range(LANES):
        own = jax.tree.map(lambda a, k=k: a[k], lanes.response)
        assert_same(jax.tree.map(lambda a, k=k: a[k], got), by_jet(lanes.shared, ds[k], own, kappa))
