"""Derivatives of all that a fit gives, with respect to all that goes in, against differences of refits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_data import design, problem, response, several
from structure_data import design as structured

import lmmjax as lj
from lmmjax.arrays import quick_jit
from lmmjax.core import ProblemMaker
from lmmjax.covariance import family
from lmmjax.gram import BACKENDS

STEP = 2e-4
# differences of order four err by STEP⁴ times fifth derivatives, and by the refits' own 1e-12 over STEP
TOL = 1e-6
SETTLED = 1e-20
SEED = 7
"""Data whose refits end far below the optimiser's tolerance: the reference needs that, not the derivative."""

pytestmark = pytest.mark.usefixtures("x64")


def played(function, **options):
    """`quick_jit` of what is called a few dozen times: never worth a compiler."""
    return quick_jit(function, plays=function, **options)


CASES = {
    "grouped": lambda rng: design(rng, "us2", n=60, groups=10, weights=True),
    "dense": lambda rng: design(rng, "us1", weights=True),
    "nested": lambda rng: several(rng, "nested", (1, 1), weights=True),
    "crossed": lambda rng: several(rng, "crossed", (1, 1), weights=True),
    "layered": lambda rng: several(rng, "mixed", (1, 1, 1), weights=True, n=80),
    "whitened": lambda _: structured(
        # see SEED
        np.random.default_rng(3),
        lj.AR1(group="id"),
        (),
        ((family("us"), 1),),
        weights=True,
        sizes=(4,) * 16,
    ),
}
"""A design for every backend."""


def made(d, rng, backend):
    """The inputs by name as JAX arrays, and the function from them to all that a fit gives."""
    y = response(rng, d, np.full(d.structure.n_params, 0.8))
    at = {"y": y, "x": d.x, "z": tuple(t.z for t in d.terms), "weights": d.weights}
    codes = tuple(t.codes for t in d.terms)
    families = tuple(t.family.name for t in d.terms)

    def make(at):
        z, w = at["z"], at["weights"]
        if d.residual is not None:
            terms = tuple(dataclasses.replace(t, z=own) for t, own in zip(d.terms, z, strict=True))
            changed = dataclasses.replace(d, x=at["x"], terms=terms, weights=w)
            return ProblemMaker(changed, backend)(at["y"])
        return lj.problem_from_arrays(
            at["y"], at["x"], codes, z, weights=w, covariance=families, backend=backend
        )

    def fitted(at):
        p = make(at)
        fit = lj.estimate(p)
        x, z = at["x"][:3], tuple(z[:3] for z in at["z"])
        return {
            "decrement": fit.decrement,
            "theta": fit.theta,
            "psi": fit.psi,
            "beta": fit.beta,
            "cov_beta": fit.cov_beta,
            "cov_psi": fit.cov_psi,
            "deviance": fit.deviance,
            "predictions": lj.predict(p, fit, x, tuple(c[:3] for c in codes), z),
        }

    return jax.tree.map(jnp.asarray, at), fitted


def normal(rng, tree):
    """A pytree of normal numbers in the shapes of another."""
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


def difference(fitted, at, v):
    """The derivative along v from values at ±STEP and ±2 STEP."""

    def central(h):
        up, down = (
            fitted(jax.tree.map(lambda a, m, s=s: np.asarray(a) + s * h * np.asarray(m), at, v))
            for s in (1, -1)
        )
        return jax.tree.map(lambda a, b: (a - b) / (2 * h), up, down)

    return jax.tree.map(lambda a, b: np.asarray((4 * a - b) / 3), central(STEP), central(2 * STEP))


def assert_close(actual, expected, tol=TOL):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tol * np.abs(b).max())


def test_every_backend_has_a_case():
    # decompositions are made of concrete arrays: gradients in y are in tests of their own; least squares,
    # which has no parameters to differentiate, is in tests/batch/test_least_squares.py
    assert set(CASES) == set(BACKENDS) - {"spectral", "block", "rotated", "families", "fixed"}


@pytest.mark.parametrize("backend", CASES)
def test_forward_and_reverse(backend):
    """Along a direction in which all inputs move, and of a combination of all outputs; one program is fitted,

    differentiated and transposed.
    """
    rng = np.random.default_rng(SEED)
    at, fitted = made(CASES[backend](rng), rng, backend)

    @played
    def everything(at, v, w):
        values, push = jax.linearize(fitted, at)
        moved = push(v)
        return values, moved, jax.linear_transpose(push, at)(w)[0]

    v = normal(rng, at)
    w = normal(rng, jax.eval_shape(fitted, at))
    values, moved, gradient = everything(at, v, w)
    assert values["decrement"] < SETTLED
    expected = difference(lambda at: everything(at, v, w)[0], at, v)
    assert_close(moved, expected | {"decrement": np.zeros(())})
    # sums of a few hundred products
    parts = [np.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (w, moved)), strict=True)]
    other = [np.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, v)), strict=True)]
    np.testing.assert_allclose(sum(other), sum(parts), rtol=0, atol=1e-9 * np.abs([*parts, *other]).max())


