"""Safeguarded Newton minimisation with exact Hessians: one flat loop of proposed, accepted or refused steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmmjax._linalg import ldl
from lmmjax._types import Array, record
from lmmjax.optimize.status import Status

Objective = Callable[[Array], tuple[Array, Array, Array, object]]


@record
class NewtonState:
    """A point with its derivatives, the trust radius and the state of the loop.

    Attributes
    ----------
    x : (m,) accepted point, with f, gradient and Hessian and whatever `aux` the objective returned.
    decrement : ½ gᵀ|H|⁻¹g at x: the decrease in f that a Newton step promises.
    status : a `Status` code.
    n_iter : evaluations of the objective.
    """

    x: Array
    f: Array
    gradient: Array
    hessian: Array
    aux: object
    radius: Array
    decrement: Array
    curved: Array
    projected: Array
    status: Array
    n_iter: Array


def newton(
    objective: Objective,
    x: Array,
    *,
    max_iter: int = 100,
    tol: float | None = None,
    project: Callable[[Array], Array] | None = None,
) -> NewtonState:
    """Minimise a smooth function of x (m,), m ≥ 1.

    The Hessian is factored as L diag(d) Lᵀ; the step uses |d|, limited by a trust radius. A stationary
    point with a negative pivot is left along that direction, so saddles and maxima (a variance of zero that
    ought to be positive) are not taken for minima. Converged means: the decrement at the
    reported point is below `tol` and no pivot is negative.

    Parameters
    ----------
    objective : x → (f, gradient (m,), Hessian (m, m), auxiliary pytree).
    tol : bound on the decrement; default eps^(7/8) of the dtype, 2e-14 in float64.
    project : tried once at the optimum: a nearby point (exact zeros) that is preferred when f is not worse.

    Source: Nocedal & Wright (2006), chapters 3.4 and 4, doi:10.1007/978-0-387-40065-5.
    """
    eps = float(jnp.finfo(x.dtype).eps)
    bound = eps**0.875 if tol is None else tol
    f, gradient, hessian, aux = objective(x)
    state = _accepted(x, f, gradient, hessian, aux, jnp.ones_like(f), bound)
    status = jnp.where(jnp.isfinite(f), state.status, Status.NOT_FINITE)
    if project is None:
        state = _replace(state, projected=jnp.ones((), bool))
    state = _replace(state, status=status, n_iter=jnp.ones((), jnp.int32))

    def unfinished(state: NewtonState) -> Array:
        waiting = (state.status == Status.CONVERGED) & ~state.projected
        return ((state.status == Status.RUNNING) | waiting) & (state.n_iter < max_iter)

    def body(state: NewtonState) -> NewtonState:
        projecting = state.status == Status.CONVERGED
        step = _step(state)
        trial = state.x + step
        if project is not None:
            trial = jnp.where(projecting, project(state.x), trial)
        move = trial - state.x
        f, gradient, hessian, aux = objective(trial)
        predicted = -(state.gradient @ move + 0.5 * move @ state.hessian @ move)
        actual = state.f - f
        noise = 32 * eps * (1.0 + jnp.abs(state.f))
        descends = (actual > 1e-4 * predicted) & (actual > 0)
        level = (jnp.abs(actual) <= noise) & (jnp.abs(predicted) <= 4 * noise)
        flatter = jnp.max(jnp.abs(gradient)) <= jnp.max(jnp.abs(state.gradient))
        take = jnp.where(projecting, actual >= -noise, descends | (level & flatter))
        take = take & jnp.isfinite(f) & jnp.all(jnp.isfinite(gradient))
        length = jnp.sqrt(jnp.sum(move * move))
        good = actual > 0.75 * predicted
        radius = jnp.where(
            take, jnp.where(good, jnp.maximum(state.radius, 2.0 * length), state.radius), 0.25 * length
        )
        radius = jnp.where(projecting, state.radius, radius)
        new = _accepted(trial, f, gradient, hessian, aux, radius, bound)
        out = jax.tree.map(lambda a, b: jnp.where(take, a, b), new, _replace(state, radius=radius))
        stalled = ~take & ~projecting & (radius < 1e-3 * eps**0.5 * (1.0 + jnp.max(jnp.abs(state.x))))
        status = jnp.where(stalled, Status.STALLED, out.status)
        status = jnp.where(projecting & ~take, Status.CONVERGED, status)
        return _replace(out, status=status, n_iter=state.n_iter + 1, projected=state.projected | projecting)

    state = jax.lax.while_loop(unfinished, body, state)
    status = jnp.where(state.status == Status.RUNNING, Status.ITERATION_LIMIT, state.status)
    return _replace(state, status=status)


def _accepted(x, f, gradient, hessian, aux, radius, bound) -> NewtonState:
    l_inv, pivots = ldl(hessian)
    reduced = l_inv @ gradient
    decrement = 0.5 * jnp.sum(reduced**2 / jnp.abs(pivots))
    curved = jnp.min(pivots) < -1e-7 * jnp.max(jnp.abs(pivots))
    status = jnp.where((decrement <= bound) & ~curved, Status.CONVERGED, Status.RUNNING)
    no = jnp.zeros((), bool)
    return NewtonState(
        x, f, gradient, hessian, aux, radius, decrement, curved, no, status, jnp.zeros((), jnp.int32)
    )


def _step(state: NewtonState) -> Array:
    l_inv, pivots = ldl(state.hessian)
    step = -l_inv.T @ ((l_inv @ state.gradient) / jnp.abs(pivots))
    length = jnp.sqrt(jnp.sum(step * step))
    limited = step * jnp.minimum(1.0, state.radius / jnp.where(length > 0, length, 1.0))
    # at a stationary point with a negative pivot d_j, L⁻ᵀe_j descends either way
    escape = l_inv[jnp.argmin(pivots)]
    escape = escape * (0.5 * state.radius / jnp.sqrt(jnp.sum(escape * escape)))
    escape = jnp.where(escape @ state.gradient > 0, -escape, escape)
    return jnp.where(state.curved & (length < 1e-3 * state.radius), escape, limited)


def _replace(state: NewtonState, **changes) -> NewtonState:
    import dataclasses

    return dataclasses.replace(state, **changes)
