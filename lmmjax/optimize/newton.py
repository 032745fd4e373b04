"""Safeguarded Newton minimisation with exact Hessians: one flat loop of steps, accepted or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace, record
from lmmjax.optimize.proposal import propose
from lmmjax.optimize.status import Status

Objective = Callable[[Array, Any], tuple[Array, Array, Array, Any]]


NEAR = 1e-4
"""Newton decrement, in units of the objective, from which a projection is worth a try."""

HOPELESS = 0.1
"""Rise of the objective, predicted of a projection, from which it is not."""


@record
class NewtonState:
    """The accepted point, what is known there, and the next trial.

    Attributes
    ----------
    x : (m,) accepted point; f, gradient (m,), aux : what the objective returned there.
    context : pytree handed to the objective: the coordinates that x is expressed in.
    planned : (m,) the Newton proposal from x; predicted : the decrease expected of it.
    trial : (m,) the point to evaluate next: `planned`, or a projection of x.
    projecting : whether it is a projection; projections : how many have been dealt with.
    renewed : whether the trial is x in new coordinates.
    radius : of the trust region.
    decrement : ½ gᵀ|H|⁻¹g at x: the decrease that a full Newton step promises.
    flat : whether a pivot of H vanishes at x.
    status : a `Status` code; n_iter : evaluations of the objective.
    """

    x: Array
    f: Array
    gradient: Array
    aux: Any
    context: Any
    planned: Array
    predicted: Array
    trial: Array
    projecting: Array
    projections: Array
    renewed: Array
    radius: Array
    decrement: Array
    flat: Array
    status: Array
    n_iter: Array


def newton(
    objective: Objective,
    x: Array,
    context: Any = None,
    *,
    max_iter: int = 100,
    tol: float | None = None,
    refine: Callable[[Array, Any, Any, Array], tuple[Array, Any]] | None = None,
    every: int = 12,
    projections: tuple[Callable[[Array], Array], ...] = (),
    columns: tuple[tuple[np.ndarray, ...], ...] = (),
    early: Array | None = None,
    aux: Any = (),
    resume: NewtonState | None = None,
) -> NewtonState:
    """Minimise a smooth function of x (m,), m ≥ 1.

    The Hessian is factored as L diag(d) Lᵀ; the step uses |d|, limited by a trust radius. A stationary
    point with a negative pivot is left along that direction, so that saddles and maxima are not taken for
    minima. Converged means: at the reported point the decrement is below `tol` and all pivots are positive;
    `Status.FLAT` that one vanishes, so that nothing tells an optimum from a plain.

    Parameters
    ----------
    objective : (x, context) → (f, gradient (m,), Hessian (m, m), aux).
    tol : bound on the decrement; default eps^(7/8) of the dtype, 2e-14 in float64.
    refine : (x, context, aux, n_iter) → a point and its context, which take the place of the first Newton
        step (a better start) and of every `every`-th (the same point in better coordinates).
    projections : maps to nearby points (exact zeros), preferred when f is not worse there. The first is
        tried near the optimum, the others at it; one that leaves x alone, or of which a rise by `HOPELESS`
        is predicted, costs nothing.
    columns : groups of sets of positions of coordinates in whose common sign f is even, of which the last
        of a group may go to zero, then the one before it: see `vanishing`.
    early : a decrement from which the next Newton step is taken and not looked at: converged then means
        that it promises to be a minimum, and x is where it leads. The other fields belong to the last point.
    aux : arrays like those that `objective` returns last, of any value.
    resume : the state of a minimisation that reached its limit; it goes on to a higher `max_iter`.

    Source: Nocedal & Wright (2006), chapters 3.4 and 4, doi:10.1007/978-0-387-40065-5.
    """
    eps = float(jnp.finfo(x.dtype).eps)
    bound = eps**0.875 if tol is None else tol
    no = jnp.zeros((), bool)
    if resume is None:
        start = at_rest(x, context, aux)
    else:
        start = dataclasses.replace(resume, status=jnp.full((), Status.RUNNING, jnp.int32))

    def unfinished(state: NewtonState) -> Array:
        return (state.status == Status.RUNNING) & (state.n_iter < max_iter)

    def body(state: NewtonState) -> NewtonState:
        first = state.n_iter == 0
        renew = (state.n_iter % every == 0) if refine is not None else no
        f, gradient, hessian, aux = objective(state.trial, state.context)
        f, gradient, hessian = jax.lax.optimization_barrier((f, gradient, hessian))
        finite = jnp.isfinite(f) & jnp.all(jnp.isfinite(gradient))
        actual = jnp.where(state.renewed | first, state.predicted, state.f - f)
        noise = 32 * eps * (1.0 + jnp.abs(f))
        level = (jnp.abs(actual) <= noise) & (state.predicted <= 4 * noise)
        flatter = jnp.max(jnp.abs(gradient)) <= jnp.max(jnp.abs(state.gradient))
        descends = (actual > 1e-4 * state.predicted) & (actual > 0)
        better = jnp.where(
            state.projecting, actual >= -noise, descends | (level & flatter) | first | state.renewed
        )
        take = finite & better

        length = jnp.sqrt(jnp.sum((state.trial - state.x) ** 2))
        wider = jnp.where(actual > 0.75 * state.predicted, 2.0 * length, 0.0)
        radius = jnp.where(take, jnp.maximum(state.radius, wider), 0.25 * length)
        radius = jnp.where(state.projecting | first | state.renewed, state.radius, radius)
        radius = jax.lax.optimization_barrier(radius)
        # a refused step is tried again, shorter; a refused projection gives way to the planned step
        shorter = jnp.minimum(1.0, radius / jnp.where(length > 0, length, 1.0))
        shorter = jnp.where(state.projecting, 1.0, shorter)

        back = recalled(state, f, hessian, jnp.logical_or(first, state.projecting)) if columns else None
        new = propose(state.trial, gradient, hessian, radius, columns, back)

        def pick(a, b):
            return jnp.where(take, a, b)

        x = pick(state.trial, state.x)
        planned = pick(new.trial, state.x + shorter * (state.planned - state.x))
        decrement = pick(new.decrement, state.decrement)
        settled = jnp.where(take, ~new.curved, state.projecting) & (decrement <= bound)
        smallest = 1e-3 * eps**0.5 * (1.0 + jnp.max(jnp.abs(state.x)))
        stuck = ~take & ~state.projecting & (radius < smallest)
        context, trial = state.context, planned
        if refine is not None:
            refined, moved = refine(x, context, aux, state.n_iter)
            renew = renew & ~settled | first
            planned = trial = jnp.where(renew, refined, planned)
            context = jax.tree.map(partial(jnp.where, renew), moved, context)
            settled = settled & ~first
        tried, projecting = state.projections + state.projecting.astype(jnp.int32), no
        for k, projection in enumerate(projections):
            close = (decrement <= NEAR) & take & ~new.curved & ~renew
            image = projection(x)
            step = image - x
            rise = gradient @ step + 0.5 * step @ hessian @ step
            moves = jnp.any(image != x) & ~(take & (rise > HOPELESS))
            due = (tried == k) & moves & (settled if k else close | settled)
            trial = jnp.where(due, image, trial)
            projecting = projecting | due
            tried = jnp.where((tried == k) & settled & ~moves, k + 1, tried)
        done = settled & ~projecting
        if early is not None:
            still = [jnp.all(p(planned) == planned) for p in projections[-1:]]
            jump = take & ~new.curved & ~done & (decrement <= early) & jnp.all(jnp.stack([~no, *still]))
            x, done = jnp.where(jump, planned, x), done | jump
        flat = pick(new.flat, state.flat)
        status = jnp.where(done, jnp.where(flat, Status.FLAT, Status.CONVERGED), Status.RUNNING)
        status = jnp.where(stuck, Status.STALLED, status)
        status = jnp.where(first & ~take, Status.NOT_FINITE, status)
        return NewtonState(
            x=x,
            f=pick(f, state.f),
            gradient=pick(gradient, state.gradient),
            aux=jax.tree.map(pick, aux, state.aux),
            context=context,
            planned=planned,
            predicted=pick(new.predicted, state.predicted * shorter),
            trial=trial,
            projecting=projecting,
            projections=tried.astype(jnp.int32),
            renewed=renew,
            radius=radius,
            decrement=decrement,
            flat=flat,
            status=status.astype(jnp.int32),
            n_iter=state.n_iter + 1,
        )

    state = jax.lax.while_loop(unfinished, body, start)
    status = jnp.where(state.status == Status.RUNNING, Status.ITERATION_LIMIT, state.status)
    return dataclasses.replace(state, status=status.astype(jnp.int32))


def at_rest(x: Array, context: Any, aux: Any) -> NewtonState:
    """The state at x (m, ...) before anything is known of it."""
    xp = namespace(x)
    zero, no, none = (xp.zeros(x.shape[1:], kind) for kind in (x.dtype, bool, np.int32))
    return NewtonState(
        x=x,
        f=zero + xp.inf,
        gradient=xp.zeros_like(x),
        aux=aux,
        context=context,
        planned=x,
        predicted=zero,
        trial=x,
        projecting=no,
        projections=none,
        renewed=no,
        radius=xp.ones_like(zero),
        decrement=zero + xp.inf,
        flat=no,
        status=xp.full(x.shape[1:], Status.RUNNING, np.int32),
        n_iter=none,
    )


def recalled(state: NewtonState, f: Array, hessian: Array, not_now: Array) -> Array:
    """What to add (m,) to a trial in which columns v went to zero that should have stopped on the way.

    Along tv, with u = t², ∂f/∂u was b = ½gᵀv at u = 1, and is a = ½vᵀHv at u = 0. Where b > 0 > a the minimum
    lies between: that of the cubic with these values and slopes (Nocedal & Wright, equation 3.59).
    """
    v = jnp.where((state.x != 0) & (state.trial == 0), state.x, 0.0).astype(state.x.dtype)
    a, b = 0.5 * (v @ hessian @ v), 0.5 * (state.gradient @ v)
    between = (a < 0) & (b > 0) & ~not_now
    one = a + b - 3.0 * (state.f - f)
    two = jnp.sqrt(jnp.where(between, one * one - a * b, 1.0))
    u = 1.0 - (b + two - one) / jnp.where(between, b - a + 2.0 * two, 1.0)
    return jnp.sqrt(jnp.where(between, jnp.clip(u, 0.01, 1.0), 0.0)) * v
