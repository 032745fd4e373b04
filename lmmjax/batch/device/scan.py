"""Scans under one kernel on devices: candidates beside responses that lie there, and the pairs chosen there.

A tile is all candidates of a block by as many responses as there is memory for: two products of matrices in
float64. What comes to the host of it is how many pairs were chosen, one number a device, and these pairs, in
two transfers; while they come the next tile is formed. Responses stay on the devices from block to block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.batch.device import scan_programs as programs
from lmmjax.batch.device.lanes import on_lanes
from lmmjax.batch.device.pipeline import through_blocks
from lmmjax.batch.device.transfer import move, over, to_all
from lmmjax.batch.device.where import Place, memory_of
from lmmjax.batch.lanes import in_x64, pad
from lmmjax.gram.block.prepare import BlockPrepared
from lmmjax.gram.block.products import Reach
from lmmjax.gram.grouped.prepare import bucket
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.scan.engine import ALL, Engine, Hits, Null, Refitted
from lmmjax.inference.scan.lanes import Coordinates
from lmmjax.inference.scan.partial import PartialEngine
from lmmjax.inference.scan.spectral import SpectralEngine
from lmmjax.inference.scan.sweep import Wanted

WORTH = 1 << 20
"""Multiplications for a candidate from which on devices take it: with fewer the host scans thousands in less
time than the programs take to compile."""

LARGEST = 1 << 30
"""Pairs of a tile on one device, whose places are 32-bit numbers."""

KEPT = 0.3
"""Share of a device's memory in which responses are kept from one block of candidates to the next."""

