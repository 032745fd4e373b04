"""Means of many responses, as tables and trends of variances go by them."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays.sparse_columns import SparseColumns, complete_columns
from lmmjax.fitted import FittedMany, kept


@kept
def response_means(fits: FittedMany) -> np.ndarray:
    """Means (T,) of the values that every response has; NaN without any."""
    if isinstance(fits.y, SparseColumns):
        if (complete := complete_columns(fits.y)).all():
            return fits.y.sums() / len(fits.y)
        means = [np.nanmean(y, axis=0) for _, y in fits.y[:, ~complete].chunks()]
        out = np.array(fits.y.sums() / len(fits.y))
        out[~complete] = np.concatenate(means)
        return out
    there = np.isfinite(fits.y)
    if fits.weights is not None:
        there &= fits.weights > 0
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there, fits.y, 0.0).sum(axis=0) / count
