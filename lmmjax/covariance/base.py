"""What a covariance family is."""

from __future__ import annotations

import abc
import dataclasses

from lmmjax._types import Array


@dataclasses.dataclass(frozen=True)
class CovarianceFamily(abc.ABC):
    """Family of q × q relative covariance matrices D(θ) = Λ(θ)Λ(θ)ᵀ of one random-effects term.

    θ is unconstrained and every θ is valid: a singular D is an interior point. `basis` says which
    changes of the columns of Z map the family onto itself: "triangular" (z → z b for any lower
    triangular b), "diagonal" (scales) or "scalar" (one common scale).
    """

    name = ""
    basis = "scalar"

    @abc.abstractmethod
    def n_params(self, q: int) -> int:
        """Length of θ."""

    @abc.abstractmethod
    def entries(self, q: int) -> tuple[tuple[int, int], ...]:
        """Positions (i, j), i ≥ j, of the free entries of D, variances first: the order of `varcorr()`."""

    @abc.abstractmethod
    def factor(self, theta: Array, q: int) -> Array:
        """Λ (q, q) lower triangular."""

    @abc.abstractmethod
    def params(self, factor: Array) -> Array:
        """θ of the member of the family nearest to a lower triangular Λ: the inverse of `factor`."""
