"""Compound symmetry: one correlation between any two coefficients."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.parameter import Parameter
from lmmjax.covariance.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class CompoundSymmetry(Patterned):
    """Correlation ρ in (−1/(q − 1), 1)."""

    @property
    def name(self) -> str:
        return "cs" if self.heterogeneous else "homcs"

    columns = "alike"

    @property
    def within(self) -> frozenset[str]:
        return frozenset({"us", "toep"} if self.heterogeneous else {"us", "cs", "toep", "homtoep"})

    @property
    def covariances(self) -> bool:
        return not self.heterogeneous

    def correlations(self, q: int) -> tuple[Parameter, ...]:
        lower = -1.0 / max(q - 1, 1)
        return (Parameter("rho", "interval", (0.1,), lower, 1.0),)

    def far(self, q: int) -> tuple[tuple[float, np.ndarray], ...]:
        low = -1.0 / max(q - 1, 1)
        return tuple((v, np.array([0.95 * end])) for v, end in ((0.03, 1.0), (0.03, low), (30.0, 1.0)))

    def correlation(self, r: Array, q: int) -> Array:
        eye = namespace(r).eye(q, dtype=r.dtype)
        return eye + r[0] * (1.0 - eye)

    def fitted(self, correlation: Array) -> Array:
        q = correlation.shape[0]
        xp = namespace(correlation)
        return (xp.sum(correlation) - xp.sum(xp.diagonal(correlation)))[None] / (q * (q - 1))
