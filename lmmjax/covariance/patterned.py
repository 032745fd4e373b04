"""Covariances with a correlation matrix of few parameters: one variance for all columns, or one for each."""

from __future__ import annotations

import abc
import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance.base import CovarianceFamily
from lmmjax.covariance.parameter import Parameter, variance


@dataclasses.dataclass(frozen=True)
class Patterned(CovarianceFamily):
    """D_ij = √(v_i v_j) c_ij(r); a stacks the variances v and the correlations r.

    Attributes
    ----------
    heterogeneous : whether every column has a variance of its own.
    """

    heterogeneous: bool = False

    @abc.abstractmethod
    def correlations(self, q: int) -> tuple[Parameter, ...]:
        """The parameters r of the correlation matrix."""

    @abc.abstractmethod
    def correlation(self, r: Array, q: int) -> Array:
        """C (q, q)."""

    @abc.abstractmethod
    def fitted(self, correlation: Array) -> Array:
        """r of a member near a correlation matrix."""

    def parameters(self, q: int) -> tuple[Parameter, ...]:
        variances = tuple(variance(j) for j in range(q)) if self.heterogeneous else (variance(None, True),)
        return (*variances, *self.correlations(q))

    def starts(self, q: int) -> tuple[np.ndarray, ...]:
        prior = np.array([p.starts[0] for p in self.parameters(q)])
        ends = (np.r_[np.full(self._count(q), v), r] for v, r in self.far(q))
        return prior, *ends

    def far(self, q: int) -> tuple[tuple[float, np.ndarray], ...]:
        """Variances, relative to σ², and correlations r that starts beside the prior have.

        Optima that others miss have a variance of zero and correlations at an end of their range. They are
        reached from that end, where the variances are off the optimum to the side from which descents come
        in that family: found by trial of a grid of sizes and correlations (`benchmarks/workloads/random.py`).
        """
        return ()

    def _count(self, q: int) -> int:
        return q if self.heterogeneous else 1

    def matrix(self, a: Array, q: int) -> Array:
        xp, k = namespace(a), self._count(q)
        c = self.correlation(a[k:], q)
        if not self.heterogeneous:
            return a[0] * c
        positive = a[:k] > 0
        # no derivative of the root at zero
        sd = xp.where(positive, xp.sqrt(xp.where(positive, a[:k], 1.0)), 0.0)
        return sd[:, None] * sd[None, :] * c

    def natural(self, matrix: Array) -> Array:
        xp = namespace(matrix)
        v = matrix[np.arange(len(matrix)), np.arange(len(matrix))]
        sd = xp.sqrt(xp.where(v > 0, v, 1.0))
        r = self.fitted(matrix / (sd[:, None] * sd[None, :]))
        return xp.concatenate([v if self.heterogeneous else xp.mean(v)[None], r])

    def check(self, q: int, name: str) -> None:
        if q < 2 and self.correlations(2):
            raise ValueError(f"{name}: a correlation needs at least two columns; write us or a plain bar")


@dataclasses.dataclass(frozen=True)
class Placed(Patterned):
    """A family that reads distances of its columns.

    Attributes
    ----------
    places : where the columns are, whole numbers with gaps where nothing was seen; None for 0, 1, ….
    """

    columns = "ordered"
    places: tuple[int, ...] | None = None

    def at(self, places: tuple[int, ...] | None) -> Placed:
        return dataclasses.replace(self, places=places)

    def lags(self, q: int) -> np.ndarray:
        """Distances (q, q) of the columns."""
        places = np.arange(q) if self.places is None else np.array(self.places[:q], dtype=int)
        return np.abs(places[:, None] - places[None, :])


def mean_at(correlation: Array, lags: np.ndarray, lag: int) -> Array:
    """Mean of the correlations of columns at a distance."""
    pairs = np.argwhere(np.tril(lags == lag))
    return sum(correlation[i, j] for i, j in pairs) / len(pairs)
