"""Markers that lie on a device: looked at, filtered and filled there, a few numbers of each to the host."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.batch.lanes import in_x64

FACTS = (
    "infinite",
    "missing",
    "sum",
    "least",
    "most",
    "others",
    "least_other",
    "most_other",
    "twos",
)
"""What the host hears of a marker: how many of its values are infinite or missing, their sum, the least and
the most of them; how many are none of 0, 1, 2, the least and the most of these; how many are 2."""


def looked_at(there: jax.Array, rows: np.ndarray) -> tuple[DeviceColumns, dict[str, np.ndarray]]:
    """Values (N, k) of the rows (N,) of markers, in double precision, and `FACTS` of each (k,)."""
    same = len(rows) == there.shape[0] and np.array_equal(rows, np.arange(len(rows)))
    values, facts = in_x64(_facts)(there, None if same else rows.astype(np.int32))
    return DeviceColumns(values), dict(zip(FACTS, np.asarray(facts), strict=True))


def filled(g: DeviceColumns, kept: np.ndarray, facts: dict[str, np.ndarray]) -> DeviceColumns:
    """The markers that are `kept` (k,), of N values each, the mean where they are missing."""
    some = g if kept.all() else g[:, np.flatnonzero(kept)]
    missing = facts["missing"][kept]
    if not missing.any():
        return some
    means = facts["sum"][kept] / np.maximum(len(g) - missing, 1)
    return DeviceColumns(in_x64(_filled)(some.there, means))


@partial(quick_jit, short=0, plays=False)
def _facts(there: Array, rows: Array | None) -> tuple[Array, Array]:
    g = (there if rows is None else there[rows]).astype(jnp.float64)
    missing = jnp.isnan(g)
    other = ~((g == 0.0) | (g == 1.0) | (g == 2.0) | missing)

    def among(which: Array, function: object, none: float) -> Array:
        return function(jnp.where(which, g, none), axis=0)  # type: ignore[operator]

    facts = (
        jnp.sum(jnp.isinf(g), axis=0),
        jnp.sum(missing, axis=0),
        among(~missing, jnp.sum, 0.0),
        among(~missing, jnp.min, jnp.inf),
        among(~missing, jnp.max, -jnp.inf),
        jnp.sum(other, axis=0),
        among(other, jnp.min, jnp.inf),
        among(other, jnp.max, -jnp.inf),
        jnp.sum(g == 2.0, axis=0),
    )
    return g, jnp.stack([one.astype(jnp.float64) for one in facts])


@partial(quick_jit, short=0, plays=False)
def _filled(g: Array, means: Array) -> Array:
    return jnp.where(jnp.isnan(g), means[None, :], g)
