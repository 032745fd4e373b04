"""Problems and other records of many responses, whose axis, that of the lanes, is the last of every array."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array
from lmmjax.arrays.compile import compiled_at_once, plays_now
from lmmjax.arrays.processors import USUAL, cores
from lmmjax.arrays.sparse_columns import Columns, SparseColumns, pieces
from lmmjax.core import Problem, ProblemMaker
from lmmjax.gram.grouped.prepare import GroupedPrepared

LANES, FEWEST = 2048, 16
"""Responses advanced by one call, at most and at least."""

WIDER = 32
"""Times as many where no cache of a processor has to hold them."""

MOST_THREADS = 64
"""Threads at most, of which each has its own memory."""

WORKING_SET = 400_000
"""Elements of one vector over the responses of a call that the second-level cache holds with its fellows."""


def lane_count(vector: int, total: int) -> int:
    """Responses a call: a power of two whose working set fits the cache; few sizes, few programs.

    A batch that is smaller than a call of the usual size takes a quarter of it, for less padding.
    """
    most = LANES if total > LANES // 2 else LANES // 4
    wider = WIDER if total > LANES and lane_devices()[0].platform != "cpu" else 1
    return 1 << int(
        np.log2(np.clip(wider * WORKING_SET / vector, FEWEST, min(wider * most, max(total, most))))
    )


def block_size(vector: int, total: int) -> int:
    """Lanes of a call on the host: `lane_count`, and with many cores so few that each has two blocks."""
    size, share = lane_count(vector, total), total / (2 * cores())
    if cores() <= USUAL or share >= size:
        return size
    return min(size, max(LANES // 16, 1 << int(np.log2(max(share, 1.0)))))


def _own_designs(problem: Problem) -> bool:
    """Whether every lane has a design of its own: then arrays trail with lanes, but κ, what is shared."""
    return problem.n.ndim > 0


def each(problem: Problem, function: Callable[[str, Any], Any]) -> Problem:
    """The problem with `function` applied to the fields that differ between lanes."""
    fields = ["response", "origin"]
    if _own_designs(problem):
        fields += ["n"] if problem.shared.carried else ["shared", "basis", "n"]
    return dataclasses.replace(problem, **{name: function(name, getattr(problem, name)) for name in fields})


def axes_of(problem: Problem) -> Problem:
    none = jax.tree.map(lambda _: None, problem)
    mapped = each(problem, lambda _, field: jax.tree.map(lambda _: -1, field))
    fields = [
        f.name for f in dataclasses.fields(problem) if getattr(mapped, f.name) is not getattr(problem, f.name)
    ]
    return dataclasses.replace(none, **{name: getattr(mapped, name) for name in fields})


def take_lanes(problem: Problem, part: Any) -> Problem:
    """The problem of some lanes."""
    return each(problem, lambda _, field: some_lanes(field, part))


def lanes_of(maker: ProblemMaker, y: Columns, reml: bool) -> Problem:
    """The problem of responses y (n, T); of sparse ones a few at a time are made dense, or none."""
    if not isinstance(y, SparseColumns):
        return maker.lanes(np.asarray(y, dtype=float), reml)
    if isinstance(maker.prepared, GroupedPrepared):
        return maker.lanes(y, reml)
    return join_lanes([maker.lanes(values, reml) for _, values in pieces(y)])


def some_lanes(tree: Any, part: Any) -> Any:
    return jax.tree.map(lambda a: a[..., part], tree)


def padded(problem: Problem, extra: int) -> Problem:
    return each(problem, lambda _, field: jax.tree.map(lambda a: pad(a, extra), field))


def pad(a: Array, extra: int) -> Array:
    return np.concatenate([a, np.repeat(a[..., :1], extra, axis=-1)], axis=-1) if extra else a


def cast(tree: Any, dtype: Any) -> Any:
    """NumPy arrays with those of floating point in another dtype, not copied where they have it."""
    return jax.tree.map(lambda a: a.astype(dtype, copy=False) if a.dtype.kind == "f" else a, tree)


def join_lanes(pieces: list[Any]) -> Any:
    """Join pieces along the lanes; shared arrays of problems are taken from the first."""
    if isinstance(pieces[0], tuple):
        return tuple(join_lanes([piece[k] for piece in pieces]) for k in range(len(pieces[0])))
    if isinstance(pieces[0], Problem):
        return each(pieces[0], lambda name, _: join_lanes([getattr(piece, name) for piece in pieces]))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=-1), *pieces)


def blocks(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def put(tree: Any, where: np.ndarray, part: Any) -> None:
    """Replace the lanes `where` of NumPy arrays."""
    for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(part), strict=True):
        old[..., where] = new


def in_x64(function: Callable) -> Callable:
    """`function` under 64-bit JAX, on the caller's device, without NumPy's warnings: settings of the thread.

    A response that overflows gets a status; it needs no warning of its own.
    """
    device, settled = _chosen(), nullcontext if plays_now() else compiled_at_once

    def inside(*args: Any) -> Any:
        with jax.enable_x64(True), jax.default_device(device), np.errstate(all="ignore"), settled():
            return function(*args)

    return inside


def lane_devices() -> list[Any]:
    """The devices that work on a block: all local ones, or the one that `jax.default_device` has chosen."""
    chosen = _chosen()
    if chosen is None:
        return jax.local_devices()
    return jax.local_devices(backend=chosen)[:1] if isinstance(chosen, str) else [chosen]


def _chosen() -> Any:
    """A device, the name of a platform, or None."""
    return getattr(jax.config, "jax_default_device", None)
