"""Arrays on their way to devices; responses with their columns filled up to the lanes of a block.

A block of responses is one transfer, which nobody waits for. From a matrix whose rows lie one after another
and that is one block nothing is copied on the host; others are cut, or turned on the device. Of sparse ones
the entries travel. What lies on the device already stays there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.arrays.sparse_columns import Columns, SparseColumns
from lmmjax.batch.device.lanes import mesh, on_lanes, over_lanes
from lmmjax.gram.grouped.prepare import bucket


def move(y: Columns, lanes: int, devices: tuple[Any, ...]) -> Array:
    """Responses y (n, T) on the devices, filled up to `lanes` columns by the first of them."""
    if isinstance(y, SparseColumns):
        return _expanded(y, lanes, devices)
    if isinstance(y, DeviceColumns):
        there = y.there if y.there.devices() == {devices[0]} else jax.device_put(y.there, devices[0])
        full = there.shape[1] == lanes and there.dtype == np.float64
        there = there if full else _filled(there, turned=False, lanes=lanes)
        return there if len(devices) == 1 else jax.device_put(there, over_lanes(devices, 2))
    if len(devices) > 1:
        extra = lanes - y.shape[1]
        whole = np.asarray(y, dtype=float)
        whole = np.concatenate([whole, np.repeat(whole[:, :1], extra, axis=1)], axis=1) if extra else whole
        return jax.device_put(whole, over_lanes(devices, 2))
    turned = not y.flags.c_contiguous and y.T.flags.c_contiguous
    sent = _placed(y.T if turned else y)
    if not turned and sent.shape[1] == lanes and sent.dtype == np.float64:
        return sent
    return _filled(sent, turned=turned, lanes=lanes)


@partial(quick_jit, short=0, plays=False, static_argnames=("turned", "lanes"))
def _filled(y: Array, *, turned: bool, lanes: int) -> Array:
    y = (y.T if turned else y).astype(jnp.float64)
    extra = lanes - y.shape[1]
    return jnp.concatenate([y, jnp.repeat(y[:, :1], extra, axis=1)], axis=1) if extra else y


def _expanded(y: SparseColumns, lanes: int, devices: tuple[Any, ...]) -> Array:
    """`move` of sparse responses: their entries go there, and zeros between them are written there."""
    own, count = lanes // len(devices), y.shape[1]
    # a device without responses of its own takes the first
    parts = [slice(d * own, min((d + 1) * own, count)) for d in range(len(devices))]
    matrices = [y[:, part if part.start < count else slice(1)].csc() for part in parts]
    kind = matrices[0].dtype
    kind = np.dtype(np.int8 if kind.kind == "b" else np.float64 if kind.itemsize > 8 else kind)
    size = bucket(max(max(m.nnz for m in matrices), 1))
    data = np.zeros((size, len(devices)), kind)
    rows = np.zeros((size, len(devices)), np.int32)
    ends = np.zeros((own, len(devices)), np.int64)
    widths = np.array([m.shape[1] for m in matrices], np.int32)
    for d, m in enumerate(matrices):
        data[: m.nnz, d], rows[: m.nnz, d] = m.data, m.indices
        ends[: widths[d], d], ends[widths[d] :, d] = m.indptr[1:], m.nnz
    moved = [over(a, devices) for a in (data, rows, ends, widths)]
    return on_lanes(_scattered, devices, n=y.shape[0])((), *moved)


def _scattered(_: Any, data: Array, rows: Array, ends: Array, width: Array, n: int) -> Array:
    """Responses (n, L) of a device from entries (E, 1), in the order of columns that end at `ends` (L, 1)."""
    place, lanes = jnp.arange(len(data)), len(ends)
    column = jnp.searchsorted(ends[:, 0], place, side="right").astype(place.dtype)
    # entries that only fill up come after all others, out of range, each at a place of its own
    flat = jnp.where(column < lanes, column * n + rows[:, 0].astype(place.dtype), lanes * n + place)
    values = jnp.zeros(lanes * n, jnp.float64)
    values = values.at[flat].set(
        data[:, 0].astype(jnp.float64), mode="drop", indices_are_sorted=True, unique_indices=True
    )
    y = values.reshape(lanes, n).T
    return jnp.where((jnp.arange(lanes, dtype=width.dtype) < width[0])[None, :], y, y[:, :1])


def _placed(a: Any) -> Any:
    """An array on the device that JAX uses; where one is there, itself."""
    return a if isinstance(a, jax.Array) else jax.device_put(a)


def to_all(a: Any, devices: tuple[Any, ...]) -> Any:
    """An array on each of the devices."""
    if len(devices) == 1:
        return _placed(a)
    return jax.device_put(a, jax.sharding.NamedSharding(mesh(devices), jax.sharding.PartitionSpec()))


def over(a: Any, devices: tuple[Any, ...]) -> Any:
    """An array whose last axis is spread over the devices."""
    return _placed(a) if len(devices) == 1 else jax.device_put(a, over_lanes(devices, np.ndim(a)))
