"""Toeplitz: one correlation for every distance between columns in their order."""

from __future__ import annotations

import dataclasses

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.autocorrelation import from_partial, to_partial
from lmmjax.covariance.parameter import Parameter
from lmmjax.covariance.patterned import Patterned, lags, mean_by_lag


@dataclasses.dataclass(frozen=True)
class Toeplitz(Patterned):
    """Correlation c(|i − j|); θ are arcsines of partial autocorrelations, so that C is positive definite."""

    @property
    def name(self) -> str:
        return "toep" if self.heterogeneous else "homtoep"

    @property
    def within(self) -> frozenset[str]:
        return frozenset({"us"} if self.heterogeneous else {"us", "toep"})

    @property
    def covariances(self) -> bool:
        return not self.heterogeneous

    def correlations(self, q: int) -> tuple[Parameter, ...]:
        return tuple(Parameter(f"cor{k}", "interval", (0.1,)) for k in range(1, q))

    def correlation(self, r: Array, q: int) -> Array:
        xp = namespace(r)
        return xp.concatenate([xp.ones_like(r[:1]) if q > 1 else xp.ones(1, r.dtype), r])[lags(q)]

    def fitted(self, correlation: Array) -> Array:
        q = correlation.shape[0]
        if q == 1:
            return correlation[0, :0]
        return namespace(correlation).stack([mean_by_lag(correlation, k) for k in range(1, q)])

    def decode(self, theta: Array, q: int) -> Array:
        xp, k = namespace(theta), self._count(q)
        return xp.concatenate([theta[:k] ** 2, from_partial(xp.sin(theta[k:]))[0]])

    def encode(self, a: Array, q: int) -> Array:
        xp, k = namespace(a), self._count(q)
        partial = xp.clip(to_partial(a[k:]), -1.0, 1.0)
        return xp.concatenate([xp.sqrt(xp.maximum(a[:k], 0.0)), xp.arcsin(partial)])
