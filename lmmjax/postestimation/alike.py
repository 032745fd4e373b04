"""Responses of a batch that have rows, weights and fixed effects in common: one model for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property

import jax
import numpy as np

from lmmjax.arrays.sparse_columns import CHUNK, SparseColumns, complete_columns
from lmmjax.fitted import Fitted, FittedMany, ModelData


@dataclasses.dataclass(frozen=True, eq=False)
class Alike:
    """Some of the responses that have a fit.

    Attributes
    ----------
    fits : all responses; which : (t,) positions of these.
    rows : (n,) which rows of the model they have; weights : (n,) of their own, or None.
    columns : (p,) positions of the fixed effects that they determine.
    """

    fits: FittedMany
    which: np.ndarray
    rows: np.ndarray
    weights: np.ndarray | None
    columns: np.ndarray

    @property
    def whole(self) -> bool:
        """Whether theirs is the design of the model."""
        return self.weights is None and bool(self.rows.all())

    @cached_property
    def data(self) -> ModelData:
        """The model on their rows; it keeps levels that have none there."""
        own = self.fits.data
        return own if self.whole else own.subset(self.rows, self.weights, self.columns)

    def fit(self, j: int) -> Fitted:
        """The fit of the response at position j, as `fitted.one_of_many` gives it."""
        estimate, at = jax.tree.map(lambda a: np.asarray(a)[j], self.fits.estimate), self.columns
        estimate = dataclasses.replace(
            estimate, beta=estimate.beta[at], cov_beta=estimate.cov_beta[np.ix_(at, at)]
        )
        y = self.fits.y[self.rows, j]
        return Fitted(self.data, y, estimate, self.fits.reml, str(self.fits.names[j]))

    def some(self, which: np.ndarray) -> Alike:
        """Those at some of the positions, of the same model."""
        out = dataclasses.replace(self, which=which)
        out.__dict__.update({"data": self.data})
        return out


def alike(fits: FittedMany) -> Iterator[Alike]:
    """The responses that have a fit, those with the design of the model first."""
    fitted = np.isfinite(fits.estimate.psi).all(axis=1)
    n, p = len(fits.y), fits.data.design.p
    whole = complete_columns(fits.y) & fits.kept.all(axis=1) & (fits.weights is None)
    if len(which := np.flatnonzero(fitted & whole)):
        own = Alike(fits, which, np.ones(n, bool), None, np.arange(p))
        yield from (own.some(which[part]) for part in _rooms(fits, len(which)))
    found: dict[bytes, list[int]] = {}
    for j in np.flatnonzero(fitted & ~whole):
        missing = np.isnan(fits.y[:, j])
        own = ~missing if fits.weights is None else np.where(missing, 0.0, fits.weights[:, j])
        found.setdefault(own.tobytes() + fits.kept[j].tobytes(), []).append(int(j))
    for those in found.values():
        weights = None if fits.weights is None else fits.weights[:, those[0]]
        rows = ~np.isnan(fits.y[:, those[0]]) & (True if weights is None else weights > 0)
        yield Alike(fits, np.array(those), rows, weights, np.flatnonzero(fits.kept[those[0]]))


def _rooms(fits: FittedMany, count: int) -> list[slice]:
    """All of `count` responses or, of sparse ones, as many at a time as may be made dense."""
    size = max(1, CHUNK // len(fits.y)) if isinstance(fits.y, SparseColumns) else count
    return [slice(first, first + size) for first in range(0, count, size)]
