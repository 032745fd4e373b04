"""Covariance families of the random effects, by the name used in formulas."""

from __future__ import annotations

from collections.abc import Callable

from lmmjax.covariance.autoregressive import Autoregressive
from lmmjax.covariance.base import CovarianceFamily, FactorFamily
from lmmjax.covariance.compound import CompoundSymmetry
from lmmjax.covariance.diagonal import Diagonal
from lmmjax.covariance.identity import ScaledIdentity
from lmmjax.covariance.lowrank import LowRank
from lmmjax.covariance.parameter import Parameter, each
from lmmjax.covariance.toeplitz import Toeplitz
from lmmjax.covariance.unstructured import Unstructured

FAMILIES: dict[str, Callable[..., CovarianceFamily]] = {
    "us": Unstructured,
    "diag": Diagonal,
    "homdiag": ScaledIdentity,
    "cs": lambda: CompoundSymmetry(True),
    "homcs": lambda: CompoundSymmetry(False),
    "ar1": lambda: Autoregressive(False),
    "hetar1": lambda: Autoregressive(True),
    "toep": lambda: Toeplitz(True),
    "homtoep": lambda: Toeplitz(False),
    "rr": lambda rank="2": LowRank(_rank(rank), False),
    "fa": lambda rank="1": LowRank(_rank(rank), True),
}
"""Makers of the families; what follows the bar, as in rr(f | g, 2), is passed on as strings."""


def family(name: str, *args: str) -> CovarianceFamily:
    """The registered family called `name`; ValueError lists the names there are."""
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"unknown covariance structure {name!r}; the known ones are: {known}")
    try:
        return FAMILIES[name](*args)
    except TypeError:
        raise ValueError(
            f"covariance structure {name!r} does not take {', '.join(args)}: leave it out"
        ) from None


def _rank(text: str) -> int:
    try:
        return int(str(text).split("=")[-1])
    except ValueError:
        raise ValueError(f"the rank must be a whole number, not {text!r}, as in rr(f | g, 2)") from None


__all__ = [
    "FAMILIES",
    "CovarianceFamily",
    "FactorFamily",
    "Parameter",
    "Unstructured",
    "each",
    "family",
]
