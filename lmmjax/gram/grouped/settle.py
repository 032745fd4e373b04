"""Responses that X and Z explain almost wholly, or wholly.

Beside columns that vary within groups, r² at the optimum is a small difference of large numbers if least
squares across groups are taken off a response whose variance is nearly all between groups. So such a response
gets another origin, least squares within groups: with e its residuals and M the projection off Z,

    β_w = (XᵀMX)⁺XᵀMe,     e ← e − Xβ_w,

after which Me is what no choice of β and D can explain. If that is nothing, the likelihood has no bound.
"""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Basis, Origin, Rows, solve_upper

SHARE = 1e-3
"""A response is settled if least squares within groups leave less than this share of its squares there."""

ROUNDING = (64 * np.finfo(float).eps) ** 2
"""Share of the squares of a response that rounding leaves where X and Z explain all of it."""

PIVOT = ROUNDING
"""Squares of a column of X within groups, of 1 in all, that count as none if summed from the rows."""


def within_fit(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """β (p, T) that solves xx β = xy, what it leaves of yy (T,), and the rank of xx (T,).

    Parameters
    ----------
    xx : (p, p, T) or (p, p, 1) products of columns of unit length; xy : (p, T); yy : (T,).
    """
    p, lanes = xy.shape
    rest = np.concatenate([np.broadcast_to(xx, (p, p, lanes)), xy[:, None]], axis=1)
    left, rank, good = yy.copy(), np.zeros(lanes, int), []
    for j in range(p):
        # a column that depends on those before it
        fine = rest[j, j] > PIVOT
        row = rest[j] * np.where(fine, 1.0 / np.where(fine, rest[j, j], 1.0), 0.0)
        left -= row[-1] * rest[j, -1] * fine
        rank += fine
        rest[j + 1 :] -= rest[j + 1 :, j, None] * row
        rest[j] = row
        good.append(fine)
    beta = np.zeros((p, lanes))
    for j in reversed(range(p)):
        known = np.einsum("kt,kt->t", rest[j, j + 1 : p], beta[j + 1 :])
        beta[j] = np.where(good[j], rest[j, -1] - known, 0.0)
    return beta, left, rank


def left_within(xx: Array, xy: Array, yy: Array, pivot: float) -> Array:
    """What `within_fit` leaves of yy (T,), of arrays that may be traced, xx (p, p, T)."""
    xp = namespace(xx, yy)
    rest = xp.concatenate([xx, xy[:, None]], axis=1)
    for _ in range(len(xx)):
        fine = rest[0, 0] > pivot
        row = rest[0] * xp.where(fine, 1.0 / xp.where(fine, rest[0, 0], 1.0), 0.0)
        yy = yy - row[-1] * rest[0, -1]
        rest = rest[1:, 1:] - rest[1:, 0, None] * row[1:]
    return yy


def settle(
    inside: Array, x_within: Array, rows: Rows, basis: Basis, residual: Array, origin: Origin, factor: Array
) -> tuple[Array, Origin, Array]:
    """Residuals (n, ...), their origin, and the factor that scales them, 0 where X and Z fit perfectly.

    Parameters
    ----------
    inside : (n, ...) Me; x_within : (p, n) rows of X̃ᵀM.

    Traced responses keep their origin.
    """
    xp = namespace(residual, x_within)
    squares = xp.einsum("n...,n...->...", inside, inside)
    if xp is not np:
        taken = xp.tensordot(basis.x_factor, origin.beta, axes=1)
        total = xp.sum(taken * taken, axis=0) + xp.einsum("n...,n...->...", residual, residual)
        return residual, origin, xp.where(squares <= ROUNDING * total, 0.0, factor).astype(residual.dtype)
    flat, inside = residual.reshape(len(residual), -1), inside.reshape(len(residual), -1)
    squares, shape = squares.reshape(-1), factor.shape
    xx = (x_within @ x_within.T)[..., None]
    _, left, _ = within_fit(xx, x_within @ inside, squares)
    close = left <= SHARE * squares
    tiny = squares <= SHARE**2 * np.einsum("nt,nt->t", flat, flat)
    lanes = np.flatnonzero((close | tiny) & (factor.reshape(-1) > 0))
    if not len(lanes):
        return residual, origin, factor
    e, inside = flat[:, lanes], inside[:, lanes]
    shift = np.zeros((len(xx), len(lanes)))
    for _ in range(2):
        beta = within_fit(xx, x_within @ inside, squares[lanes])[0] * close[lanes]
        shift, e, inside = shift + beta, e - rows.x.T @ beta, inside - x_within.T @ beta
    flat, beta = flat.copy(), origin.beta.reshape(len(xx), flat.shape[1]).copy()
    scale, factor = origin.scale.reshape(-1).copy(), factor.reshape(-1).copy()
    taken = basis.x_factor @ beta[:, lanes]
    size = np.einsum("nt,nt->t", e, e)
    total = np.einsum("pt,pt->t", taken, taken) + np.einsum("pt,pt->t", shift, shift) + size
    nothing = np.einsum("nt,nt->t", inside, inside) <= ROUNDING * total
    flat[:, lanes], beta[:, lanes] = e, beta[:, lanes] + solve_upper(basis.x_factor, shift)
    scale[lanes] = np.where(nothing, 1.0, np.sqrt(size / len(e)))
    factor[lanes] = np.where(nothing, 0.0, 1.0 / scale[lanes])
    moved = Origin(beta.reshape(origin.beta.shape), scale.reshape(shape))
    return flat.reshape(residual.shape), moved, factor.reshape(shape)
