"""Which functions of ψ stay as they are along the directions that the data leave open, by steps along them.

A quantity f(ψ) that the data determine has ∂f/∂N = 0 for every direction N of `Estimate.moves`. Its change
over a step of length h is then of order h², that of any other of order h.
"""

from __future__ import annotations

import numpy as np

from lmmjax.design import Structure

STEP = 1e-5
"""Length of a step, relative to σ^(2p) of the parameter or, where larger, to the parameter."""

STEADY = 1e-3
"""Share of a step's length, in units of the quantity, below which a change is curvature or rounding."""


def nearby(structure: Structure, psi: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """ψ a step along and against every open direction: (2k, ..., m + 1) for ψ (..., m + 1).

    Parameters
    ----------
    moves : (..., m + 1, m) as in `Estimate`; of leading axes all that any of them has are taken.
    """
    open_ = np.flatnonzero(np.any(moves != 0, axis=tuple(range(moves.ndim - 1))))
    unit = psi[..., -1:] ** np.append(structure.powers, 1.0)
    out = []
    for j in open_:
        along = moves[..., j] * unit
        length = np.max(np.abs(along) / np.maximum(np.abs(psi), unit), axis=-1, keepdims=True)
        step = STEP * along / np.where(length > 0, length, 1.0)
        out += [psi + step, psi - step]
    return np.stack(out) if out else np.zeros((0, *psi.shape))


def settled(at: np.ndarray, near: list[np.ndarray], size: np.ndarray | np.floating) -> np.ndarray:
    """Which values are the same at all `near` points, to within `STEADY` of a step; size broadcasts."""
    out = np.ones(at.shape, bool)
    for there in near:
        # a step over the boundary may have no value; the one in the other direction has
        out &= ~(np.abs(there - at) > STEADY * STEP * size)
    return out
