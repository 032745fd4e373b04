"""Diagonal covariance: independent random coefficients."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.base import FactorFamily


@dataclasses.dataclass(frozen=True)
class Diagonal(FactorFamily):
    """θ is the diagonal of Λ: relative standard deviations up to sign."""

    name = "diag"
    basis = "diagonal"
    within = frozenset({"us", "cs", "hetar1", "toep"})

    def entries(self, q: int) -> tuple[tuple[int, int], ...]:
        return tuple((j, j) for j in range(q))

    def factor(self, theta: Array, q: int) -> Array:
        return theta[:, None] * namespace(theta).eye(q, dtype=theta.dtype)

    def margins(self, theta: Array, q: int) -> Array:
        return namespace(theta).abs(theta)

    def params(self, factor: Array) -> Array:
        return factor[np.arange(factor.shape[0]), np.arange(factor.shape[0])]
