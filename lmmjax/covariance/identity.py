"""Scaled identity: independent random coefficients with one variance."""

from __future__ import annotations

import dataclasses

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.parameter import Parameter
from lmmjax.covariance.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class ScaledIdentity(Patterned):
    """D = v I."""

    name = "homdiag"
    columns = "alike"
    within = frozenset({"us", "diag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep"})

    def correlations(self, q: int) -> tuple[Parameter, ...]:
        return ()

    def correlation(self, r: Array, q: int) -> Array:
        return namespace(r).eye(q, dtype=r.dtype)

    def fitted(self, correlation: Array) -> Array:
        return correlation[0, :0]
