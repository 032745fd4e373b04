"""Primitives that only move elements, done by NumPy on arrays of elements.

Bound to JAX on constants each distinct move would be a program of its own: 130 for a batch of (1 | g).
Parameters are those of the primitives of `jax.lax`; gather and scatter follow XLA's definition
(https://openxla.org/xla/operation_semantics#gather).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

Params = dict[str, Any]


def scalar(x: Any) -> np.ndarray:
    """An array () of elements."""
    out = np.empty((), dtype=object)
    out[()] = x
    return out


def _broadcast_in_dim(a: np.ndarray, params: Params) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], a.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(a.reshape(shape), params["shape"])


def _slice(a: np.ndarray, params: Params) -> np.ndarray:
    strides = params["strides"] or (1,) * a.ndim
    return a[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _pad(a: np.ndarray, value: np.ndarray, params: Params) -> np.ndarray:
    config = params["padding_config"]
    between = [(n - 1) * inner + n if n else 0 for n, (_, _, inner) in zip(a.shape, config, strict=True)]
    sizes = [n + max(low, 0) + max(high, 0) for n, (low, high, _) in zip(between, config, strict=True)]
    out = np.full(sizes, value[()], dtype=object)
    starts = [max(low, 0) for low, _, _ in config]
    steps = [inner + 1 for _, _, inner in config]
    out[tuple(slice(s, s + n, k) for s, n, k in zip(starts, between, steps, strict=True))] = a
    # negative padding cuts
    return out[
        tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high, _) in zip(sizes, config, strict=True))
    ]


def _split(a: np.ndarray, params: Params) -> list[np.ndarray]:
    return np.split(a, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


def _gather(a: np.ndarray, indices: np.ndarray, params: Params) -> np.ndarray:
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    dims = (
        numbers.offset_dims,
        numbers.collapsed_slice_dims,
        numbers.start_index_map,
        numbers.operand_batching_dims,
        numbers.start_indices_batching_dims,
    )
    places, inside = _windows(a.shape, indices, dims, sizes, params["mode"])
    out = a[places]
    if not inside.all():
        fill = params["fill_value"]
        out[~inside] = np.nan if fill is None else fill
    return out


def _scatter(a: np.ndarray, indices: np.ndarray, updates: np.ndarray, params: Params) -> np.ndarray:
    numbers = params["dimension_numbers"]
    apart = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = iter(updates.shape[d] for d in numbers.update_window_dims)
    sizes = [1 if d in apart else next(window) for d in range(a.ndim)]
    dims = (
        numbers.update_window_dims,
        numbers.inserted_window_dims,
        numbers.scatter_dims_to_operand_dims,
        numbers.operand_batching_dims,
        numbers.scatter_indices_batching_dims,
    )
    places, inside = _windows(a.shape, indices, dims, sizes, params["mode"])
    out = a.copy()
    out[tuple(p[inside] for p in places)] = updates[inside]
    return out


def _windows(
    shape: tuple[int, ...], indices: np.ndarray, dims: tuple, sizes: Any, mode: Any
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Places in an operand of `shape` of every element of the windows, and whether its window is inside."""
    offset, collapsed, mapped, batching, index_batching = dims
    starts = np.array(indices.tolist(), dtype=np.int64).reshape(indices.shape)
    batch = starts.shape[:-1]
    rank = len(batch) + len(offset)
    outer = [d for d in range(rank) if d not in offset]
    inner = iter(offset)
    inside = np.ones(batch, bool)
    first, along = [], []
    for d, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        start = np.zeros(batch, np.int64)
        if d in mapped:
            start = starts[..., mapped.index(d)]
        elif d in batching:
            axis = index_batching[batching.index(d)]
            start = np.indices(batch)[axis]
        fits = (start >= 0) & (start <= n - size)
        inside &= fits
        first.append(start if fits.all() else np.clip(start, 0, n - size))
        along.append(None if d in collapsed or d in batching else (next(inner), size))

    def spread(values: np.ndarray, axes: list[int]) -> np.ndarray:
        at = [1] * rank
        for axis, n in zip(axes, values.shape, strict=True):
            at[axis] = n
        return values.reshape(at)

    full = [0] * rank
    for axis, n in zip(outer, batch, strict=True):
        full[axis] = n
    places = []
    for start, window in zip(first, along, strict=True):
        place = spread(start, outer)
        if window is not None:
            full[window[0]] = window[1]
            place = place + spread(np.arange(window[1]), [window[0]])
        places.append(place)
    drop = GatherScatterMode.from_any(mode) == GatherScatterMode.FILL_OR_DROP
    kept = spread(inside, outer) if drop else np.ones((1,) * rank, bool)
    return tuple(np.broadcast_to(p, full) for p in places), np.broadcast_to(kept, full)


MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda *arrays: np.concatenate(arrays[:-1], axis=arrays[-1]["dimension"]),
    "copy": lambda a, _: a,
    "expand_dims": lambda a, params: np.expand_dims(a, params["dimensions"]),
    "gather": _gather,
    "pad": _pad,
    "rev": lambda a, params: np.flip(a, params["dimensions"]),
    "reshape": lambda a, params: a.reshape(params["new_sizes"]),
    "scatter": _scatter,
    "slice": _slice,
    "split": _split,
    "squeeze": lambda a, params: np.squeeze(a, params["dimensions"]),
    "stack": lambda *arrays: np.stack(arrays[:-1], axis=arrays[-1]["axis"]),
    "transpose": lambda a, params: a.transpose(params["permutation"]),
}
"""The move of every primitive: a function of its arrays and parameters."""


def move(primitive: str, arrays: list[np.ndarray], params: Params) -> list[np.ndarray]:
    """Outputs of a primitive of `MOVES`."""
    out = MOVES[primitive](*arrays, params)
    # indexing an array of elements down to a scalar gives the element
    return [o if isinstance(o, np.ndarray) else scalar(o) for o in (out if isinstance(out, list) else [out])]