@pytest.mark.parametrize("name", ["homcs", "rr"])
def test_families(name):
    rng = np.random.default_rng(SEED)
    at, everything = made(design(rng, f"{name}2", n=60, groups=10, weights=True), rng, "grouped")

    def fitted(at):
        return {key: everything(at)[key] for key in ("decrement", "theta", "psi", "beta", "deviance")}

    v = normal(rng, at)
    both = played(lambda at: jax.jvp(fitted, (at,), (v,)))
    values, moved = both(at)
    expected = difference(lambda at: both(at)[0], at, v) | {"decrement": np.zeros(())}
    if family(name).linear:
        assert values["decrement"] < SETTLED
        assert_close(moved, expected)
    else:
        # refits within 2e-14 of the minimum are √(4e-14) from it, over STEP
        assert values["decrement"] < 2e-14
        assert_close(moved, expected, 1e-3)


@functools.cache
def plain(backend):
    """The criterion's own inputs as they are: response and fit of a problem with a concrete design."""
    rng = np.random.default_rng(SEED)
    d = CASES[backend](rng)
    y = response(rng, d, np.full(d.structure.n_params, 0.8))
    return d, y, rng.normal(size=d.n)


def test_second_derivatives():
    d, y, v = plain("dense")

    def slope(y):
        return jax.jvp(lambda y: lj.estimate(problem(d, y, backend="dense")).psi, (y,), (v,))[1]

    both = played(lambda y: jax.jvp(slope, (y,), (v,)))
    expected = difference(lambda y: both(y)[0], jnp.asarray(y), jnp.asarray(v))
    assert_close(both(jnp.asarray(y))[1], expected)


def test_the_way_to_the_optimum_does_not_matter():
    d, y, _ = plain("dense")

    def gradient(y, start, method="newton"):
        return jax.grad(lambda y: lj.estimate(problem(d, y, backend="grouped"), start, method=method).psi[0])(
            y
        )

    compiled = played(gradient, static_argnames=("method",))
    expected = compiled(y, jnp.asarray([np.nan]))
    assert_close(compiled(y, jnp.asarray([3.0])), expected, 1e-8)
    # optax mixes dtypes
    with jax.numpy_dtype_promotion("standard"):
        assert_close(compiled(y, jnp.asarray([np.nan]), method="lbfgs"), expected, 1e-8)


def test_no_iteration_is_differentiated():
    """Memory does not grow with iterations: only the condition of a loop knows how many there may be."""
    d, y, _ = plain("dense")

    def gradient(y):
        return jax.grad(lambda y: lj.estimate(problem(d, y, backend="grouped"), max_iter=977).psi[0])(y)

    text = str(jax.make_jaxpr(gradient)(jnp.asarray(y)))
    assert text.count("977") == 1
    # the loop of the fit, and no second one that keeps its steps
    assert text.count("while[") == 1
    assert "scan[" not in text


def boundary(rank):
    """A design with intercepts and slopes, and a response whose D has the given rank."""
    rng = np.random.default_rng(2)
    d = design(rng, "us2", n=60, groups=10, weights=True)
    term = d.terms[0]
    b = np.zeros((10, 2)) if rank == 0 else rng.normal(size=(10, 1)) @ [[1.5, -0.8]]
    y = d.x @ [1.0, 2.0] + np.sum(term.z * b[term.codes], axis=1)
    noise = rng.normal(size=d.n) / np.sqrt(d.weights)
    root = np.sqrt(d.weights)[:, None]
    effects = np.hstack([term.z * (term.codes == g)[:, None] for g in range(10)])
    # noise without variation between groups
    noise -= effects @ np.linalg.lstsq(root * effects, root[:, 0] * noise, rcond=None)[0]
    return d, y + noise


@functools.cache
def beside_a_boundary():
    """Played: what a fit gives, and its derivative along v."""
    d, _ = boundary(0)

    def fitted(y):
        fit = lj.estimate(problem(d, y))
        return (fit.psi, fit.beta, fit.deviance), fit.singular

    return played(lambda y, v: jax.jvp(fitted, (y,), (v,), has_aux=True))


@pytest.mark.parametrize("rank", [0, 1])
def test_on_a_boundary_the_derivative_is_that_of_the_smaller_model(rank):
    d, y = boundary(rank)
    v, both = np.random.default_rng(3).normal(size=d.n), beside_a_boundary()
    _, moved, singular = both(y, v)
    assert singular
    # refits beside it are on the same boundary
    assert both(y + 2 * STEP * v, v)[-1]
    assert_close(moved, difference(lambda y: both(y, v)[0], y, v))
    if rank == 0:
        np.testing.assert_array_equal(moved[0][:-1], 0.0)
        root = np.sqrt(d.weights)
        least_squares = np.linalg.lstsq(root[:, None] * d.x, root * v, rcond=None)[0]
        np.testing.assert_allclose(moved[1], least_squares, rtol=1e-8)
