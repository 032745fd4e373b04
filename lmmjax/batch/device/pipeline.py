"""Blocks of responses through a device: one on its way while another is fitted, fewer where memory ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import blocks, in_x64

EXHAUSTED, LEAST = "RESOURCE_EXHAUSTED", 16
"""What the error says of a device whose memory is used up, and lanes that are not halved again."""

Block = Callable[[slice, int], Callable[[], Any]]
"""Sends responses on their way, to so many lanes a device; what it returns is asked for what they became."""


def through_blocks(
    place: Place, total: int, lanes: int, block: Block, finish: Callable[[slice, int, Any], Any]
) -> Any:
    """What `finish` (part, lanes, what the block made) brings to the host of `total` responses, joined.

    `lanes` a device at a time. Results are trees of NumPy arrays that trail with responses. Where a device
    has not the memory for so many, half as many go on from the block that was too large.
    """

    def some(done: int, lanes: int) -> Iterator[Any]:
        size = lanes * len(place.devices)
        parts = (slice(done + part.start, done + part.stop) for part in blocks(total - done, size))
        for part, made in _one_ahead(partial(_sent_to, block, lanes), parts):
            yield part, finish(part, lanes, made)

    def run() -> Any:
        pieces, done, at = [], 0, lanes
        while done < total:
            try:
                for part, piece in some(done, at):
                    pieces.append(piece)
                    done = part.stop
            except jax.errors.JaxRuntimeError as error:
                if EXHAUSTED not in str(error):
                    raise
                if at < 2 * LEAST:
                    raise MemoryError(
                        f"the device has no memory for {at} responses of this model at a time: free what "
                        "else it holds, or fit on the CPU, within jax.default_device(jax.devices('cpu')[0])"
                    ) from error
                at //= 2
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=-1), *pieces)

    return in_x64(run)()


def _sent_to(block: Block, lanes: int, part: slice) -> Callable[[], Any]:
    return block(part, lanes)


def _one_ahead(
    block: Callable[[slice], Callable[[], Any]], parts: Iterator[slice]
) -> Iterator[tuple[slice, Any]]:
    """Blocks with what was made, while the next one is on its way and its products are formed."""
    waiting: list[tuple[slice, Callable[[], Any]]] = []
    for part in parts:
        waiting.append((part, block(part)))
        if len(waiting) > 1:
            ready, made = waiting.pop(0)
            yield ready, made()
    for ready, made in waiting:
        yield ready, made()
