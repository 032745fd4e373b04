"""First-order autoregression over the columns in their order."""

from __future__ import annotations

import dataclasses

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.parameter import Parameter
from lmmjax.covariance.patterned import Patterned, lags, mean_by_lag


@dataclasses.dataclass(frozen=True)
class Autoregressive(Patterned):
    """Correlation ρ^|i − j|."""

    @property
    def name(self) -> str:
        return "hetar1" if self.heterogeneous else "ar1"

    @property
    def within(self) -> frozenset[str]:
        return frozenset({"us", "toep"} if self.heterogeneous else {"us", "hetar1", "toep", "homtoep"})

    def correlations(self, q: int) -> tuple[Parameter, ...]:
        return (Parameter("phi", "interval", (0.3, 0.8, -0.3)),)

    def correlation(self, r: Array, q: int) -> Array:
        xp = namespace(r)
        powers = [xp.ones_like(r[0])]
        for _ in range(q - 1):
            powers.append(powers[-1] * r[0])
        return xp.stack(powers)[lags(q)]

    def fitted(self, correlation: Array) -> Array:
        return mean_by_lag(correlation, 1)[None]
