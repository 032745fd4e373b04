"""What a criterion with Hessian H says of its parameters: curvature, flat directions, covariance.

Everything is decided in θ in internal coordinates, where a column of Z has unit mean square and a variance is
relative to σ², with θ_j in units of at least max(1, |θ_j|): numbers that no unit of the data enters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, derivatives, diagonal, eliminate, hold, record, traced_once
from lmmjax.core.criterion import CUBE, CriterionParts, Jet, weighted_bend
from lmmjax.core.problem import Problem


@record
class Curvature:
    """H (m, m) at a stationary point, eliminated column by column.

    Attributes
    ----------
    inverse : (m, m) H⁻¹; a generalised inverse where some pivots vanish, with zeros in their rows.
    flat : (m,) whether a pivot vanishes.
    null : (m, m) in the column of a flat pivot a direction in which H vanishes, elsewhere zeros.
    curved : whether a pivot is negative.
    """

    inverse: Array
    flat: Array
    null: Array
    curved: Array


@traced_once()
def curvature(unit: Array, hessian: Array) -> Curvature:
    """The curvature of a criterion in units of a log-likelihood, with θ (m,) in these units.

    A pivot vanishes where the standard error would exceed the parameter thousands of times, or where it is
    rounding beside what it was before the elimination.
    """
    eps = float(jnp.finfo(unit.dtype).eps)
    scaled = hessian * unit[:, None] * unit[None, :]
    own = jnp.abs(diagonal(scaled))
    least = eps**0.575 * jnp.maximum(jnp.maximum(own, 1.0), 1e-4 * jnp.max(own))
    table, pivots = eliminate(hold(scaled), hold(least))
    table, pivots = hold(table), hold(pivots)
    flat = jnp.abs(pivots) <= least
    swept = ~flat
    eye = jnp.eye(len(unit), dtype=unit.dtype)
    both = swept[:, None] & swept[None, :]
    inverse = jnp.where(both, -table, 0.0) * unit[:, None] * unit[None, :]
    null = jnp.where(flat[None, :], jnp.where(swept[:, None], -table, eye), 0.0) * unit[:, None]
    return Curvature(inverse, flat, null, jnp.any(pivots < -least))


@record
class Settled:
    """A criterion near a stationary point.

    Attributes
    ----------
    gradient : (m,) in θ; jacobian : (m, m) ∂d/∂θ; decrement : of Newton; at : the curvature.
    moves : (m, m) directions of d along which the criterion does not change, as columns; else zeros.
    """

    gradient: Array
    jacobian: Array
    decrement: Array
    at: Curvature
    moves: Array


def settled(jet: Jet, entries: Callable[[Array], Array], theta: Array, sizes: Array) -> Settled:
    """The curvature at the stationary point next to θ (m,), from derivatives in d = entries(θ) at θ.

    A covariance is as large as its `sizes` (m,), whatever it is.

    Where d is curved along a direction that the criterion does not depend on, what is left of the gradient f′
    in d would pass for curvature, f′·∂²d: it is taken where Newton's step leads, f′ + f″J δθ.
    """
    jacobian, along, turn = _bends(entries, theta)
    gradient, straight = hold(jet.first @ jacobian), hold(jacobian.T @ jet.second @ jacobian)
    unit = jnp.maximum(1.0, sizes)
    first = curvature(unit, straight + along(jet.first))
    step = hold(-first.inverse @ gradient)
    moved = hold(jet.first + jet.second @ (jacobian @ step))
    at = curvature(unit, straight + along(moved))
    moves = directions(jet.second, moved, jacobian, turn, at)
    return Settled(gradient, jacobian, -0.5 * (gradient @ step), at, moves)


def _bends(entries: Callable[[Array], Array], theta: Array) -> tuple[Array, Callable[[Array], Array], Array]:
    """∂d (m, m), Σ w_c ∂²d_c (m, m) as a function of w (m,), and ∂²d/∂θ_k² as columns (m, m)."""
    if len(theta) <= CUBE:
        _, jacobian, bend = derivatives(entries, theta)
        bend = hold(bend)
        turn = diagonal(jnp.moveaxis(bend, 0, 2)).T
        return hold(jacobian), lambda w: jnp.tensordot(w, bend, axes=1), turn

    def twice(unit: Array) -> Array:
        return jax.jvp(lambda t: jax.jvp(entries, (t,), (unit,))[1], (theta,), (unit,))[1]

    turn = jax.vmap(twice, out_axes=1)(jnp.eye(len(theta), dtype=theta.dtype))
    return jax.jacfwd(entries)(theta), lambda w: weighted_bend(entries, theta, w), turn


@traced_once()
def directions(second: Array, gradient: Array, jacobian: Array, turn: Array, at: Curvature) -> Array:
    """The directions of d (m, m) that belong to null directions ν_k of θ: Jν_k.

    At a boundary Jν_k can vanish: where a column of Λ is zero d is quadratic in its first entry, θ_k. Then d
    moves along t = ∂²d/∂θ_k², column k of `turn`, the other parameters adjusted, t − JH⁻Jᵀf″t, if the
    criterion has neither slope nor curvature that way: the covariance is singular by chance of the start.
    """
    tol = _rounding(gradient)
    first = hold(jacobian @ at.null)
    across = hold(turn - jacobian @ (at.inverse @ (jacobian.T @ (second @ turn))))
    bent = jnp.sum(across * (second @ across), axis=0)
    level = jnp.sum(jnp.abs(across) * (jnp.abs(second) @ jnp.abs(across)), axis=0)
    flat = jnp.abs(bent) <= tol * level
    flat = flat & (jnp.abs(gradient @ across) <= tol) & at.flat
    still = jnp.max(jnp.abs(first), axis=0) <= tol
    return jnp.where(still[None, :], jnp.where(flat[None, :], across, 0.0), first)


def _rounding(a: Array) -> float:
    """What is zero beside 1: 5e-7 in float64."""
    return float(jnp.finfo(a.dtype).eps) ** 0.4


def slopes(there: Settled) -> Array:
    """Whether the criterion falls along a direction without curvature: it goes on to infinity."""
    steep = jnp.abs(there.gradient @ there.at.null)
    return jnp.any(steep > _rounding(steep))


@record
class Information:
    """What is known of ψ, each c of whose (m + 1,) entries is in units of σ^(2p_c): no unit of y enters.

    Attributes
    ----------
    cov : (m + 1, m + 1) asymptotic covariance: with B = dψ/dθ, σ² profiled out, and t = ∂ψ/∂σ²,
        2BH⁻¹Bᵀ + ttᵀ2/ν. It has lower rank on a boundary, where columns of B vanish, and is one of many
        where parameters are not identified.
    moves : (m + 1, m) directions of ψ that leave the criterion as it is, as columns; else zeros.
    """

    cov: Array
    moves: Array


def spread_of_scale(problem: Problem) -> Array:
    """Var(σ̂²)/σ̂⁴ at θ: 2/ν, or 0 where σ² is known."""
    return 2.0 / problem.nu if problem.known is None else jnp.zeros_like(problem.nu)


def information(problem: Problem, there: Settled, split: CriterionParts, d: Array) -> Information:
    """From the curvature at a stationary point where d (m,).

    With s = r²/ν: ∂s/∂θ = s ∂r²/r², dψ_c/dθ = s^p(∂d_c/∂θ + p_c d_c ∂s/s), and ∂²f/∂s² at θ is ν/s². Half of
    the second derivatives of −2ℓ is information.
    """
    powers = problem.structure.powers.astype(d.dtype)
    along = jnp.concatenate([powers * d, jnp.ones(1, d.dtype)])

    def with_scale(steps: Array) -> Array:
        # d (m, k), and σ² with it
        out = jnp.concatenate([steps, jnp.zeros_like(steps[:1])])
        if problem.known is not None:
            return out
        return out + along[:, None] * ((split.r2.first @ steps) / split.r2.value)[None, :]

    b = hold(with_scale(there.jacobian))
    cov = 2.0 * (b @ there.at.inverse @ b.T) + along[:, None] * along[None, :] * spread_of_scale(problem)
    return Information(cov, with_scale(there.moves))


@traced_once()
def outside(moves: Array, sizes: Array, outward: Array) -> Array:
    """Directions (m + 1, m) of ψ in internal coordinates, in the user's; what is rounding becomes zero.

    Parameters
    ----------
    sizes : (m,) what is large for each but σ²; outward : (m + 1, m + 1) the map between the two.
    """
    tol = _rounding(moves)
    size = jnp.concatenate([sizes, jnp.ones(1, sizes.dtype)])
    relative = jnp.abs(moves) / size[:, None]
    moves = jnp.where(relative > tol * jnp.maximum(1.0, jnp.max(relative, axis=0))[None, :], moves, 0.0)
    moved, most = outward @ moves, jnp.abs(outward) @ jnp.abs(moves)
    return jnp.where(jnp.abs(moved) > tol * most, moved, 0.0)


def freely(moves: Array) -> Array:
    """Which entries (..., m + 1) of ψ move along directions (..., m + 1, m)."""
    return (moves != 0).any(axis=-1)
