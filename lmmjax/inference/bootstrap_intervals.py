"""Confidence limits from bootstrap replicates: functions on NumPy arrays.

Limits that reflect or add distances ("basic", "normal") are formed on a scale without ends, so that they lie
in the parameter space: of standard deviations the log, of parameters between two ends the logit (of
correlations twice Fisher's z).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import ndtr, ndtri


def percentile(replicates: np.ndarray, original: np.ndarray, level: float) -> np.ndarray:
    """[q(α/2), q(1 − α/2)] of the replicates (n, k): (k, 2); missing replicates are left out."""
    del original
    return _columns(replicates, np.tile([0.5 - level / 2, 0.5 + level / 2], (replicates.shape[1], 1)))


def basic(replicates: np.ndarray, original: np.ndarray, level: float) -> np.ndarray:
    """The percentile limits reflected at the original t (k,): [2t − q(1 − α/2), 2t − q(α/2)]."""
    return (2.0 * original[:, None] - percentile(replicates, original, level))[:, ::-1]


def normal(replicates: np.ndarray, original: np.ndarray, level: float) -> np.ndarray:
    """t − bias ± z·se."""
    n = np.sum(~np.isnan(replicates), axis=0)
    mean = np.where(n > 0, np.nansum(replicates, axis=0) / np.maximum(n, 1), np.nan)
    square = np.nansum((replicates - mean) ** 2, axis=0)
    se = np.where(n > 1, np.sqrt(square / np.maximum(n - 1, 1)), np.nan)
    centre, half = 2.0 * original - mean, ndtri(0.5 + level / 2) * se
    return np.stack([centre - half, centre + half], axis=1)


def bca(
    replicates: np.ndarray, original: np.ndarray, level: float, leave_out: np.ndarray | None = None
) -> np.ndarray:
    """Bias-corrected and accelerated limits (k, 2).

    With z₀ = Φ⁻¹(share of replicates below the original, ties counted half) and the acceleration a they are
    the quantiles at Φ(z₀ + (z₀ ± z)/(1 − a(z₀ ± z))).

    Parameters
    ----------
    leave_out : (G, k) statistics without each independent group, from which
        a = Σ(t̄ − tᵢ)³ / (6 (Σ(t̄ − tᵢ)²)^{3/2}); without it a = 0 (bias-corrected limits).

    Source: Efron (1987), doi:10.1080/01621459.1987.10478410.
    """
    present = ~np.isnan(replicates)
    below = np.sum(replicates < original, axis=0) + 0.5 * np.sum(replicates == original, axis=0)
    count = np.sum(present, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        z0 = ndtri(below / count)
        a = acceleration(leave_out) if leave_out is not None else np.zeros(len(original))
        shifted = z0[:, None] + ndtri([0.5 - level / 2, 0.5 + level / 2])
        return _columns(replicates, ndtr(z0[:, None] + shifted / (1.0 - a[:, None] * shifted)))


def acceleration(leave_out: np.ndarray) -> np.ndarray:
    """The jackknife estimate (k,) of the acceleration from (G, k) statistics; missing ones are left out."""
    n = np.maximum(np.sum(~np.isnan(leave_out), axis=0), 1)
    away = np.nan_to_num(np.nansum(leave_out, axis=0) / n - leave_out)
    spread = np.sum(away**2, axis=0)
    # a statistic that no group moves has no skewness
    return np.where(
        spread > 0, np.sum(away**3, axis=0) / (6.0 * np.where(spread > 0, spread, 1.0) ** 1.5), 0.0
    )


def _columns(replicates: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Quantiles at `shares` (k, 2) of each column of (n, k), without its missing values."""
    out = np.full(shares.shape, np.nan)
    for k, (column, at) in enumerate(zip(replicates.T, shares, strict=True)):
        values = column[~np.isnan(column)]
        if values.size and not np.isnan(at).any():
            out[k] = np.quantile(values, at)
    return out


KINDS = {"percentile": percentile, "basic": basic, "normal": normal, "bca": bca}

EDGE = 1e-8
"""Share of its range within which a value counts as lying at the end of it."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of a statistic: (0, ∞), two finite ends, or all numbers."""

    lower: float = -np.inf
    upper: float = np.inf

    def at_end(self, values: np.ndarray) -> np.ndarray:
        """Whether values (...) lie at an end, where the scale without ends is infinite."""
        if np.isinf(self.lower):
            return np.zeros(np.shape(values), bool)
        if np.isinf(self.upper):
            return values <= self.lower
        margin = EDGE * (self.upper - self.lower)
        return (values <= self.lower + margin) | (values >= self.upper - margin)

    def outward(self, values: np.ndarray) -> np.ndarray:
        """On the scale without ends."""
        if np.isinf(self.lower):
            return values
        below = values - self.lower
        return np.log(below) if np.isinf(self.upper) else np.log(below / (self.upper - values))

    def inward(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `outward`."""
        if np.isinf(self.lower):
            return values
        if np.isinf(self.upper):
            return self.lower + np.exp(values)
        return self.lower + (self.upper - self.lower) / (1.0 + np.exp(-values))


def within_range(
    kind: str, replicates: np.ndarray, original: np.ndarray, level: float, ranges: list[Range]
) -> tuple[np.ndarray, np.ndarray]:
    """Limits (k, 2) of `kind` "basic" or "normal" inside the ranges, and which (k,) are percentiles instead.

    Percentiles are taken where a replicate or the original lies at an end of its range: no scale on which to
    reflect reaches there.
    """
    out, instead = np.empty((len(original), 2)), np.zeros(len(original), bool)
    for k, own in enumerate(ranges):
        column, value = replicates[:, [k]], original[[k]]
        instead[k] = np.any(own.at_end(column)) | np.any(own.at_end(value))
        if instead[k]:
            out[k] = percentile(column, value, level)[0]
            continue
        with np.errstate(over="ignore"):
            out[k] = own.inward(KINDS[kind](own.outward(column), own.outward(value), level)[0])
    return out, instead
