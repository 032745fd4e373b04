"""Rows predicted from the others, the variance parameters held, without a fit.

With P = V⁻¹ − GΦGᵀ, G = V⁻¹X, the best linear unbiased predictions of the rows I from all others, their own
levels and correlated residuals included, are off by

    y_I − ŷ_I = P_II⁻¹(Py)_I,        Var(y_I − ŷ_I) = P_II⁻¹.

V⁻¹_II has a block B for the rows of I in each independent part of the data, and with F₋ = Φ⁻¹ − ΣG_BᵀB⁻¹G_B,
the information on β in the other rows,

    P_II⁻¹ = B⁻¹ + (B⁻¹G) F₋⁻¹ (B⁻¹G)ᵀ.

Source: Dubrule (1983), doi:10.1007/BF01033232; Haslett (1999), doi:10.1111/1467-9868.00195.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.special import ndtr

from lmmjax.arrays.memory import require_memory
from lmmjax.inference.diagnostics.deletion import LOST, Held

OPEN = 1e-7
"""Part of a prediction, in its standard deviations, along what the other rows do not determine of β."""


@dataclasses.dataclass(frozen=True, eq=False)
class LeftOut:
    """Rows predicted from the others; NaN where these do not determine the prediction.

    Attributes
    ----------
    error : (k,) y − ŷ; variance : (k,) of y − ŷ.
    """

    error: np.ndarray
    variance: np.ndarray


def each_row(fit: Held) -> LeftOut:
    """Every row (n,) predicted from all others."""
    own = fit.row_precision()
    return LeftOut(fit.py / own, 1.0 / own)


def left_out(fit: Held, rows: np.ndarray, parts: np.ndarray) -> LeftOut:
    """Some rows (k,) predicted from all others.

    Parameters
    ----------
    parts : (n,) labels; rows with different ones are independent.
    """
    k, p = len(rows), len(fit.beta)
    error, variance, moved = np.empty(k), np.empty(k), np.empty((k, p))
    factor = np.linalg.cholesky(fit.phi) if p else fit.phi
    g, left = fit.g @ factor, np.eye(p)
    order = np.argsort(parts[rows], kind="stable")
    ends = np.flatnonzero(np.diff(parts[rows][order])) + 1
    for at in np.split(order, ends):
        own = rows[at]
        require_memory(f"the {len(own):,} rows of a fold that depend on each other", 3, len(own), len(own))
        block = fit.at.block(own)
        scale = 1.0 / np.sqrt(np.diagonal(block))
        root = cholesky(block * scale[:, None] * scale, lower=True)
        sides = np.column_stack([g[own], fit.py[own], np.eye(len(own))])
        solved = scale[:, None] * cho_solve((root, True), scale[:, None] * sides)
        moved[at], error[at] = solved[:, :p], solved[:, p]
        variance[at] = np.diagonal(solved[:, p + 1 :])
        left -= g[own].T @ moved[at]
    values, vectors = np.linalg.eigh(left)
    lost = values < LOST
    along = moved @ vectors
    open_ = np.any(np.abs(along[:, lost]) > OPEN * np.sqrt(variance)[:, None], axis=1)
    along = along[:, ~lost] / np.sqrt(values[~lost])
    error = error + along @ ((vectors[:, ~lost].T @ (g[rows].T @ error)) / np.sqrt(values[~lost]))
    variance = variance + np.sum(along**2, axis=1)
    return LeftOut(np.where(open_, np.nan, error), np.where(open_, np.nan, variance))


def log_density(error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """log N(error; 0, variance)."""
    return -0.5 * (np.log(2.0 * np.pi * variance) + error**2 / variance)


def crps(error: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of N(0, variance) at `error`: σ[z(2Φ(z) − 1) + 2φ(z) − 1/√π].

    Source: Gneiting & Raftery (2007), doi:10.1198/016214506000001437, section 4.2, with its sign turned.
    """
    sd = np.sqrt(variance)
    z = error / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return sd * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
