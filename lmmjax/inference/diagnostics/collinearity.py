"""How far the columns of X depend on each other: variance inflation, condition indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def inflation(cov: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Generalised variance inflation (k,) of groups of coefficients with covariance cov (p, p).

    With R the correlation matrix of the estimates, |R₁₁||R₂₂|/|R| for a group and the others; NaN where a
    covariance is missing.

    Source: Fox & Monette (1992), doi:10.1080/01621459.1992.10475190.
    """
    if not np.all(np.isfinite(cov)):
        return np.full(len(groups), np.nan)
    sd = np.sqrt(np.diagonal(cov))
    r = cov / sd[:, None] / sd

    def log_det(at: np.ndarray) -> float:
        return float(np.linalg.slogdet(r[np.ix_(at, at)])[1]) if len(at) else 0.0

    every = np.arange(len(cov))
    rest = [np.setdiff1d(every, at) for at in groups]
    logs = [log_det(at) + log_det(other) - log_det(every) for at, other in zip(groups, rest, strict=True)]
    return np.exp(np.array(logs))


def condition(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Condition indices (p,) of x (n, p), ascending, and the shares (p, p) of every coefficient's variance.

    Columns of x are scaled to unit length, not centred; row k of the shares belongs to index k, and columns
    sum to 1. The largest index is the condition number.

    Source: Belsley, Kuh & Welsch (1980), doi:10.1002/0471725153, section 3.2.
    """
    if not x.shape[1]:
        return np.ones(0), np.ones((0, 0))
    length = np.linalg.norm(x, axis=0)
    _, d, vt = np.linalg.svd(x / np.where(length > 0, length, 1.0), full_matrices=False)
    # Var(β̂_j) ∝ Σ_k v_jk²/d_k²
    parts = (vt / d[:, None]) ** 2
    return d[0] / d, parts / parts.sum(axis=0)
