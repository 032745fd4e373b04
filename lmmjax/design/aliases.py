"""Columns left out of X for linear dependence, and what is estimable all the same.

With X = [X₁ X₂], X₂ = X₁A left out, the fit knows γ₁ + Aγ₂ of the coefficients γ of all columns and nothing
else. A function rᵀγ is estimable if r is in the row space of X: if r₂ = Aᵀr₁. Its estimate is r₁ᵀβ̂ then.

Source: Searle (1971), Linear Models, section 5.4.
"""

from __future__ import annotations

import dataclasses

import numpy as np

HARMLESS = 1e-6
"""Distance from the row space, in ranges of the column, that changes nothing anyone would see."""

NEGLIGIBLE = 1e-9
"""Share of a column, beside the largest, from which a kept column takes part in it."""


class EstimabilityWarning(UserWarning):
    """Something that was asked for is not estimable from the rows of the fit, and is missing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Aliases:
    """How the r columns of X that were left out depend on the p that were kept.

    Attributes
    ----------
    kept, out : (p,), (r,) positions among all p + r columns.
    weights : A (p, r), exactly zero for columns that take no part.
    slack : (r,) distance that does not matter; rounding : (r,) relative error of X₁A on the rows of the fit.
    """

    kept: np.ndarray
    out: np.ndarray
    weights: np.ndarray
    slack: np.ndarray
    rounding: np.ndarray

    def estimable(self, rows: np.ndarray) -> np.ndarray:
        """Which of the functions rᵀγ, rows (k, p + r), are estimable."""
        part = rows[:, self.kept]
        size = np.abs(rows[:, self.out]) + np.abs(part) @ np.abs(self.weights)
        apart = np.abs(rows[:, self.out] - part @ self.weights)
        return np.all(apart <= self.slack + self.rounding * size, axis=1)

    def estimable_contrasts(self, rows: np.ndarray) -> np.ndarray:
        """Which of the functions lᵀγ₁, rows (k, p), are estimable."""
        size = np.abs(rows) @ np.abs(self.weights)
        return np.all(np.abs(rows @ self.weights) <= 1e-8 * size, axis=1)

    def entangled(self) -> np.ndarray:
        """(p,) which coefficients change when other columns are left out."""
        return np.any(self.weights != 0, axis=1)


def aliases(x: np.ndarray, kept: np.ndarray) -> Aliases | None:
    """The dependence of the other columns of x (n, p + r) on the independent ones `kept`; None if r = 0."""
    out = np.setdiff1d(np.arange(x.shape[1]), kept)
    if not out.size:
        return None
    inner, outer = x[:, kept], x[:, out]
    scale = np.linalg.norm(inner, axis=0)
    q, r = np.linalg.qr(inner / scale)
    # once more for what the first solution leaves
    scaled = np.linalg.solve(r, q.T @ outer)
    scaled += np.linalg.solve(r, q.T @ (outer - (inner / scale) @ scaled))
    scaled[np.abs(scaled) <= NEGLIGIBLE * np.abs(scaled).max(axis=0, initial=0.0)] = 0.0
    weights = scaled / scale[:, None]
    size = np.abs(outer) + np.abs(inner) @ np.abs(weights)
    off = np.abs(outer - inner @ weights) / np.where(size > 0, size, 1.0)
    rounding = 1e3 * np.maximum(off.max(axis=0), 4.0 * np.finfo(float).eps)
    return Aliases(kept, out, weights, HARMLESS * np.ptp(outer, axis=0), rounding)
