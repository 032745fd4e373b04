"""Which variances of fixed effects the data determine, where they leave covariance parameters open.

Along a direction N of ψ that the restricted likelihood does not depend on, the variance lᵀΦl of a contrast
may move all the same: with a random effect for every level of a fixed factor it does. With F = XᵀV⁻¹X = Φ⁻¹,

    ∂Φ/∂N = −Φ(Σ N_i ∂_iF)Φ.
"""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import sweep
from lmmjax.core import Problem
from lmmjax.inference.natural import Natural

ROUNDING = 1e-6
"""Relative changes of a variance, by a step as long as ψ, that are less are rounding."""


def inward_moves(problem: Problem, psi: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Directions (m + 1, m) of ψ in internal coordinates, steps of its size, from `Estimate.moves`."""
    structure, sigma2 = problem.structure, psi[-1]
    inward = np.asarray(structure.entry_map(problem.basis.inward))
    d = np.append(inward @ np.asarray(structure.relative(psi)), 1.0)
    out = np.concatenate([inward @ moves[:-1], moves[-1:]])
    length = np.max(np.abs(out) / np.maximum(1.0, np.abs(d))[:, None], axis=0)
    unit = (sigma2 / np.asarray(problem.origin.scale) ** 2) ** np.append(structure.powers, 1.0)
    return out / np.where(length > 0, length, 1.0) * unit[:, None]


def unsteady(at: Natural, moves: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which covariances (k, k) of the contrasts rows (k, p) move along `moves` (m + 1, m); all internal."""
    half = rows @ sweep(np.asarray(at.xx))[1]
    along = np.abs(np.tensordot(moves.T, half @ np.asarray(at.first) @ half.T, axes=1))
    spread = np.sqrt(np.sum(half * rows, axis=1))
    return np.any(along > ROUNDING * spread[:, None] * spread[None, :], axis=0)
