"""Many responses with one design on devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lmmjax.arrays import Array
from lmmjax.batch.device.descent import fit_on_devices
from lmmjax.batch.device.rows import rows_of
from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import in_x64
from lmmjax.batch.outcome import Outcome, outcome
from lmmjax.batch.starts import Starts
from lmmjax.core import Problem, ProblemMaker


def on_devices(
    place: Place, maker: ProblemMaker, y: Array, reml: bool, max_iter: int, starts: Starts, dtype: Any
) -> tuple[Outcome, np.ndarray]:
    """Fits of the columns of y (n, T), NumPy or on a device, and which of them are finite (T,)."""
    n, total = y.shape
    lanes = place.block(total, n, maker.prepared.shared.vector)
    rows = in_x64(rows_of)(maker, reml, place.devices, y)
    usable = np.ones(total, bool)

    def block(part: slice) -> Callable[[], Problem]:
        own = y[:, part] if part != slice(0, total) else y
        problem, flags = rows(own, lanes)

        def ready() -> Problem:
            suspect, finite = (np.asarray(a)[: own.shape[1]] for a in flags)
            usable[part] = finite
            again = np.flatnonzero(suspect & finite)
            if not len(again):
                return problem
            return rows.settled(problem, np.asarray(own[:, again], dtype=float), again, lanes)

        return ready

    found = fit_on_devices(place, total, lanes, block, max_iter, starts.inside(maker, own=False), dtype)
    return outcome(*found), usable
