"""What a covariance family of random effects is."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import numpy as np

from lmmjax.arrays import Array, diagonal, namespace, psd_cholesky
from lmmjax.covariance.parameter import Parameter, each, variance


@dataclasses.dataclass(frozen=True)
class CovarianceFamily(abc.ABC):
    """Family of q × q relative covariance matrices D(a) of one random-effects term.

    a (m,) are its natural parameters, relative to σ²: variances, covariances, correlations, loadings. θ (m,)
    is unconstrained and every θ is valid: a singular D is an interior point. `basis` says which changes of
    the columns of Z map the family onto itself: "triangular" (z → z b for any lower triangular b), "diagonal"
    (scales) or "scalar" (one common scale). In a `linear` family a are the free entries of D.
    """

    name = ""
    basis = "scalar"
    linear = False
    within: ClassVar[frozenset[str]] = frozenset()
    """Names of the families that contain this one, with parameters inside their range."""
    columns: ClassVar[str] = "any"
    """What columns D is meant for, so that it does not depend on the coding of a factor: "any"; "levels" of a
    factor, without an intercept; "alike", such levels or the columns of one basis; "ordered" levels."""

    @property
    def covariances(self) -> bool:
        """Whether D is linear in its one variance and the covariances, this times the other parameters."""
        return False

    @abc.abstractmethod
    def parameters(self, q: int) -> tuple[Parameter, ...]:
        """The natural parameters, variances first: the order of `varcorr()`."""

    @abc.abstractmethod
    def matrix(self, a: Array, q: int) -> Array:
        """D (q, q)."""

    @abc.abstractmethod
    def natural(self, matrix: Array) -> Array:
        """a of a member of the family near D (q, q); D itself if it is one."""

    def starts(self, q: int) -> tuple[np.ndarray, ...]:
        """a (m,) to descend from, one for every kind of optimum that is known to occur, the prior first."""
        starts = [p.starts for p in self.parameters(q)]
        count = max((len(own) for own in starts), default=1)
        return tuple(np.array([own[min(k, len(own) - 1)] for own in starts]) for k in range(count))

    def at(self, places: tuple[int, ...] | None) -> CovarianceFamily:
        """The family with its columns at `places`, whole numbers; at 0, 1, … if None."""
        return self

    def n_params(self, q: int) -> int:
        """m."""
        return len(self.parameters(q))

    def decode(self, theta: Array, q: int) -> Array:
        """a (m,) from θ (m,)."""
        return each(self.parameters(q), theta, "decode")

    def encode(self, a: Array, q: int) -> Array:
        """θ (m,) from a (m,)."""
        return each(self.parameters(q), a, "encode")

    def folded(self, theta: Array, q: int) -> Array:
        """`encode` of `decode`, without a loss of digits."""
        return each(self.parameters(q), theta, "folded")

    def margin(self, theta: Array, q: int) -> Array:
        """Distance from the boundary, where a variance is 0 or a correlation at the end of its range."""
        return namespace(theta).min(each(self.parameters(q), theta, "margin"))

    def margins(self, theta: Array, q: int) -> Array:
        """The same a parameter: how far those are that its information depends on."""
        return namespace(theta).broadcast_to(self.margin(theta, q), (self.n_params(q),))

    def check(self, q: int, name: str) -> None:  # noqa: B027  nothing to check by default
        """Raise ValueError if q columns are too few for the family."""


@dataclasses.dataclass(frozen=True)
class FactorFamily(CovarianceFamily):
    """A family whose θ are the free entries of the Cholesky factor Λ of D = ΛΛᵀ."""

    linear = True

    @abc.abstractmethod
    def entries(self, q: int) -> tuple[tuple[int, int], ...]:
        """Positions (i, j), i ≥ j, of the free entries of D, variances first."""

    @abc.abstractmethod
    def factor(self, theta: Array, q: int) -> Array:
        """Λ (q, q) lower triangular."""

    @abc.abstractmethod
    def params(self, factor: Array) -> Array:
        """θ of the member of the family nearest to a lower triangular Λ: the inverse of `factor`."""

    def parameters(self, q: int) -> tuple[Parameter, ...]:
        return tuple(
            variance(i, True) if i == j else Parameter("covariance", "real", (0.0,), power=1.0)
            for i, j in self.entries(q)
        )

    def units(self, q: int) -> np.ndarray:
        """The symmetric unit matrices E (m, q, q) with D = Σ a_c E_c."""
        units = np.zeros((len(self.entries(q)), q, q))
        for c, (i, j) in enumerate(self.entries(q)):
            units[c, i, j] = units[c, j, i] = 1.0
        return units

    def matrix(self, a: Array, q: int) -> Array:
        xp = namespace(a)
        return xp.tensordot(a, xp.asarray(self.units(q), dtype=a.dtype), axes=1)

    def natural(self, matrix: Array) -> Array:
        q = matrix.shape[0]
        rows, columns = (np.array([pair[k] for pair in self.entries(q)]) for k in (0, 1))
        return matrix[rows, columns]

    def decode(self, theta: Array, q: int) -> Array:
        factor = self.factor(theta, q)
        return self.natural(factor @ factor.T)

    def encode(self, a: Array, q: int) -> Array:
        return self.params(psd_cholesky(self.matrix(a, q), 1e-15)).astype(a.dtype)

    def margin(self, theta: Array, q: int) -> Array:
        xp = namespace(theta)
        return xp.min(xp.abs(diagonal(self.factor(theta, q))))
