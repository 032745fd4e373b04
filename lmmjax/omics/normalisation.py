"""Normalisation factors of samples of counts: trimmed means of M-values (TMM)."""

from __future__ import annotations

import numpy as np


def tmm(
    counts: np.ndarray,
    lib_size: np.ndarray,
    reference: int | None = None,
    ratio_trim: float = 0.3,
    sum_trim: float = 0.05,
) -> np.ndarray:
    """Factors (n,) with geometric mean 1 that multiply library sizes.

    Of a sample and the reference, M are the log₂ ratios of the shares of the genes that both have, A the
    means of their logarithms. The factor is 2 to the mean of M, weighted by inverse asymptotic variances,
    without the genes of the most extreme M and A.

    Parameters
    ----------
    counts : (n, T) samples × genes; lib_size : (n,) totals.
    reference : position of the reference sample; by default the one whose upper quartile is nearest to the
        mean.
    ratio_trim, sum_trim : shares that are trimmed at either end of M and of A.

    Source: Robinson & Oshlack (2010), doi:10.1186/gb-2010-11-3-r25.
    """
    counts = counts[:, np.any(counts > 0, axis=0)]
    if len(counts) < 2 or not counts.shape[1]:
        return np.ones(len(counts))
    if reference is None:
        quartile = np.quantile(counts, 0.75, axis=1) / lib_size
        if np.median(quartile) < 1e-20:
            reference = int(np.argmax(np.sqrt(counts).sum(axis=1)))
        else:
            reference = int(np.argmin(np.abs(quartile - quartile.mean())))
    logs = [
        _log_factor(own, counts[reference], size, lib_size[reference], ratio_trim, sum_trim)
        for own, size in zip(counts, lib_size, strict=True)
    ]
    return 2.0 ** (np.array(logs) - np.mean(logs))


def _log_factor(
    own: np.ndarray, ref: np.ndarray, own_size: float, ref_size: float, ratio_trim: float, sum_trim: float
) -> float:
    both = (own > 0) & (ref > 0)
    own, ref = own[both], ref[both]
    # ties are ranked, so that equal ratios have to be equal to the last digit
    ratio = np.log2((own / own_size) / (ref / ref_size))
    mean = (np.log2(own / own_size) + np.log2(ref / ref_size)) / 2
    if not len(ratio) or np.max(np.abs(ratio)) < 1e-6:
        return 0.0
    variance = (own_size - own) / own_size / own + (ref_size - ref) / ref_size / ref
    keep = _inside(ratio, ratio_trim) & _inside(mean, sum_trim)
    if not keep.any():
        return 0.0
    return float(np.sum(ratio[keep] / variance[keep]) / np.sum(1.0 / variance[keep]))


def _inside(values: np.ndarray, trim: float) -> np.ndarray:
    """Those whose rank, ties at their mean, is not among the first or last of a share."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    low = np.floor(len(values) * trim) + 1
    return (rank >= low) & (rank <= len(values) + 1 - low)
