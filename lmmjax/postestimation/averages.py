"""Means of many responses, as tables and trends of variances go by them."""

from __future__ import annotations

import numpy as np

from lmmjax.fitted import FittedMany, kept


@kept
def response_means(fits: FittedMany) -> np.ndarray:
    """Means (T,) of the values that every response has; NaN without any."""
    there = np.isfinite(fits.y)
    if fits.weights is not None:
        there &= fits.weights > 0
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there, fits.y, 0.0).sum(axis=0) / count
