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
    place: Place,
    maker: ProblemMaker,
    y: np.ndarray,
    reml: bool,
    max_iter: int,
    starts: Starts,
    dtype: Any,
    there: Array | None = None,
) -> tuple[Outcome, np.ndarray]:
    """Fits of the columns of y (n, T), and which of them are finite (T,); `there` is y on a device."""
    sent = y if there is None else there
    n, total = y.shape
    lanes = place.block(total, n, maker.prepared.shared.vector)
    rows = in_x64(rows_of)(maker, reml, place.devices, y)
    usable = np.ones(total, bool)

    def block(part: slice, lanes: int) -> Callable[[], Problem]:
        own = sent[:, part] if part != slice(0, total) else sent
        problem, flags = rows(own, lanes)

        def ready() -> Problem:
            suspect, finite = (np.asarray(a)[: own.shape[1]] for a in flags)
            usable[part] = finite
            again = np.flatnonzero(suspect & finite)
            if not len(again):
                return problem
            return rows.settled(problem, np.asarray(y[:, part][:, again], dtype=float), again, lanes)

        return ready

    points = starts.inside(maker, own=False)
    found = fit_on_devices(place, total, lanes, block, max_iter, points, dtype)
    return outcome(*found, len(points)), usable
