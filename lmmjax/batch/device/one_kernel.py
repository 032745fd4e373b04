"""Fits of one kernel on devices: rotated and searched there; records of these are the host's.

A response brings some forty numbers to the host, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.arrays.sparse_columns import Columns
from lmmjax.batch.device.lanes import on_lanes, packed, unpacked
from lmmjax.batch.device.pipeline import through_blocks
from lmmjax.batch.device.rows import Handed
from lmmjax.batch.device.transfer import move
from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import in_x64
from lmmjax.batch.outcome import Outcome, outcome
from lmmjax.core import ProblemMaker
from lmmjax.core.problem import make_lanes
from lmmjax.core.spectral.fit import all_records, spectral_data
from lmmjax.core.spectral.gap_lanes import RowLanes
from lmmjax.core.spectral.lanes import Lanes, points_of, search_lanes
from lmmjax.design import Origin
from lmmjax.gram.spectral.products import SpectralResponse

GRID = 160
"""Points of the grid of ratios, more or less: numbers that a response takes beside its eigenvalues."""


class OneKernel:
    """A design of one kernel on devices: the search for the responses of a block."""

    def __init__(self, maker: ProblemMaker, reml: bool, devices: tuple[Any, ...]):
        # not the maker, with which these are kept
        self.parts = maker.rows, maker.basis, maker.prepared, maker.design.structure
        self.reml = reml
        self.problem = maker.lanes(np.zeros((maker.design.n, 1)), reml)
        shared: Any = self.problem.shared
        nobody = np.zeros((1, len(shared.mu)))
        self.data = spectral_data(self.problem, nobody, np.zeros(1))
        self.x = np.asarray(shared.x) if hasattr(shared, "x") else None
        self.found = Handed(self._found, devices)

    def _found(self, y: Array) -> tuple[tuple, tuple, Array]:
        usable = jnp.isfinite(jnp.sum(y * y, axis=0))
        made = make_lanes(*self.parts, jnp.where(usable[None, :], y, 0.0), self.reml)
        rotated = made.response
        assert isinstance(rotated, SpectralResponse)
        lanes = Lanes if self.x is None else partial(RowLanes, x=self.x)
        left = self._open_squares(rotated.y, rotated.rest)
        arrays = search_lanes(self.data, float(y.shape[0]), rotated.y, rotated.rest, lanes, left)
        return arrays, (made.origin.beta, made.origin.scale), usable

    def _open_squares(self, y: Array, left: Array) -> Array | None:
        """What is left (T,) of responses ỹ (k, T) where K has no part; None where it has one everywhere."""
        none = np.flatnonzero(self.data.mu <= 0)
        if not self.data.rest and not len(none):
            return None
        if self.x is None:
            return left + jnp.sum(y[none] ** 2, axis=0)
        u, size, _ = np.linalg.svd(self.x[none], full_matrices=False)
        u = u[:, size > 1e-12 * max(size.max(initial=0.0), 1e-300)]
        beside = y[none] - u @ (u.T @ y[none])
        return jnp.sum((beside - u @ (u.T @ beside)) ** 2, axis=0)


def one_kernel_on_devices(
    place: Place, maker: ProblemMaker, y: Columns, reml: bool
) -> tuple[Outcome, np.ndarray]:
    """Fits of the columns of y (n, T), and which of them are finite (T,)."""
    n, total = y.shape
    there = in_x64(_kernel_of)(maker, reml, place.devices)

    def block(part: slice, lanes: int) -> Callable[[], Any]:
        own = y[:, part] if part != slice(0, total) else y
        made = there.found(lanes, move(own, lanes * len(place.devices), place.devices))
        return lambda: made

    lanes = place.block(total, n, len(there.data.mu) + GRID)
    whole = through_blocks(place, total, lanes, block, partial(brought, place))
    (*arrays, optima, lost, perfect), origin, usable = whole
    chosen = np.flatnonzero(~lost & ~perfect)
    problem = dataclasses.replace(there.problem, origin=Origin(*origin))
    points = points_of(there.data, tuple(arrays), chosen)
    return outcome(*all_records(problem, points, optima[chosen], not reml, lost, perfect)), usable


def brought(place: Place, part: slice, _: int, made: Any) -> Any:
    """What was found of the responses of a block, on the host."""
    return unpacked(on_lanes(_sent, place.devices)((), made), made, part.stop - part.start)


def _sent(_: Any, made: Any) -> tuple[Array, Array]:
    return packed(made)


def _kernel_of(maker: ProblemMaker, reml: bool, devices: tuple[Any, ...]) -> OneKernel:
    """The search of a maker on devices; kept while the maker is."""
    known = _kept.setdefault(maker, {})
    if (reml, devices) not in known:
        known[reml, devices] = OneKernel(maker, reml, devices)
    return known[reml, devices]


_kept: WeakKeyDictionary[ProblemMaker, dict[tuple, OneKernel]] = WeakKeyDictionary()
