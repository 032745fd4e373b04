"""What moves along directions of ψ that the data leave open, and what stays as it is.

A quantity f(ψ) that the data determine has ∂f/∂N = 0 for every direction N of `Estimate.moves`. It is seen by
derivatives, or by steps along N where f has none written down.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays import sweep
from lmmjax.core import Problem
from lmmjax.design import Structure
from lmmjax.inference.natural import Natural

SHARE = 1e-5
"""Change of a quantity over a step as long as ψ, relative to its size, from which on it moves.

What moves does so by a good part of its size. Derivatives are rounded at some 1e-10 of what they are made of,
directions are known as well as the Hessian that they are a null space of, and differences over `STEP` have an
error of 1e-6 at a boundary, where only one side has a value.
"""

STEP = 1e-6
"""Length of a step, relative to ψ."""


def moving(change: Any, size: Any) -> Any:
    """Whether quantities of some `size` change, over a step as long as ψ, by more than rounding."""
    return abs(change) > SHARE * size


def as_long(directions: np.ndarray, psi: np.ndarray, unit: np.ndarray | float) -> np.ndarray:
    """Directions (..., m + 1, m), as columns, with the length of ψ (..., m + 1).

    The largest entry is its parameter's size or, where that is larger, its unit.
    """
    length = np.max(np.abs(directions) / np.maximum(np.abs(psi), unit)[..., None], axis=-2, keepdims=True)
    return directions / np.where(length > 0, length, 1.0)


def steps(structure: Structure, psi: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The open directions (..., m + 1, m) of `Estimate.moves` as steps as long as ψ (..., m + 1)."""
    unit = structure.units(psi[..., -1:])
    return as_long(moves * unit[..., None], psi, unit)


def nearby(structure: Structure, psi: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """ψ a short step along and against every open direction: (2k, ..., m + 1) for ψ (..., m + 1).

    Parameters
    ----------
    moves : (..., m + 1, m) as in `Estimate`; of leading axes all that any of them has are taken.
    """
    along = STEP * steps(structure, psi, moves)
    open_ = np.flatnonzero(np.any(moves != 0, axis=tuple(range(moves.ndim - 1))))
    out = [psi + sign * along[..., j] for j in open_ for sign in (1.0, -1.0)]
    return np.stack(out) if out else np.zeros((0, *psi.shape))


def settled(at: np.ndarray, near: list[np.ndarray], size: np.ndarray | np.floating) -> np.ndarray:
    """Which values are the same at all points of `nearby`, beside their size, which broadcasts."""
    out = np.ones(at.shape, bool)
    for there, against in zip(near[::2], near[1::2], strict=True):
        # a step over the boundary may have no value; the one in the other direction has
        change = np.where(np.isnan(there), at - against, there - at)
        change = np.where(np.isnan(there) | np.isnan(against), change, 0.5 * (there - against))
        out &= ~moving(change / STEP, size)
    return out


def moving_values(
    structure: Structure, psi: np.ndarray, moves: np.ndarray, gradient: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Which of values with derivatives (k, m + 1) in ψ, of some size (k,), move along an open direction."""
    return np.any(moving(gradient @ steps(structure, psi, moves), size[:, None]), axis=1)


def inward_moves(problem: Problem, psi: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The open directions (m + 1, m) of `Estimate.moves` as steps as long as ψ, in internal coordinates."""
    structure = problem.structure
    inward = np.asarray(structure.entry_map(problem.basis.inward))
    d = np.append(inward @ np.asarray(structure.relative(psi)), 1.0)
    out = as_long(np.concatenate([inward @ moves[:-1], moves[-1:]]), d, 1.0)
    return out * structure.units(psi[-1] / np.asarray(problem.origin.scale) ** 2)[:, None]


def moving_covariances(at: Natural, moves: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which covariances (k, k) of the contrasts rows (k, p) move along `moves` (m + 1, m); all internal.

    With a random effect for every level of a fixed factor they do. With F = XᵀV⁻¹X = Φ⁻¹,

        ∂Φ/∂N = −Φ(Σ N_i ∂_iF)Φ.
    """
    half = rows @ sweep(np.asarray(at.xx))[1]
    along = np.tensordot(moves.T, half @ np.asarray(at.first) @ half.T, axes=1)
    spread = np.sqrt(np.sum(half * rows, axis=1))
    return np.any(moving(along, spread[:, None] * spread[None, :]), axis=0)
