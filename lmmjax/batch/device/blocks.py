"""Blocks of problems that the host has made, descended by threads of the host or on devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.batch.device.descent import fit_on_devices
from lmmjax.batch.device.transfer import over, to_all
from lmmjax.batch.device.where import placed
from lmmjax.batch.lanes import block_size, each, padded
from lmmjax.batch.newton_lanes import fit_lanes
from lmmjax.core import Estimate, Problem


def fit_blocks(
    total: int,
    vector: int,
    block: Callable[[slice], Problem],
    max_iter: int,
    starts: Sequence[np.ndarray | None] = (None,),
    dtype: Any = np.float64,
) -> tuple[Estimate, np.ndarray]:
    """`newton_lanes.fit_lanes` where the lanes are, for vectors of that length."""
    place = placed()
    if place is None:
        return fit_lanes(total, block_size(vector, total), block, max_iter, starts, dtype)
    lanes = place.block(total, 0, vector)

    def begin(part: slice, lanes: int) -> Callable[[], Problem]:
        return partial(_moved, block(part), lanes * len(place.devices), place.devices)

    return fit_on_devices(place, total, lanes, begin, max_iter, starts, dtype)


def _moved(problem: Problem, size: int, devices: tuple[Any, ...]) -> Problem:
    """A problem of NumPy arrays on devices, filled up to `size` lanes."""
    full = padded(problem, size - problem.origin.scale.shape[-1])
    there = each(full, lambda _, field: jax.tree.map(lambda a: over(a, devices), field))
    # what all lanes share has been left where it was
    return jax.tree.map(lambda a: a if isinstance(a, jax.Array) else to_all(a, devices), there)
