"""Where the lanes of a batch are worked on: by threads of the host, or on devices, and how many at a time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from lmmjax.arrays.memory import available_memory
from lmmjax.batch.lanes import lane_devices
from lmmjax.gram.grouped.prepare import bucket

MOST, FEWEST = 1 << 17, 256
"""Lanes of a block on one device, at most and at least: more than an H100 has threads gain nothing."""

GOING_ON = 1 << 15
"""Lanes of a device that go on together: fewer take as long, and one more program to compile."""

SHARE = 0.3
"""Share of the device's memory that a block may take: while one descends the next is on its way."""

ROWS, VECTORS, SMALL = 6, 48, 4096
"""Copies of a lane's rows and vectors that are alive at a time, and its other numbers."""

FEW = 64
"""Up to so many responses are fitted one after the other, which take 20 ms each, a program 4 to 30 s."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Devices that work on a batch, each on its part of every block of lanes.

    Attributes
    ----------
    devices : all of one kind.
    few : up to how many responses a batch is no batch.
    lanes, going_on : of one device, in place of what follows from memory; None but in tests.
    """

    devices: tuple[Any, ...]
    few: int = FEW
    lanes: int | None = None
    going_on: int = GOING_ON

    def block(self, total: int, n: int, vector: int) -> int:
        """Lanes that one device takes at a time, of responses with n rows and vectors of that length."""
        share = -(-total // len(self.devices))
        if self.lanes is not None:
            return self.lanes
        lane = 8.0 * (ROWS * n + VECTORS * vector + SMALL)
        most = SHARE * memory_of(self.devices[0]) / lane
        # a power of two for the bound, so that what is free at the moment does not make another program
        most = 1 << max(int(min(max(most, FEWEST), MOST)).bit_length() - 1, 0)
        return min(bucket(max(share, FEWEST)), most)


def memory_of(device: Any) -> float:
    """Bytes that a device has left for a process; of the host where it does not say."""
    stats = (device.memory_stats() if device.platform != "cpu" else None) or {}
    if "bytes_limit" not in stats:
        return float(available_memory())
    return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def placed() -> Place | None:
    """Where the lanes of a batch are, or None for the threads of the host: if the devices of JAX are CPUs."""
    devices = tuple(lane_devices())
    way = _forced.get() or _everywhere[0]
    if way is not None:
        return dataclasses.replace(way, devices=devices)
    return None if devices[0].platform == "cpu" else Place(devices)


@contextlib.contextmanager
def forced(
    lanes: int | None = None, going_on: int = GOING_ON, few: int = 0, everywhere: bool = False
) -> Iterator[None]:
    """Within it batches take the way of devices, whatever these are: for tests on CPUs.

    In this thread, or `everywhere`.
    """
    way, before = Place((), few, lanes, going_on), _everywhere[0]
    token = _forced.set(way)
    _everywhere[0] = way if everywhere else before
    try:
        yield
    finally:
        _forced.reset(token)
        _everywhere[0] = before


_forced: ContextVar[Place | None] = ContextVar("forced", default=None)
_everywhere: list[Place | None] = [None]
