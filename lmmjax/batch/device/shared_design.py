"""Many responses with one design on devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lmmjax.arrays.sparse_columns import Columns
from lmmjax.batch.device.descent import fit_on_devices
from lmmjax.batch.device.rows import rows_of
from lmmjax.batch.device.where import Place
from lmmjax.batch.lanes import in_x64
from lmmjax.batch.outcome import Outcome, outcome
from lmmjax.batch.starts import Starts
from lmmjax.core import Problem, ProblemMaker


def on_devices(
    place: Place,
    maker: ProblemMaker,
    y: Columns,
    reml: bool,
    max_iter: int,
    starts: Starts,
    dtype: Any,
) -> tuple[Outcome, np.ndarray, np.ndarray]:
    """Fits of the columns of y (n, T), which of them are finite (T,), and their variances (T,).

    Nothing of y is read on the host but what it forms again.
    """
    n, total = y.shape
    lanes = place.block(total, n, maker.prepared.shared.vector)
    rows = in_x64(rows_of)(maker, reml, place.devices, y)
    usable, spread = np.ones(total, bool), np.zeros(total)

    def block(part: slice, lanes: int) -> Callable[[], Problem]:
        own = y[:, part] if part != slice(0, total) else y
        problem, flags = rows(own, lanes)

        def ready() -> Problem:
            suspect, usable[part], spread[part] = (np.asarray(a)[: own.shape[1]] for a in flags)
            again = np.flatnonzero(suspect & usable[part])
            if not len(again):
                return problem
            return rows.settled(problem, np.asarray(own[:, again], dtype=float), again, lanes)

        return ready

    points = starts.inside(maker, own=False)
    found = fit_on_devices(place, total, lanes, block, max_iter, points, dtype)
    return outcome(*found, len(points)), usable, spread
