"""Unstructured covariance: every variance and every covariance is free."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.base import FactorFamily


@dataclasses.dataclass(frozen=True)
class Unstructured(FactorFamily):
    """θ is the lower triangle of Λ by columns, as in lme4 (Bates et al. 2015, doi:10.18637/jss.v067.i01)."""

    name = "us"
    basis = "triangular"

    def entries(self, q: int) -> tuple[tuple[int, int], ...]:
        variances = [(j, j) for j in range(q)]
        return (*variances, *((i, j) for j in range(q) for i in range(j + 1, q)))

    def factor(self, theta: Array, q: int) -> Array:
        cols, rows = np.triu_indices(q)
        units = np.zeros((len(rows), q, q))
        units[np.arange(len(rows)), rows, cols] = 1.0
        xp = namespace(theta)
        return xp.tensordot(theta, xp.asarray(units, theta.dtype), axes=1)

    def params(self, factor: Array) -> Array:
        cols, rows = np.triu_indices(factor.shape[0])
        return factor[rows, cols]
