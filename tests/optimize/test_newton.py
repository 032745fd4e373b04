"""Newton's method on functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmmjax.optimize import Status, at_rest, newton

pytestmark = pytest.mark.usefixtures("x64")

COLUMN = ((np.array([0]),),)


def with_derivatives(function):
    return lambda x, _: (function(x), jax.grad(function)(x), jax.hessian(function)(x), ())


def quartic(a, b):
    return with_derivatives(lambda x: a * x[0] ** 2 + b * x[0] ** 4 + (x[1] - 1.0) ** 2)


def many_rows(x):
    """Even in x₀, steep near zero and flat far off, as with large groups: minimum at x₀² = (20 − 1)/500."""
    u = 1.0 + 500.0 * x[0] ** 2
    return jnp.log(u) + 20.0 / u + (x[1] - 1.0) ** 2


START = np.array([0.8, 0.0])


def test_a_column_goes_to_exactly_zero():
    by_thirds = newton(quartic(0.01, 1.0), jnp.asarray(START))
    state = newton(quartic(0.01, 1.0), jnp.asarray(START), columns=COLUMN)
    assert state.status == Status.CONVERGED
    assert state.x[0] == 0.0
    np.testing.assert_allclose(state.x[1], 1.0, rtol=1e-12)
    assert state.n_iter < by_thirds.n_iter


@pytest.mark.parametrize(
    ("function", "wanted"),
    [(quartic(-0.5, 1.0), 0.5), (with_derivatives(many_rows), np.sqrt(19.0 / 500.0))],
    ids=["quartic", "many rows"],
)
@pytest.mark.parametrize("start", [0.05, 0.3, 0.8, 2.0])
def test_a_minimum_that_is_not_zero_is_found(function, wanted, start):
    state = newton(function, jnp.asarray([start, 0.0]), columns=COLUMN)
    assert state.status == Status.CONVERGED
    np.testing.assert_allclose(abs(state.x[0]), wanted, rtol=1e-7)


def test_a_resumed_descent_is_the_same():
    objective, x = with_derivatives(many_rows), jnp.asarray(START)
    whole = newton(objective, x, columns=COLUMN)
    part = newton(objective, x, columns=COLUMN, max_iter=2)
    assert part.status == Status.ITERATION_LIMIT
    rest = newton(objective, x, columns=COLUMN, resume=part)
    np.testing.assert_array_equal(rest.x, whole.x)
    assert rest.n_iter == whole.n_iter


def test_an_early_end_is_a_step_beyond_the_last_look():
    objective, x = with_derivatives(many_rows), jnp.asarray(START)
    whole = newton(objective, x)
    early = newton(objective, x, early=jnp.asarray(1e-8))
    assert early.status == Status.CONVERGED
    assert early.n_iter < whole.n_iter
    # the error after a step is of the order of the square of the decrement before it
    np.testing.assert_allclose(early.x, whole.x, rtol=1e-7)


def test_at_rest_nothing_is_known():
    state = at_rest(START, (), ())
    assert np.isinf(state.f)
    assert state.n_iter == 0
