"""Newton's method on functions whose minima are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmmjax.arrays import quick_jit
from lmmjax.optimize import Status, at_rest, newton

pytestmark = pytest.mark.usefixtures("x64")


class Column(tuple):
    """The first coordinate, as `newton` has it; hashed by identity."""

    __hash__ = object.__hash__


COLUMN = Column(((np.array([0]),),))


@functools.cache
def minimiser(function, **options):
    """Played: the descent from x; of a function without derivatives."""

    def objective(x, _):
        return function(x), jax.grad(function)(x), jax.hessian(function)(x), ()

    return quick_jit(lambda x, **traced: newton(objective, x, **options, **traced))


@functools.cache
def quartic(a, b):
    return lambda x: a * x[0] ** 2 + b * x[0] ** 4 + (x[1] - 1.0) ** 2


def many_rows(x):
    """Even in x₀, steep near zero and flat far off, as with large groups: minimum at x₀² = (20 − 1)/500."""
    u = 1.0 + 500.0 * x[0] ** 2
    return jnp.log(u) + 20.0 / u + (x[1] - 1.0) ** 2


START = np.array([0.8, 0.0])


def test_a_column_goes_to_exactly_zero():
    by_thirds = minimiser(quartic(0.01, 1.0))(START)
    state = minimiser(quartic(0.01, 1.0), columns=COLUMN)(START)
    assert state.status == Status.CONVERGED
    assert state.x[0] == 0.0
    np.testing.assert_allclose(state.x[1], 1.0, rtol=1e-12)
    assert state.n_iter < by_thirds.n_iter


@pytest.mark.parametrize(
    ("function", "wanted"),
    [(quartic(-0.5, 1.0), 0.5), (many_rows, np.sqrt(19.0 / 500.0))],
    ids=["quartic", "many rows"],
)
@pytest.mark.parametrize("start", [0.05, 0.3, 0.8, 2.0])
def test_a_minimum_that_is_not_zero_is_found(function, wanted, start):
    state = minimiser(function, columns=COLUMN)(np.array([start, 0.0]))
    assert state.status == Status.CONVERGED
    np.testing.assert_allclose(abs(state.x[0]), wanted, rtol=1e-7)


def test_a_resumed_descent_is_the_same():
    descend = minimiser(many_rows, columns=COLUMN)
    whole = descend(START)
    part = minimiser(many_rows, columns=COLUMN, max_iter=2)(START)
    assert part.status == Status.ITERATION_LIMIT
    rest = descend(START, resume=part)
    np.testing.assert_array_equal(rest.x, whole.x)
    assert rest.n_iter == whole.n_iter


def test_an_early_end_is_a_step_beyond_the_last_look():
    whole = minimiser(many_rows)(START)
    early = minimiser(many_rows)(START, early=1e-8)
    assert early.status == Status.CONVERGED
    assert early.n_iter < whole.n_iter
    # the error after a step is of the order of the square of the decrement before it
    np.testing.assert_allclose(early.x, whole.x, rtol=1e-7)


def test_at_rest_nothing_is_known():
    state = at_rest(START, (), ())
    assert np.isinf(state.f)
    assert state.n_iter == 0


def bump(x):
    """A hole of width 1 in a plain."""
    return -jnp.exp(-jnp.sum((x - 50.0) ** 2))


@pytest.mark.parametrize("function", [bump, lambda x: x[0] ** 2, lambda x: jnp.sum(0.0 * x) + 3.0])
def test_a_plain_is_no_optimum(function):
    """No slope, and no curvature in x₁: whether it is an optimum nothing tells."""
    state = minimiser(function)(np.array([0.0, 0.0]))
    assert state.status == Status.FLAT


def test_next_to_the_hole_it_is_found():
    state = minimiser(bump)(np.array([49.8, 50.1]))
    assert state.status == Status.CONVERGED
    np.testing.assert_allclose(state.x, 50.0, rtol=1e-7)
