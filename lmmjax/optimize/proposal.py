"""The step that Newton's method proposes: |d| of LDLᵀ, a trust radius, columns that go to zero at once."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import UNROLL, Array, ldl, record, traced_once

CAUTION = 2.0
"""How far below zero a square must be expected before zero is tried, in units of its value, doubled."""


@record
class Proposal:
    """A trial point (m,), its predicted decrease, the decrement, whether a pivot is negative, or zero."""

    trial: Array
    predicted: Array
    decrement: Array
    curved: Array
    flat: Array


def vanishing(
    x: Array, gradient: Array, hessian: Array, radius: Array, columns: tuple[tuple[np.ndarray, ...], ...]
) -> Array:
    """Which coordinates (m,) belong to columns that a model of f in their squares sends to zero.

    Along t the column v enters as tv, and f is even in t. With u = t², ∂f/∂u = ½gᵀv and
    ∂²f/∂u² = ¼(vᵀHv − gᵀv) at t = 1; the quadratic in u is convex with its minimum at u ≤ −½`CAUTION` where
    (3 + `CAUTION`) gᵀv > (1 + `CAUTION`) vᵀHv. Newton's method in v itself goes there by thirds.
    """
    if len(x) > UNROLL:
        return _many_vanishing(x, gradient, hessian, radius, columns)
    gone = jnp.zeros(x.shape, bool)
    for group in columns:
        behind = jnp.ones((), bool)
        for column in reversed(group):
            v, block = x[column], hessian[column][:, column]
            slope, bend, size = gradient[column] @ v, v @ block @ v, v @ v
            below = (3.0 + CAUTION) * slope > (1.0 + CAUTION) * bend
            zero = behind & below & (bend > slope) & (size <= radius**2) & (size > 0)
            hot = np.zeros(x.shape, bool)
            hot[column] = True
            gone = gone | (hot & zero)
            behind = behind & (zero | (size == 0))
    return gone


def _many_vanishing(
    x: Array, gradient: Array, hessian: Array, radius: Array, columns: tuple[tuple[np.ndarray, ...], ...]
) -> Array:
    """`vanishing` for many columns at once."""
    hot = np.zeros((sum(map(len, columns)), len(x)), bool)
    for row, column in zip(hot, itertools.chain(*columns), strict=True):
        row[column] = True
    v = jnp.where(hot, x[None], 0.0)
    slope, size = v @ gradient, jnp.sum(v * v, axis=1)
    bend = jnp.sum((v @ hessian) * v, axis=1)
    below = (3.0 + CAUTION) * slope > (1.0 + CAUTION) * bend
    zero = below & (bend > slope) & (size <= radius**2) & (size > 0)
    # a column goes where those behind it in its group do, or are gone
    ends, passed = np.cumsum([len(group) for group in columns]), zero | (size == 0)
    behind = jnp.concatenate(
        [
            jnp.append(jnp.cumprod(passed[end - len(group) + 1 : end][::-1])[::-1], 1)
            for end, group in zip(ends, columns, strict=True)
        ]
    )
    return jnp.any(hot & (zero & (behind > 0))[:, None], axis=0)


def propose(
    x: Array,
    gradient: Array,
    hessian: Array,
    radius: Array,
    columns: tuple[tuple[np.ndarray, ...], ...] = (),
    back: Array | None = None,
) -> Proposal:
    """The safeguarded Newton step from x (m,), no longer than the radius; some `columns` may go to zero.

    With `back` (m,) not zero the step is Newton's and this, and nothing else.
    """
    places = tuple(tuple(tuple(column.tolist()) for column in group) for group in columns)
    return _propose(x, gradient, hessian, radius, back, places=places, limit=UNROLL)


@traced_once("places", "limit")
def _propose(
    x: Array,
    gradient: Array,
    hessian: Array,
    radius: Array,
    back: Array | None,
    *,
    places: tuple[tuple[tuple[int, ...], ...], ...],
    limit: int,
) -> Proposal:
    l_inv, pivots = ldl(hessian)
    reduced = l_inv @ gradient
    decrement = 0.5 * jnp.sum(reduced**2 / jnp.abs(pivots))
    # along a direction that f does not depend on, curvature is rounding of either sign
    eps = float(jnp.finfo(x.dtype).eps)
    level = eps**0.75
    curved = jnp.min(pivots) < -jnp.maximum(1e-5 * jnp.max(jnp.abs(pivots)), level)
    # `ldl` puts 8 eps of the largest entry in the place of a zero
    flat = jnp.min(jnp.abs(pivots)) <= jnp.maximum(16 * eps * jnp.max(jnp.abs(pivots)), eps**1.5)
    newton_step = -l_inv.T @ (reduced / jnp.abs(pivots))
    length = jnp.sqrt(jnp.sum(newton_step**2))
    step = newton_step * jnp.minimum(1.0, radius / jnp.where(length > 0, length, 1.0))
    # at a stationary point with a negative pivot d_j, L⁻ᵀe_j descends either way
    # by its place: where a pivot is computed twice its last digit may differ
    lowest = (jnp.arange(len(x)) == jnp.argmax(-pivots)).astype(x.dtype)
    escape = lowest @ l_inv
    escape = escape * (0.5 * radius / jnp.sqrt(jnp.sum(escape**2)))
    escape = jnp.where(escape @ gradient > 0, -escape, escape)
    step = jnp.where(curved & (length < 1e-3 * radius), escape, step)
    if places:
        columns = tuple(tuple(map(np.array, group)) for group in places)
        gone = vanishing(x, gradient, hessian, radius, columns)
        active = jnp.where(
            jnp.logical_or(gone[:, None], gone[None, :]), jnp.eye(len(x), dtype=x.dtype), hessian
        )
        rest = jnp.where(gone, x, gradient - hessian @ jnp.where(gone, x, 0.0))
        l_inv, pivots = ldl(active)
        other = -l_inv.T @ ((l_inv @ rest) / jnp.abs(pivots))
        fits = jnp.logical_and(jnp.any(gone), jnp.sum(other**2) <= radius**2)
        step = jnp.where(fits, other, step)
    if back is not None:
        plain = newton_step * jnp.minimum(1.0, radius / jnp.where(length > 0, length, 1.0))
        step = jnp.where(jnp.any(back != 0), plain + back, step)
    predicted = -(gradient @ step + 0.5 * step @ hessian @ step)
    return Proposal(x + step, predicted, decrement, curved, flat)
