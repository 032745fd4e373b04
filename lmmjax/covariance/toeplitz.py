"""Toeplitz: one correlation for every distance between columns at their places."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.autocorrelation import from_partial, to_partial
from lmmjax.covariance.parameter import Parameter
from lmmjax.covariance.patterned import Placed, mean_at

LONGEST = 60
"""Distance from which there are too many."""

FEW = 8
"""Distances up to which signs of partial autocorrelations are tried."""


@dataclasses.dataclass(frozen=True)
class Toeplitz(Placed):
    """Correlation c(|t − t′|) of columns at places t.

    θ are arcsines of partial autocorrelations, so that C is positive definite.
    """

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
        lags = range(1, self._longest(q) + 1)
        return tuple(Parameter(f"cor{k}", "interval", (0.1,)) for k in lags)

    def far(self, q: int) -> tuple[tuple[float, np.ndarray], ...]:
        k = np.arange(self._longest(q))
        decaying, zero = 0.6 ** (k + 1.0), np.zeros(len(k))
        if len(k) < 2:
            return tuple((v, zero + end) for v in (0.03, 30.0) for end in (0.95, -0.95))
        starts = ((1.0, decaying), (0.03, zero), (30.0, zero + 0.9))
        if len(k) > FEW:
            # partial autocorrelations that do not fade would all but make a singular matrix
            return (*starts, (30.0, decaying), (30.0, (-0.6) ** (k + 1.0)))
        up, down = zero + 0.7, zero - 0.7
        signs = [(30.0, np.where(k % 3 < 2, down, up)), (30.0, up), (30.0, np.where(k % 2, down, up))]
        signs += [(0.03, up), (0.03, down)]
        return (*starts, *((v, from_partial(partial)[0]) for v, partial in signs))

    def correlation(self, r: Array, q: int) -> Array:
        xp = namespace(r)
        return xp.concatenate([xp.ones_like(r[:1]) if len(r) else xp.ones(1, r.dtype), r])[self.lags(q)]

    def fitted(self, correlation: Array) -> Array:
        lags, out = self.lags(correlation.shape[0]), correlation[0, :0]
        xp = namespace(correlation)
        for lag in range(1, self._longest(len(lags)) + 1):
            if np.any(lags == lag):
                last = mean_at(correlation, lags, lag)[None]
            else:
                # where nothing was seen, the partial autocorrelation is zero
                last = from_partial(xp.concatenate([to_partial(out), xp.zeros_like(correlation[0, :1])]))[0][
                    -1:
                ]
            out = xp.concatenate([out, last])
        return out

    def check(self, q: int, name: str) -> None:
        super().check(q, name)
        if self._longest(q) >= LONGEST:
            raise ValueError(
                f"{name}: the columns span {self._longest(q)} steps of their common divisor, each distance a "
                "parameter: number the occasions, or use ar1"
            )

    def _longest(self, q: int) -> int:
        return int(np.max(self.lags(q), initial=0))

    def decode(self, theta: Array, q: int) -> Array:
        xp, k = namespace(theta), self._count(q)
        return xp.concatenate([super().decode(theta, q)[:k], from_partial(xp.sin(theta[k:]))[0]])

    def encode(self, a: Array, q: int) -> Array:
        xp, k = namespace(a), self._count(q)
        partial = xp.clip(to_partial(a[k:]), -1.0, 1.0)
        return xp.concatenate([super().encode(a, q)[:k], xp.arcsin(partial)])
