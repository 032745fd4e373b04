"""Fits of one kernel on devices: rotated and searched there, by REML; records of these are the host's.

A response brings some forty numbers to the host, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from lmmjax.core.spectral.lanes import points_of, search_lanes
from lmmjax.design import Origin
from lmmjax.gram.spectral.products import SpectralProducts, SpectralResponse

GRID = 160
"""Points of the grid of ratios, more or less: numbers that a response takes beside its eigenvalues."""


class OneKernel:
    """A design of one kernel on devices: the search for the responses of a block."""

    def __init__(self, maker: ProblemMaker, devices: tuple[Any, ...]):
        # not the maker, with which these are kept
        self.parts = maker.rows, maker.basis, maker.prepared, maker.design.structure
        self.problem = maker.lanes(np.zeros((maker.design.n, 1)))
        shared = self.problem.shared
        assert isinstance(shared, SpectralProducts)
        nobody = np.zeros((1, len(shared.mu)))
        self.data = spectral_data(self.problem, nobody, np.zeros(1))
        self.found = Handed(self._found, devices)

    def _found(self, y: Array) -> tuple[tuple, tuple, Array]:
        usable = jnp.isfinite(jnp.sum(y * y, axis=0))
        made = make_lanes(*self.parts, jnp.where(usable[None, :], y, 0.0), True)
        rotated = made.response
        assert isinstance(rotated, SpectralResponse)
        arrays = search_lanes(self.data, float(y.shape[0]), rotated.y, rotated.rest)
        return arrays, (made.origin.beta, made.origin.scale), usable


def one_kernel_on_devices(place: Place, maker: ProblemMaker, y: Columns) -> tuple[Outcome, np.ndarray]:
    """Fits by REML of the columns of y (n, T), and which of them are finite (T,)."""
    n, total = y.shape
    there = in_x64(_kernel_of)(maker, place.devices)

    def block(part: slice, lanes: int) -> Callable[[], Any]:
        own = y[:, part] if part != slice(0, total) else y
        made = there.found(lanes, move(own, lanes * len(place.devices), place.devices))
        return lambda: made

    def brought(part: slice, _: int, made: Any) -> Any:
        rows = on_lanes(_sent, place.devices)((), made)
        return unpacked(rows, made, part.stop - part.start)

    lanes = place.block(total, n, len(there.data.mu) + GRID)
    (*arrays, optima, lost, perfect), origin, usable = through_blocks(place, total, lanes, block, brought)
    chosen = np.flatnonzero(~lost & ~perfect)
    problem = dataclasses.replace(there.problem, origin=Origin(*origin))
    points = points_of(there.data, tuple(arrays), chosen)
    return outcome(*all_records(problem, points, optima[chosen], False, lost, perfect)), usable


def _sent(_: Any, made: Any) -> tuple[Array, Array]:
    return packed(made)


def _kernel_of(maker: ProblemMaker, devices: tuple[Any, ...]) -> OneKernel:
    """The search of a maker on devices; kept while the maker is."""
    known = _kept.setdefault(maker, {})
    if devices not in known:
        known[devices] = OneKernel(maker, devices)
    return known[devices]


_kept: WeakKeyDictionary[ProblemMaker, dict[tuple, OneKernel]] = WeakKeyDictionary()