SWEPT, PAIR = 6, 3
"""Copies of the pairs of a tile that are alive at a time, in units of `Place.block`; arrays of a response."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """k candidates on the devices, filled up with some that X determines.

    Attributes
    ----------
    g : (K, k') coordinates; squares : (K', k') their squares; lost : (k',); k : how many they are.
    """

    g: Array
    squares: Array
    lost: Array
    k: int


class DeviceEngine(Engine):
    """An engine whose products are formed on devices; exact refits are the host's.

    Parameters
    ----------
    host : the engine of the host, which works out what it is asked for only.
    """

    def __init__(self, host: SpectralEngine | PartialEngine, place: Place):
        self.host, self.place, self.alone = host, place, host.alone
        self._kept: dict[tuple[int, int, int], tuple[Array, ...]] = {}
        self._bytes = 0

    @cached_property
    def of(self) -> Coordinates:
        """The coordinates of the design, on all devices."""
        maker = self.host.maker
        prepared, rows = maker.prepared, maker.rows
        block = isinstance(prepared, BlockPrepared)
        assert block or isinstance(prepared, SpectralPrepared)
        spectral = isinstance(self.host, SpectralEngine)
        found = Coordinates(
            np.asarray(rows.x),
            None if rows.root_weight is None else np.asarray(rows.root_weight),
            None if rows.offset is None else np.asarray(rows.offset),
            None if block else prepared.b,
            Reach.of(prepared.turn.tocoo()) if block else None,
            self.host.mu,
            not block and bool(prepared.left_over),
            not spectral,
        )
        return in_x64(jax.tree.map)(lambda a: to_all(a, self.place.devices), found)

    @property
    def sweeps(self) -> bool:
        return True

    @property
    def total(self) -> int:
        """T."""
        return len(self.host.a)

    @cached_property
    def null(self) -> Null:  # type: ignore[override]
        if not isinstance(self.host, SpectralEngine):
            return self.host.null
        lanes = self.lanes(1)

        def block(part: slice, lanes: int) -> Callable[[], Array]:
            _, made = self._formed(part, lanes)
            return lambda: made

        def squares(part: slice, _: int, made: Array) -> np.ndarray:
            return self.unpacked(made)[: part.stop - part.start]

        return self.host.null_of(through_blocks(self.place, self.total, lanes, block, squares))

    @staticmethod
    def unpacked(there: Any) -> np.ndarray:
        """What comes to the host."""
        return np.asarray(there)

    def lanes(self, k: int) -> int:
        """Responses of a tile with k candidates that one device takes."""
        width = len(self.host.mu) + self.of.x.shape[1]
        most = 1 << max((LARGEST // k).bit_length() - 1, 0)
        return min(self.place.block(self.total, k + PAIR * width // SWEPT, 0), most)

    def _formed(self, part: slice, lanes: int) -> tuple[tuple[Array, ...], Array]:
        """u, w and F of responses with all rows, formed on the devices and kept there, and y'Py (T,)."""
        host = self.host
        assert isinstance(host, SpectralEngine)
        size, devices = lanes * len(self.place.devices), self.place.devices
        y = host.fits.y if part == slice(0, self.total) else host.fits.y[:, part]
        extra = size - (part.stop - part.start)
        sides = [over(pad(value[part], extra), devices) for value in (host.a, host.h)]
        u, w, squares = on_lanes(programs.formed, devices)(self.of, move(y, size, devices), *sides)
        return self._keep(part, lanes, (u, w, over(np.zeros((0, 1, size)), devices))), squares

    def _keep(self, part: slice, lanes: int, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """The arrays, which stay until the next block of candidates where memory allows."""
        more = sum(a.nbytes for a in arrays)
        if self._bytes + more <= KEPT * memory_of(self.place.devices[0]) * len(self.place.devices):
            self._kept[part.start, part.stop, lanes] = arrays
            self._bytes += more
        return arrays

    def _arrays(self, part: slice, lanes: int) -> tuple[Array, ...]:
        """u, w and F of the responses of a tile, on the devices."""
        key = part.start, part.stop, lanes
        if key in self._kept:
            return self._kept[key]
        host = self.host
        if isinstance(host, SpectralEngine):
            return self._formed(part, lanes)[0]
        size, devices = lanes * len(self.place.devices), self.place.devices
        which = np.arange(part.start, part.stop)
        w, extra = host.weights(which), size - len(which)
        halves = [host.half(int(k), own) for k, own in zip(which, w, strict=True)]
        f = np.zeros((bucket(max(map(len, halves), default=0)), w.shape[1], len(which)))
        for k, own in enumerate(halves):
            f[: len(own), :, k] = own
        arrays = ((w * host.y[which]).T, w.T, f)
        return self._keep(part, lanes, tuple(over(pad(a, extra), devices) for a in arrays))

    def prepare(self, g: Any) -> Block:
        """Candidates of NumPy, or on a device."""
        k, devices = g.shape[1], self.place.devices
        size = bucket(k)

        def made() -> Block:
            if isinstance(g, DeviceColumns):
                there = programs.widened(g.there, size=size)
            else:
                there = np.zeros((len(g), size))
                there[:, :k] = g
            coordinates, squares, lost = programs.prepared(self.of, to_all(there, devices))
            return Block(coordinates, squares, lost, k)

        return in_x64(made)()

    def hits(self, block: Block, wanted: Wanted, by_ml: bool) -> Hits:
        devices, k = self.place.devices, block.g.shape[1]
        ml = self.by_ml() if by_ml else None
        null = self.null
        share = np.zeros(self.total) if wanted.share is None else wanted.share
        settings = {"top": wanted.top, "best": wanted.best, "above": wanted.share is not None}
        tile = on_lanes(programs.tile, devices, **settings)

        def start(part: slice, lanes: int) -> Callable[[], tuple]:
            count = part.stop - part.start
            extra = lanes * len(devices) - count
            own = [over(pad(value[part], extra), devices) for value in (null.a, share, wanted.slack)]
            real = over(np.arange(count + extra) < count, devices)
            arrays = [self._arrays(part, lanes)]
            if ml is not None and ml is not self:
                arrays.append(ml._arrays(part, lanes))
            made = tile((block.g, block.squares, block.lost), *own, real, *arrays)
            return lambda: made

        def finish(part: slice, lanes: int, made: tuple) -> tuple[np.ndarray, ...]:
            kept, level, values, count = made
            counts = self.unpacked(count)
            size = bucket(max(int(counts.max()), 1))
            sent = on_lanes(programs.hits, devices, size=size)((), kept, level, values)
            at, numbers = map(self.unpacked, sent)
            # a device has its own lanes, and fills up with its first pair
            found = [slice(d * size, d * size + int(c)) for d, c in enumerate(counts)]
            response = [part.start + d * lanes + at[own] % lanes for d, own in enumerate(found)]
            marker = np.concatenate([at[own] // lanes for own in found]).astype(int)
            numbers = np.concatenate([numbers[:, own] for own in found], axis=1)
            return marker, np.concatenate(response).astype(int), numbers

        marker, response, numbers = through_blocks(self.place, self.total, self.lanes(k), start, finish)
        marker, response, numbers = _best_of_all(null, wanted, marker, response, numbers)
        order = np.lexsort((response, marker))
        _, b, c, *other = numbers[:, order]
        own = (other[0], other[1]) if other else (b, c)
        return Hits(marker[order], response[order], b, c, own if by_ml else None)

    def products(self, block: Block, part: slice = ALL) -> tuple[np.ndarray, np.ndarray]:
        return self._all((block.g, block.squares, block.lost), block.k, part, programs.all_moments)

    def cross(self, one: Block, two: Block, part: slice = ALL) -> np.ndarray:
        both = in_x64(programs.cross_products)(self.of, one.g, two.g)
        return self._all((one.g, two.g, both), one.k, part, programs.all_crossed)

    def _all(self, whole: tuple[Array, ...], k: int, part: slice, function: Callable) -> Any:
        """What a function of a tile says of all its pairs, (k, T) on the host."""

        def start(part: slice, lanes: int) -> Callable[[], Any]:
            made = on_lanes(function, self.place.devices)(whole, *self._arrays(part, lanes))
            return lambda: made

        def finish(part: slice, _: int, made: Any) -> Any:
            count = part.stop - part.start
            return jax.tree.map(lambda a: self.unpacked(a)[:k, :count], made)

        lanes = self.lanes(whole[0].shape[1])
        found = through_blocks(self.place, self.total, lanes, start, finish)
        return jax.tree.map(lambda a: a[:, part], found)

    def refit(
        self, columns: tuple[np.ndarray, ...], marker: np.ndarray, response: np.ndarray, reml: bool
    ) -> Refitted:
        return self.host.refit(tuple(map(np.asarray, columns)), marker, response, reml)

    def by_ml(self) -> DeviceEngine:
        if not self.null.reml:
            return self
        return self._by_ml

    @cached_property
    def _by_ml(self) -> DeviceEngine:
        host = self.host.by_ml()
        assert isinstance(host, SpectralEngine | PartialEngine)
        return DeviceEngine(host, self.place)


def on_devices(engine: Engine, place: Place | None) -> Engine:
    """The engine whose products devices form, where there are any and it is worth their while."""
    if place is None or not isinstance(engine, SpectralEngine | PartialEngine):
        return engine
    numbers = len(engine.mu) * (engine.maker.design.n + len(engine.a))
    return DeviceEngine(engine, place) if numbers >= WORTH or not place.few else engine


def _best_of_all(
    null: Null, wanted: Wanted, marker: np.ndarray, response: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs without those that were best among the responses of a tile only."""
    if not wanted.best or not len(marker):
        return marker, response, numbers
    level, b, c = numbers[:3]
    rho2 = b * b / (null.a[response] * c)
    most = np.full(int(marker.max()) + 1, -np.inf)
    np.maximum.at(most, marker, rho2)
    needed = 1.0 - (1.0 - most[marker]) * float(np.max(wanted.slack)) - 1e-9
    stay = np.flatnonzero((level > 0) | (rho2 >= needed))
    return marker[stay], response[stay], numbers[:, stay]
