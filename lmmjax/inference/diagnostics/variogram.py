"""Semivariograms: half the mean squared difference of residuals by their distance."""

from __future__ import annotations

import numpy as np


def pairs(codes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows i < j (m,) of every pair in the same group of codes (n,), and their Euclidean distances.

    Parameters
    ----------
    places : (n, k) coordinates.
    """
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    found = []
    for rows in np.split(order, ends[:-1]):
        i, j = np.triu_indices(len(rows), 1)
        found.append(np.stack([rows[i], rows[j]]))
    first, second = np.concatenate(found, axis=1) if found else np.zeros((2, 0), int)
    return first, second, np.linalg.norm(places[first] - places[second], axis=1)


def semivariogram(
    distance: np.ndarray, difference: np.ndarray, bins: int, robust: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, semivariance and number of pairs, per bin, from those of the pairs (m,).

    Every distance is a bin of its own where there are fewer than `bins`; else bins hold about equally many
    pairs, and their distance is the median. `robust` is the estimator of Cressie & Hawkins (1980),
    doi:10.1007/BF01035243: (mean |difference|^½)⁴/(0.457 + 0.494/n)/2.
    """
    unique, code = np.unique(distance, return_inverse=True)
    if len(unique) > bins:
        edges = np.unique(np.quantile(distance, np.linspace(0, 1, bins + 1)))
        code = np.maximum(np.searchsorted(edges, distance, side="left") - 1, 0)
    present, code, count = np.unique(code, return_inverse=True, return_counts=True)
    if robust:
        root = np.bincount(code, np.sqrt(np.abs(difference))) / count
        value = root**4 / (0.457 + 0.494 / count) / 2.0
    else:
        value = np.bincount(code, difference**2) / count / 2.0
    middle = np.array([np.median(distance[code == k]) for k in range(len(present))])
    return middle, value, count
