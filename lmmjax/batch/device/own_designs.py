"""Many responses with weights or missing values of their own on devices: masks and products are made there.

The products are those of `gram.grouped.own_weights`, traced. Responses of which sums would lose digits are
formed by the host, and put among the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from lmmjax.arrays import Array
from lmmjax.arrays.sparse_columns import Columns
from lmmjax.batch.device.descent import fit_on_devices
from lmmjax.batch.device.lanes import varying
from lmmjax.batch.device.rows import Handed, replaced
from lmmjax.batch.device.transfer import move, to_all
from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import in_x64
from lmmjax.batch.outcome import Outcome, outcome
from lmmjax.batch.sources import own_problem, own_products
from lmmjax.core import Problem, ProblemMaker

KEPT = 4
"""Times the rows of a response that `Place.block` counts: weights, their roots, masks and products too."""


class OwnRows:
    """The rows of a design on devices: makes the problems of blocks of responses that have weights."""

    def __init__(self, maker: ProblemMaker, devices: tuple[Any, ...]):
        self.products, self.devices = own_products(maker), devices
        self.formed = Handed(self._formed, devices)

    def __call__(
        self, y: Columns, w: np.ndarray | None, lanes: int, reml: bool
    ) -> tuple[Problem, tuple[Array, ...]]:
        """The problem of responses y (n, ≤ lanes × devices), filled up, with weights w or of 0 and 1.

        Nothing is waited for. Also which lose digits by sums, which are finite, and which are estimable.
        """
        total, own = lanes * len(self.devices), self.products
        rows = [move(a, total, self.devices) for a in (y, w) if a is not None]
        (shared, response, origin, basis, n), flags = self.formed(lanes, *rows)
        kappa = to_all(np.asarray(float(reml)), self.devices)
        known = None if own.known is None else to_all(np.asarray(own.known), self.devices)
        return Problem(shared, response, origin, basis, n, kappa, own.structure, known), flags

    def _formed(self, y: Array, w: Array | None = None) -> tuple[tuple, tuple[Array, ...]]:
        y, w = (None if a is None else a[self.products.order] for a in (y, w))
        made = self.products.formed(y, w)
        return self.products.records(made.products), (made.inexact, made.finite, made.fine)


def own_on_devices(
    place: Place,
    maker: ProblemMaker,
    y: Columns,
    w: np.ndarray | None,
    reml: bool,
    max_iter: int,
    points: list[np.ndarray | None],
    dtype: Any,
    vector: int,
) -> tuple[Outcome, np.ndarray, np.ndarray]:
    """Fits of the columns of y (n, T) from `points`, which of them are finite, and which estimable (T,).

    Parameters
    ----------
    w : (n, T) weights, or None: a value that is missing has none.
    vector : numbers that are kept of a response.
    """
    n, total = y.shape
    lanes = place.block(total, KEPT * n, vector)
    rows = in_x64(own_rows_of)(maker, place.devices)
    finite, estimable = np.ones(total, bool), np.ones(total, bool)

    def block(part: slice, lanes: int) -> Callable[[], Problem]:
        values, weights = y[:, part], None if w is None else w[:, part]
        problem, flags = rows(values, weights, lanes, reml)

        def ready() -> Problem:
            inexact, finite[part], estimable[part] = (np.asarray(a)[: values.shape[1]] for a in flags)
            again = np.flatnonzero(inexact & finite[part])
            if not len(again):
                return problem
            some = np.asarray(values[:, again])
            own = np.ones_like(some) if weights is None else weights[:, again]
            made, _, fine = own_problem(rows.products, some, own, reml)
            estimable[part.start + again] = fine
            return replaced(problem, varying(made), again, lanes, place.devices)

        return ready

    found = fit_on_devices(place, total, lanes, block, max_iter, points, dtype)
    return outcome(*found, len(points)), finite, estimable


def own_rows_of(maker: ProblemMaker, devices: tuple[Any, ...]) -> OwnRows:
    """The rows of a maker on devices; kept while the maker is."""
    known = _kept.setdefault(maker, {})
    if devices not in known:
        known[devices] = OwnRows(maker, devices)
    return known[devices]


_kept: WeakKeyDictionary[ProblemMaker, dict[tuple, OwnRows]] = WeakKeyDictionary()
