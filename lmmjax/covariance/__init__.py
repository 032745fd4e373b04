"""Covariance families of the random effects, by the name used in formulas."""

from __future__ import annotations

from lmmjax.covariance.base import CovarianceFamily
from lmmjax.covariance.diagonal import Diagonal
from lmmjax.covariance.structure import Structure, TermStructure
from lmmjax.covariance.unstructured import Unstructured

FAMILIES: dict[str, CovarianceFamily] = {family.name: family for family in (Unstructured(), Diagonal())}


def family(name: str) -> CovarianceFamily:
    """The registered family called `name`; ValueError lists the names there are."""
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"unknown covariance structure {name!r}; the known ones are: {known}")
    return FAMILIES[name]


__all__ = ["FAMILIES", "CovarianceFamily", "Diagonal", "Structure", "TermStructure", "Unstructured", "family"]
