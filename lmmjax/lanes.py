"""Newton for many lanes: descend a few steps, gather those not yet converged, descend again, finish.

A mapped loop runs until its slowest lane stops, so every stage takes a few steps and the next one sees
only the lanes that are left. Axes of lanes are last everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np

from lmmjax._types import Array
from lmmjax.estimate import Estimate, descend, finish
from lmmjax.gram import CrossProducts
from lmmjax.gram.grouped import SHORT
from lmmjax.optimize import Status
from lmmjax.problem import Problem
from lmmjax.unroll import unroll

STAGES = (4, 8, 12, 12, 12, 100)
"""Evaluations of the criterion that the stages allow each of their lanes."""

LANES, FEWEST = 2048, 16
"""Responses advanced by one call, at most and at least."""

WORKING_SET = 100_000
"""Elements of one vector over the responses of a call that the second-level cache holds with its fellows."""


def fit_lanes(
    total: int,
    size: int,
    threaded: bool,
    block: Callable[[slice], Problem],
    max_iter: int,
    start: np.ndarray | None = None,
    dtype: Any = np.float64,
) -> Estimate:
    """All stages for `total` responses, whose problems `block` makes; arrays of the result lead with T.

    Parameters
    ----------
    start : (m,) θ in internal coordinates, the same for all; None for the moment start of each.
    dtype : of the descents. The results are evaluated at their ends in the dtype of the problems.
    """
    # a block is as many lanes as one device takes, times the devices, which work on one block together
    devices = jax.local_device_count()
    size, threaded = size * devices, threaded and devices == 1
    parts = list(_blocks(total, size))

    def begin(part: slice) -> tuple:
        problem = block(part)
        structure = problem.structure
        if not structure.n_params:
            return (problem,)
        lanes = part.stop - part.start
        first = np.full(structure.n_params, np.nan) if start is None else start
        theta = np.repeat(first[:, None], lanes, axis=1).astype(dtype)
        turns = tuple(
            np.repeat(np.eye(term.q, dtype=dtype)[..., None], lanes, -1) for term in structure.terms
        )
        limit = np.int32(min(STAGES[0], max_iter))
        return problem, _call("descend", size, _cast(problem, dtype), theta, turns, shared=(limit,))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1) if threaded else 1) as pool:
        problem, *begun = _concatenate(list(pool.map(_in_x64(begin), parts)))
        if begun:
            state = _later_stages(pool, size, problem, begun[0], max_iter - STAGES[0])
            state = _cast(state, problem.n.dtype)
            point = (state.x, state.context, state)
        else:
            point = (np.zeros((0, total), problem.n.dtype), (), None)

        def end(part: slice) -> Estimate:
            return _call("finish", size, take_lanes(problem, part), *_lanes(point, part))

        result = _concatenate(list(pool.map(_in_x64(end), parts)))
    return jax.tree.map(lambda a: np.moveaxis(a, -1, 0), result)


def _later_stages(pool: ThreadPoolExecutor, size: int, problem: Problem, state: Any, max_iter: int) -> Any:
    """The later stages of Newton, each for the lanes that are left; axes of lanes are last."""
    left = np.flatnonzero(state.status == Status.ITERATION_LIMIT)
    for most in STAGES[1:]:
        limit = min(most, max_iter)
        if not len(left) or limit <= 0:
            break
        max_iter -= limit

        def stage(part: np.ndarray, limit: int = limit) -> Any:
            own = _lanes((state.x, state.context), part)
            some = _cast(take_lanes(problem, part), state.x.dtype)
            return _call("descend", size, some, *own, shared=(np.int32(limit),))

        blocks = [left[b] for b in _blocks(len(left), size)]
        new = _concatenate(list(pool.map(_in_x64(stage), blocks)))
        new = dataclasses.replace(new, n_iter=new.n_iter + state.n_iter[left])
        for old, fresh in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
            old[..., left] = fresh
        left = left[new.status == Status.ITERATION_LIMIT]
    return state


FUNCTIONS: dict[str, Callable] = {"descend": descend, "finish": finish}


def _call(name: str, size: int, problem: Problem, *lanes: Any, shared: tuple = ()) -> Any:
    """One of `FUNCTIONS` over lanes, padded to `size` so that all blocks share a program; NumPy out."""
    count = jax.tree.leaves(problem.origin)[0].shape[-1]
    problem, lanes = _padded(problem, size - count), jax.tree.map(lambda a: _pad(a, size - count), lanes)
    function = _compiled(name, unrollable(take_lanes(problem, 0).shared), len(lanes))
    one = np.ones((), problem.n.dtype)
    if jax.local_device_count() > 1:
        problem, lanes = _each(problem, lambda _, field: _sharded(field)), _sharded(lanes)
    with _compiling(function, size):
        result = function(one, problem, lanes, shared)
    return jax.tree.map(lambda a: np.array(np.asarray(a)[..., :count]), result)


def _sharded(tree: Any) -> Any:
    """Arrays whose last axis, that of lanes, is spread over the local devices."""
    mesh = jax.sharding.Mesh(
        np.array(jax.local_devices()), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,)
    )

    def place(a: Array) -> Array:
        spec = jax.sharding.PartitionSpec(*(None for _ in a.shape[:-1]), "lanes")
        return jax.device_put(a, jax.sharding.NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


@contextlib.contextmanager
def _compiling(function: Callable, size: int) -> Iterator[None]:
    """Lets one thread at a time make the first call of a program, so that none is compiled twice."""
    key = (id(function), size)
    if key in _ready:
        yield
        return
    with _lock:
        yield
        _ready.add(key)


_lock, _ready = threading.Lock(), set()


@cache
def _compiled(name: str, unrolled: bool, lanes: int) -> Callable:
    inner = unroll(FUNCTIONS[name]) if unrolled else lambda _, *args: FUNCTIONS[name](*args)

    def mapped(one: Array, problem: Problem, rest: tuple, shared: tuple) -> Any:
        axes = (None, _axes(problem), *(-1 for _ in rest), *(None for _ in shared))
        return jax.vmap(inner, in_axes=axes, out_axes=-1)(one, problem, *rest, *shared)

    return jax.jit(mapped)


def unrollable(shared: CrossProducts) -> bool:
    """Whether the arithmetic of one lane is short enough to be written out."""
    return shared.size <= SHORT


def lane_count(vector: int, total: int) -> int:
    """Responses a call: a power of two whose working set fits the cache; few sizes, few programs.

    A batch that is smaller than a call of the usual size takes a quarter of it, for less padding.
    """
    return 1 << int(
        np.log2(np.clip(WORKING_SET / vector, FEWEST, LANES if total > LANES // 2 else LANES // 4))
    )


def _own_designs(problem: Problem) -> bool:
    """Whether every lane has a design of its own: then all its arrays but κ trail with lanes."""
    return problem.n.ndim > 0


def _each(problem: Problem, function: Callable[[str, Any], Any]) -> Problem:
    """The problem with `function` applied to the fields that differ between lanes."""
    fields = ["response", "origin"]
    if _own_designs(problem):
        fields += ["shared", "basis", "n"]
    return dataclasses.replace(problem, **{name: function(name, getattr(problem, name)) for name in fields})


def _axes(problem: Problem) -> Problem:
    none = jax.tree.map(lambda _: None, problem)
    mapped = _each(problem, lambda _, field: jax.tree.map(lambda _: -1, field))
    fields = [
        f.name for f in dataclasses.fields(problem) if getattr(mapped, f.name) is not getattr(problem, f.name)
    ]
    return dataclasses.replace(none, **{name: getattr(mapped, name) for name in fields})


def take_lanes(problem: Problem, part: Any) -> Problem:
    """The problem of some lanes."""
    return _each(problem, lambda _, field: _lanes(field, part))


def _lanes(tree: Any, part: Any) -> Any:
    return jax.tree.map(lambda a: a[..., part], tree)


def _padded(problem: Problem, extra: int) -> Problem:
    return _each(problem, lambda _, field: jax.tree.map(lambda a: _pad(a, extra), field))


def _pad(a: Array, extra: int) -> Array:
    return np.concatenate([a, np.repeat(a[..., :1], extra, axis=-1)], axis=-1) if extra else a


def _cast(tree: Any, dtype: Any) -> Any:
    """NumPy arrays with those of floating point in another dtype, not copied where they have it."""
    return jax.tree.map(lambda a: a.astype(dtype, copy=False) if a.dtype.kind == "f" else a, tree)


def _concatenate(pieces: list[Any]) -> Any:
    """Join pieces along the lanes; shared arrays of problems are taken from the first."""
    if isinstance(pieces[0], tuple):
        return tuple(_concatenate([piece[k] for piece in pieces]) for k in range(len(pieces[0])))
    if isinstance(pieces[0], Problem):
        return _each(pieces[0], lambda name, _: _concatenate([getattr(piece, name) for piece in pieces]))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=-1), *pieces)


def _blocks(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def _in_x64(function: Callable) -> Callable:
    """`function` under 64-bit JAX and without NumPy's warnings, which are settings of the thread.

    A response that overflows gets a status; it needs no warning of its own.
    """

    def inside(*args: Any) -> Any:
        with jax.enable_x64(True), np.errstate(all="ignore"):
            return function(*args)

    return inside
