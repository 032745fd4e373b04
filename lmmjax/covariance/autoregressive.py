"""First-order autoregression over the columns at their places."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.parameter import Parameter
from lmmjax.covariance.patterned import Placed, mean_at

FEW = 16
"""Steps between neighbours up to which the correlation of one step is what is worked on."""


@dataclasses.dataclass(frozen=True)
class Autoregressive(Placed):
    """Correlation ρ^|t − t′| of columns at places t.

    Where neighbours are many steps apart, u of them, the parameter is the correlation at that distance, with
    the sign of ρ.
    """

    @property
    def name(self) -> str:
        return "hetar1" if self.heterogeneous else "ar1"

    @property
    def within(self) -> frozenset[str]:
        return frozenset({"us", "toep"} if self.heterogeneous else {"us", "hetar1", "toep", "homtoep"})

    @property
    def _gap(self) -> int:
        """Median distance of neighbours."""
        return 1 if self.places is None else int(np.median(np.diff(np.sort(self.places))))

    @property
    def _steps(self) -> int:
        return self._gap if self._gap > FEW else 1

    def correlations(self, q: int) -> tuple[Parameter, ...]:
        start = (self._of_neighbours(0.3),)
        if self.places is None:
            return (Parameter("phi", "interval", start),)
        return (Parameter("phi", "interval", start, scale="rate", steps=float(self._steps)),)

    def _of_neighbours(self, c: float) -> float:
        """The parameter where neighbours have the correlation c."""
        return float(np.sign(c) * abs(c) ** (self._steps / self._gap))

    def far(self, q: int) -> tuple[tuple[float, np.ndarray], ...]:
        found = ((1.0, 0.95), (0.1, 0.05), (0.1, -0.8), (0.01, -0.95))
        return tuple((v, np.array([self._of_neighbours(c)])) for v, c in found)

    def correlation(self, r: Array, q: int) -> Array:
        xp, lags = namespace(r), self.lags(q)
        found, at = np.unique(np.append(lags.ravel(), 0), return_inverse=True)
        at = at[:-1].reshape(lags.shape)
        if self._steps > 1:
            # at zero second derivatives of |ρ|⁰ and |ρ|¹ would be 0 · ∞
            base = xp.abs(r[0]) + xp.where(r[0] == 0.0, 1e-30, 0.0).astype(r.dtype)
            size = xp.power(base, xp.asarray(found / self._steps, dtype=r.dtype))
            sign = xp.asarray(1.0 - 2.0 * (found % 2), dtype=r.dtype)
            return xp.where(r[0] < 0, sign * size, size)[at]
        return xp.stack(_powers(r[0], found))[at]

    def fitted(self, correlation: Array) -> Array:
        xp, lags = namespace(correlation), self.lags(correlation.shape[0])
        least = int(np.min(lags[lags > 0]))
        mean = mean_at(correlation, lags, least)
        if least == self._steps:
            return mean[None]
        return (xp.sign(mean) * xp.power(xp.abs(mean), self._steps / least))[None]


def _powers(base: Array, lags: np.ndarray) -> list[Array]:
    """base^lag for lags in ascending order, the first of them 0, by multiplication."""
    out = [namespace(base).ones_like(base)]
    for gap in np.diff(lags):
        factor, square, left = None, base, int(gap)
        while left:
            if left % 2:
                factor = square if factor is None else factor * square
            left //= 2
            square = square * square if left else square
        out.append(out[-1] * factor)
    return out
