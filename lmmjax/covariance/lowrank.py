"""Reduced rank and factor-analytic covariance, as glmmTMB's rr and ASReml's fa."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace, psd_cholesky
from lmmjax.covariance.base import CovarianceFamily
from lmmjax.covariance.parameter import Parameter, variance


@dataclasses.dataclass(frozen=True)
class LowRank(CovarianceFamily):
    """D = LLᵀ + diag(u), L (q, rank) zero above its diagonal; without u for reduced rank.

    The signs of the columns of L are not determined; the diagonal of L is reported positive.

    Source: Hui et al. (2015), doi:10.1111/2041-210X.12236; Smith, Cullis & Thompson (2001),
    doi:10.1111/j.0006-341X.2001.01138.x.
    """

    rank: int = 2
    specific: bool = False

    @property
    def name(self) -> str:
        return "fa" if self.specific else "rr"

    @property
    def columns(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        # specific variances belong to levels
        return "levels" if self.specific else "any"

    def parameters(self, q: int) -> tuple[Parameter, ...]:
        own = tuple(variance(j, True) for j in range(q)) if self.specific else ()
        rows, columns = self._positions(q)
        loadings = tuple(
            # unlike starts, as the criterion is stationary where loadings vanish together
            Parameter(f"loading{j + 1}.{i + 1}", "real", (1.0 if i == j else 0.1 / (1 + i + j),), power=0.5)
            for i, j in zip(rows, columns, strict=True)
        )
        return (*own, *loadings)

    def _positions(self, q: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the free entries of L, column after column."""
        columns, rows = np.triu_indices(min(self.rank, q), m=q)
        return rows, columns

    def matrix(self, a: Array, q: int) -> Array:
        xp, own = namespace(a), q if self.specific else 0
        rows, columns = self._positions(q)
        units = np.zeros((len(rows), q, self.rank))
        units[np.arange(len(rows)), rows, columns] = 1.0
        loadings = xp.tensordot(a[own:], xp.asarray(units, dtype=a.dtype), axes=1)
        low = loadings @ loadings.T
        return low + xp.diag(a[:q]) if self.specific else low

    def natural(self, matrix: Array) -> Array:
        xp, q = namespace(matrix), matrix.shape[0]
        rows, columns = self._positions(q)
        loadings = psd_cholesky(matrix, 1e-13)[:, : self.rank][rows, columns].astype(matrix.dtype)
        if not self.specific:
            return loadings
        diagonal = xp.diagonal(matrix)
        return xp.concatenate([0.5 * diagonal, loadings * np.sqrt(0.5)])

    def margin(self, theta: Array, q: int) -> Array:
        # D of reduced rank is singular by construction; zero specific variances are not
        xp = namespace(theta)
        return xp.min(xp.abs(theta[:q])) if self.specific else xp.max(xp.abs(theta))

    def encode(self, a: Array, q: int) -> Array:
        xp, own = namespace(a), q if self.specific else 0
        rows, columns = self._positions(q)
        lead = np.array([int(np.flatnonzero((rows == j) & (columns == j))[0]) for j in columns])
        loadings = a[own:]
        signs = xp.where(loadings[lead] < 0, -1.0, 1.0).astype(a.dtype)
        return xp.concatenate([xp.sqrt(xp.maximum(a[:own], 0.0)), signs * loadings])

    def folded(self, theta: Array, q: int) -> Array:
        return self.encode(self.decode(theta, q), q)

    def check(self, q: int, name: str) -> None:
        if not 1 <= self.rank <= q:
            raise ValueError(f"{name}: rank {self.rank} for {q} columns; choose a rank from 1 to {q}")
