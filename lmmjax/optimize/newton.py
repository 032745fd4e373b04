"""Safeguarded Newton minimisation with exact Hessians: one flat loop of proposed, accepted or refused steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lmmjax._linalg import ldl
from lmmjax._types import Array, record
from lmmjax.optimize.status import Status

Objective = Callable[[Array, Any], tuple[Array, Array, Array, Any]]


@record
class NewtonState:
    """The accepted point, what is known there, and the next trial.

    Attributes
    ----------
    x : (m,) accepted point; f, gradient (m,), aux : what the objective returned there.
    context : pytree handed to the objective: the coordinates that x is expressed in.
    trial : (m,) the point to evaluate next; predicted : decrease expected of it.
    radius : of the trust region.
    decrement : ½ gᵀ|H|⁻¹g at x: the decrease that a full Newton step promises.
    projected : whether the projection has been tried.
    status : a `Status` code; n_iter : evaluations of the objective.
    """

    x: Array
    f: Array
    gradient: Array
    aux: Any
    context: Any
    trial: Array
    predicted: Array
    radius: Array
    decrement: Array
    projected: Array
    status: Array
    n_iter: Array


def newton(
    objective: Objective,
    x: Array,
    context: Any = None,
    *,
    max_iter: int = 100,
    tol: float | None = None,
    refine: Callable[[Any], tuple[Array, Any]] | None = None,
    project: Callable[[Array], Array] | None = None,
) -> NewtonState:
    """Minimise a smooth function of x (m,), m ≥ 1.

    The Hessian is factored as L diag(d) Lᵀ; the step uses |d|, limited by a trust radius. A stationary
    point with a negative pivot is left along that direction, so that saddles and maxima are not taken for
    minima. Converged means: at the reported point the decrement is below `tol` and no pivot is negative.

    Parameters
    ----------
    objective : (x, context) → (f, gradient (m,), Hessian (m, m), aux).
    tol : bound on the decrement; default eps^(7/8) of the dtype, 2e-14 in float64.
    refine : aux at x → a better starting point and its context, taken in place of the first Newton step.
    project : tried once at the optimum: a nearby point (exact zeros), preferred when f is not worse.

    Source: Nocedal & Wright (2006), chapters 3.4 and 4, doi:10.1007/978-0-387-40065-5.
    """
    eps = float(jnp.finfo(x.dtype).eps)
    bound = eps**0.875 if tol is None else tol
    zero, inf = jnp.zeros((), x.dtype), jnp.full((), jnp.inf, x.dtype)
    aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(objective, x, context)[3])
    start = NewtonState(
        x=x,
        f=inf,
        gradient=jnp.zeros_like(x),
        aux=aux,
        context=context,
        trial=x,
        predicted=zero,
        radius=zero + 1.0,
        decrement=inf,
        projected=jnp.asarray(project is None),
        status=jnp.asarray(int(Status.RUNNING), jnp.int32),
        n_iter=jnp.zeros((), jnp.int32),
    )

    def unfinished(state: NewtonState) -> Array:
        waiting = (state.status == Status.CONVERGED) & ~state.projected
        return ((state.status == Status.RUNNING) | waiting) & (state.n_iter < max_iter)

    def body(state: NewtonState) -> NewtonState:
        first = state.n_iter == 0
        restart = (state.n_iter == 1) if refine is not None else jnp.zeros((), bool)
        projecting = state.status == Status.CONVERGED
        f, gradient, hessian, aux = objective(state.trial, state.context)
        f, gradient, hessian = jax.lax.optimization_barrier((f, gradient, hessian))
        finite = jnp.isfinite(f) & jnp.all(jnp.isfinite(gradient))
        actual = jnp.where(restart | first, jnp.abs(state.predicted), state.f - f)
        noise = 32 * eps * (1.0 + jnp.abs(f))
        level = (jnp.abs(actual) <= noise) & (state.predicted <= 4 * noise)
        flatter = jnp.max(jnp.abs(gradient)) <= jnp.max(jnp.abs(state.gradient))
        descends = (actual > 1e-4 * state.predicted) & (actual > 0)
        take = finite & jnp.where(
            projecting, actual >= -noise, descends | (level & flatter) | first | restart
        )

        length = jnp.sqrt(jnp.sum((state.trial - state.x) ** 2))
        wider = jnp.where(actual > 0.75 * state.predicted, 2.0 * length, 0.0)
        radius = jnp.where(take, jnp.maximum(state.radius, wider), 0.25 * length)
        radius = jnp.where(projecting | first | restart, state.radius, radius)

        l_inv, pivots = ldl(hessian)
        radius = jax.lax.optimization_barrier(radius)
        new = _propose(state.trial, gradient, hessian, l_inv, pivots, radius)
        new_status = jnp.where(new.curved | (new.decrement > bound), Status.RUNNING, Status.CONVERGED)
        # refused: the same point, a shorter step in the same direction
        shorter = jnp.minimum(1.0, radius / jnp.where(length > 0, length, 1.0))
        smallest = 1e-3 * eps**0.5 * (1.0 + jnp.max(jnp.abs(state.x)))
        old_status = jnp.where(radius < smallest, Status.STALLED, Status.RUNNING)
        old_status = jnp.where(projecting, Status.CONVERGED, old_status)
        old_status = jnp.where(first, Status.NOT_FINITE, old_status)

        trial = jnp.where(take, new.trial, state.x + shorter * (state.trial - state.x))
        context = state.context
        if refine is not None:
            better, context = refine(aux)
            trial = jnp.where(first, better, trial)
            context = jax.tree.map(lambda a, b: jnp.where(first, a, b), context, state.context)
        converged = take & (new_status == Status.CONVERGED)
        if refine is not None:
            converged = converged & ~first
        status = jnp.where(take, jnp.where(converged, Status.CONVERGED, Status.RUNNING), old_status)
        projected = state.projected | projecting
        if project is not None:
            snapped = project(state.trial)
            trial = jnp.where(converged & ~projected, snapped, trial)
            projected = projected | (converged & jnp.all(snapped == state.trial))

        def pick(a, b):
            return jnp.where(take, a, b)

        return NewtonState(
            x=pick(state.trial, state.x),
            f=pick(f, state.f),
            gradient=pick(gradient, state.gradient),
            aux=jax.tree.map(pick, aux, state.aux),
            context=context,
            trial=trial,
            predicted=pick(new.predicted, state.predicted * shorter),
            radius=radius,
            decrement=pick(new.decrement, state.decrement),
            projected=projected,
            status=status.astype(jnp.int32),
            n_iter=state.n_iter + 1,
        )

    state = jax.lax.while_loop(unfinished, body, start)
    status = jnp.where(state.status == Status.RUNNING, Status.ITERATION_LIMIT, state.status)
    return dataclasses.replace(state, status=status.astype(jnp.int32))


@record
class Proposal:
    """A trial point (m,), the decrease predicted of it, the Newton decrement, whether a pivot is negative."""

    trial: Array
    predicted: Array
    decrement: Array
    curved: Array


def _propose(x, gradient, hessian, l_inv, pivots, radius) -> Proposal:
    reduced = l_inv @ gradient
    decrement = 0.5 * jnp.sum(reduced**2 / jnp.abs(pivots))
    curved = jnp.min(pivots) < -1e-7 * jnp.max(jnp.abs(pivots))
    newton_step = -l_inv.T @ (reduced / jnp.abs(pivots))
    length = jnp.sqrt(jnp.sum(newton_step**2))
    step = newton_step * jnp.minimum(1.0, radius / jnp.where(length > 0, length, 1.0))
    # at a stationary point with a negative pivot d_j, L⁻ᵀe_j descends either way
    lowest = (pivots == jnp.min(pivots)).astype(x.dtype)
    escape = lowest @ l_inv
    escape = escape * (0.5 * radius / jnp.sqrt(jnp.sum(escape**2)))
    escape = jnp.where(escape @ gradient > 0, -escape, escape)
    step = jnp.where(curved & (length < 1e-3 * radius), escape, step)
    predicted = -(gradient @ step + 0.5 * step @ hessian @ step)
    return Proposal(x + step, predicted, decrement, curved)
