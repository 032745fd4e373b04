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
from lmmjax.core.estimate import optimum
from lmmjax.covariance import family
from lmmjax.gram import BACKENDS

STEP = 2e-4
# differences of order four err by STEP⁴ times fifth derivatives, and by the refits' own 1e-12 over STEP
TOL = 1e-6
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

INPUTS = ("y", "x", "z", "weights")


def made(d, rng, backend):
    """The inputs by name as JAX arrays, and the function from them to a problem."""
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


@functools.cache
def case(backend):
    rng = np.random.default_rng(SEED)
    at, fitted = made(CASES[backend](rng), rng, backend)
    return at, fitted, directions(rng, at)


def reference(fitted, at, v, settled=1e-20):
    """The derivative along v from differences of compiled refits, all of them at their optimum."""
    assert fitted(at)["decrement"] < settled
    return difference(fitted, at, v) | {"decrement": np.zeros(())}


def directions(rng, at):
    """A direction a kind of input, along which nothing else moves: leading axes of 4."""
    moves = jax.tree.map(lambda a: rng.normal(size=a.shape), at)
    eye = np.eye(len(INPUTS))
    return {
        name: jax.tree.map(lambda v, k=k: jnp.asarray(eye[k][(..., *(None,) * v.ndim)] * v), moves[name])
        for k, name in enumerate(INPUTS)
    }


@functools.cache
def forward(backend):
    """The derivatives along every direction, mapped and compiled."""
    at, fitted, moves = case(backend)
    return played(jax.vmap(lambda at, v: jax.jvp(fitted, (at,), (v,))[1], in_axes=(None, 0)))(at, moves)


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
    assert set(CASES) == set(BACKENDS)


@pytest.mark.parametrize("backend", CASES)
def test_forward(backend):
    at, fitted, moves = case(backend)
    compiled, derivatives = played(fitted), forward(backend)
    for k in range(len(INPUTS)):
        own, v = jax.tree.map(lambda a, k=k: a[k], (derivatives, moves))
        assert_close(own, reference(compiled, at, v))


@pytest.mark.parametrize("backend", ["grouped", "dense", "nested", "whitened"])
def test_reverse_is_the_transpose(backend):
    """Layered and crossed factors are eliminated by the functions that nested ones are."""
    at, fitted, moves = case(backend)
    derivatives = forward(backend)
    rng = np.random.default_rng(8)
    w = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=(2, *a.shape[1:]))), derivatives)
    gradients = played(jax.vmap(lambda at, w: jax.vjp(fitted, at)[1](w)[0], in_axes=(None, 0)))(at, w)

    def inner(a, b):
        """Products (2, 4) of rows of two pytrees."""
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return sum(u.reshape(len(u), -1) @ v.reshape(len(v), -1).T for u, v in pairs)

    expected = inner(w, derivatives)
    # sums of a few hundred products
    np.testing.assert_allclose(inner(gradients, moves), expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["homcs", "rr"])
def test_families(name):
    rng = np.random.default_rng(SEED)
    at, everything = made(design(rng, f"{name}2", n=60, groups=10, weights=True), rng, "grouped")

    def fitted(at):
        return {key: everything(at)[key] for key in ("decrement", "theta", "psi", "beta", "deviance")}

    v = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), at)
    derivative = played(lambda at: jax.jvp(fitted, (at,), (v,))[1])(at)
    if family(name).linear:
        assert_close(derivative, reference(played(fitted), at, v))
    else:
        # refits within 2e-14 of the minimum are √(4e-14) from it, over STEP
        assert_close(derivative, reference(played(fitted), at, v, 2e-14), 1e-3)


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

    second = played(lambda y: jax.jvp(slope, (y,), (v,))[1])(y)
    assert_close(second, difference(played(slope), jnp.asarray(y), jnp.asarray(v)))


def test_the_way_to_the_optimum_does_not_matter():
    d, y, _ = plain("grouped")
    at = jnp.asarray([1.3, -0.1, 0.4])

    def gradient(y, start, **options):
        return jax.grad(lambda y: lj.estimate(problem(d, y), start, **options).psi[0])(y)

    compiled = played(gradient, static_argnames=("method",))
    expected = compiled(y, None)
    assert_close(compiled(y, at), expected, 1e-8)
    # optax mixes dtypes
    with jax.numpy_dtype_promotion("standard"):
        assert_close(compiled(y, None, method="lbfgs"), expected, 1e-8)


def test_memory_does_not_grow_with_iterations():
    d, y, _ = plain("dense")

    def memory(max_iter):
        gradient = jax.grad(lambda y: lj.estimate(problem(d, y, backend="grouped"), max_iter=max_iter).psi[0])
        options = {"xla_backend_optimization_level": 1}
        lowered = jax.jit(gradient, compiler_options=options).lower(jnp.asarray(y))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert memory(4) == memory(1000)


def test_no_iteration_is_differentiated():
    d, y, _ = plain("grouped")
    p = problem(d, jnp.asarray(y))
    text = str(jax.make_jaxpr(lambda p: jax.vjp(lambda p: optimum(p, None, "newton", 100)[0], p)[0])(p))
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


@pytest.mark.parametrize("rank", [0, 1])
def test_on_a_boundary_the_derivative_is_that_of_the_smaller_model(rank):
    d, y = boundary(rank)
    rng = np.random.default_rng(3)

    def fitted(y):
        fit = lj.estimate(problem(d, y))
        return fit.psi, fit.beta, fit.deviance, fit.singular

    compiled = played(fitted)
    assert compiled(y)[-1]
    v = jnp.asarray(rng.normal(size=d.n))
    moved = played(lambda y: jax.jvp(lambda y: fitted(y)[:3], (y,), (v,))[1])(jnp.asarray(y))
    # refits beside it are on the same boundary
    assert compiled(y + 2 * STEP * v)[-1]
    assert_close(moved, difference(lambda y: compiled(y)[:3], jnp.asarray(y), v))
    if rank == 0:
        np.testing.assert_array_equal(moved[0][:-1], 0.0)
        root = np.sqrt(d.weights)
        least_squares = np.linalg.lstsq(root[:, None] * d.x, root * v, rcond=None)[0]
        np.testing.assert_allclose(moved[1], least_squares, rtol=1e-8)
