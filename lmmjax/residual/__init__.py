"""Residual structures: correlations within groups and variance functions."""

from __future__ import annotations

from lmmjax.residual.autoregressive import AR1, CAR1
from lmmjax.residual.base import (
    Correlation,
    KnownVariance,
    Residual,
    Space,
    Variance,
    as_residual,
)
from lmmjax.residual.occasions import ARMA, CompoundSymmetry, Toeplitz
from lmmjax.residual.spatial import Exponential, Gaussian, Matern32, Matern52
from lmmjax.residual.structure import ResidualStructure
from lmmjax.residual.units import classes, factors, units_of
from lmmjax.residual.unstructured import Symmetric, Unstructured
from lmmjax.residual.variances import VarExp, VarIdent, VarPower

CORRELATIONS: dict[str, type[Correlation]] = {
    family.name: family
    for family in (
        AR1,
        CAR1,
        Exponential,
        Gaussian,
        Matern32,
        Matern52,
        CompoundSymmetry,
        Toeplitz,
        Unstructured,
        Symmetric,
        ARMA,
    )
}
VARIANCES: dict[str, type[Variance]] = {family.name: family for family in (VarIdent, VarPower, VarExp)}

__all__ = [
    "CORRELATIONS",
    "VARIANCES",
    *CORRELATIONS,
    *VARIANCES,
    "Correlation",
    "KnownVariance",
    "Residual",
    "ResidualStructure",
    "Space",
    "Variance",
    "as_residual",
    "classes",
    "factors",
    "units_of",
]
