"""Derivatives of estimates with respect to the data, against differences of refits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_data import design, response, several

import lmmjax as lj
from lmmjax._compile import quick_jit
from lmmjax.gram import BACKENDS
from lmmjax.problem import ProblemMaker

STEP = 1e-5
# central differences of refits err by STEP² times third derivatives, and by the refits' own 1e-12 over STEP
TOL = 1e-6

pytestmark = pytest.mark.usefixtures("x64")

CASES = {
    "grouped": lambda rng: design(rng, "us2", n=60, groups=10, weights=True),
    "dense": lambda rng: design(rng, "us1"),
    "nested": lambda rng: several(rng, "nested", (1, 1)),
    "crossed": lambda rng: several(rng, "crossed", (1, 1)),
}


def numbers(fit):
    """What is differentiated: parameters on both scales, their covariance, the criterion."""
    return jnp.concatenate([fit.theta, fit.psi, fit.beta, fit.cov_beta.ravel(), fit.deviance[None]])


def made(backend):
    rng = np.random.default_rng(4)
    d = CASES[backend](rng)
    y = response(rng, d, np.full(d.structure.n_params, 0.8))
    return rng, d, y


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOL * np.abs(expected).max())


def along(function, at, direction):
    """The derivative of a compiled function along a direction, from values on either side."""
    up, down = (jax.tree.map(lambda a, v, s=s: a + s * STEP * v, at, direction) for s in (1, -1))
    return (function(*up) - function(*down)) / (2 * STEP)


def test_every_backend_has_a_case():
    assert set(CASES) == set(BACKENDS)


@pytest.mark.parametrize("backend", CASES)
def test_with_respect_to_the_response(backend):
    rng, d, y = made(backend)
    maker = ProblemMaker(d, backend)
    fitted = quick_jit(lambda y: numbers(lj.estimate(maker(y))))
    v = rng.normal(size=d.n)
    forward = quick_jit(lambda y: jax.jvp(lambda y: numbers(lj.estimate(maker(y))), (y,), (v,))[1])(y)
    assert_close(forward, along(fitted, (y,), (v,)))
    # one weight a number: the transpose of the same derivative
    w = rng.normal(size=len(forward))
    backward = quick_jit(jax.grad(lambda y: w @ numbers(lj.estimate(maker(y)))))(y)
    np.testing.assert_allclose(backward @ v, w @ forward, rtol=1e-8)


def test_with_respect_to_designs_and_weights():
    rng, d, y = made("grouped")

    def fitted(x, z, w):
        term = dataclasses.replace(d.terms[0], z=z)
        return numbers(lj.estimate(ProblemMaker(dataclasses.replace(d, x=x, weights=w, terms=(term,)))(y)))

    at = tuple(jnp.asarray(a) for a in (d.x, d.terms[0].z, d.weights))
    moves = tuple(jnp.asarray(rng.normal(size=a.shape)) for a in at)
    forward = quick_jit(lambda at: jax.jvp(fitted, at, moves)[1])(at)
    assert_close(forward, along(quick_jit(fitted), at, moves))


def test_second_derivatives():
    rng, d, y = made("dense")
    maker = ProblemMaker(d, "dense")
    v = rng.normal(size=d.n)

    def slope(y):
        return jax.jvp(lambda y: lj.estimate(maker(y)).psi, (y,), (v,))[1]

    second = quick_jit(lambda y: jax.jvp(slope, (y,), (v,))[1])(y)
    assert_close(second, along(quick_jit(slope), (y,), (v,)))


def test_gradients_of_many_responses():
    rng, d, y = made("grouped")
    maker = ProblemMaker(d)
    many = np.stack([y, y + rng.normal(size=d.n)])
    gradient = jax.grad(lambda y: lj.estimate(maker(y)).psi[0])
    mapped = quick_jit(jax.vmap(gradient))(many)
    single = quick_jit(gradient)
    np.testing.assert_allclose(mapped, [single(one) for one in many], rtol=1e-7, atol=1e-12)


def test_on_a_boundary_the_derivative_is_that_of_the_smaller_model():
    rng = np.random.default_rng(1)
    d = design(rng, "us1", n=60, groups=10)
    codes = d.terms[0].codes
    y = rng.normal(size=60)
    # no variance between groups is left
    y = y - (np.bincount(codes, y) / np.bincount(codes))[codes]
    maker, v = ProblemMaker(d), rng.normal(size=60)
    fit, moved = quick_jit(lambda y: jax.jvp(lambda y: lj.estimate(maker(y)), (y,), (v,)))(y)
    assert fit.singular
    np.testing.assert_array_equal(moved.theta, 0.0)
    least_squares = np.linalg.lstsq(d.x, v, rcond=None)[0]
    np.testing.assert_allclose(moved.beta, least_squares, rtol=1e-8)
