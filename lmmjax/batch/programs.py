"""Programs over lanes: mapped, unrolled where short, compiled once, and called with padded blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.unroll import Elements, unroll
from lmmjax.batch.lane import conclude, newton_steps
from lmmjax.batch.lanes import axes_of, each, in_x64, lane_devices, pad, padded, take_lanes
from lmmjax.core import Problem
from lmmjax.core.estimate import finish
from lmmjax.gram import CrossProducts
from lmmjax.gram.grouped.products import SHORT

FUNCTIONS: dict[str, Callable] = {"newton_steps": newton_steps, "conclude": conclude, "finish": finish}

PLAYED_LANES = 100_000
"""Lanes of one kind of program, over all batches, up to which they are played rather than compiled."""

_played: Counter[tuple] = Counter()


@dataclasses.dataclass(frozen=True)
class Way:
    """How the programs of one batch run.

    Attributes
    ----------
    few : whether lanes are so few in all that the compiler does not optimise what is written out.
    plays : which programs NumPy plays, settled for the batch where one is needed first; None: none is played.
    """

    few: bool
    plays: dict[tuple, bool] | None

    def played(self, key: tuple) -> bool:
        """Whether this batch plays a program: until `PLAYED_LANES` of its kind have been, in earlier ones."""
        return self.plays is not None and self.plays.setdefault(key, _played[key] < PLAYED_LANES)


def call(name: str, size: int, problem: Problem, *lanes: Any, way: Way, shared: tuple = ()) -> Any:
    """One of `FUNCTIONS` over lanes, padded to `size` so that all blocks share a program; NumPy out."""
    count = jax.tree.leaves(problem.origin)[0].shape[-1]
    problem, lanes = padded(problem, size - count), jax.tree.map(lambda a: pad(a, size - count), lanes)
    devices = lane_devices()
    arguments = np.ones((), problem.n.dtype), problem, lanes, shared
    key = way.few, *_signature(name, arguments)
    playing = way.played(key)
    if playing:
        _played[key] += count
    unrolled = unrollable(take_lanes(problem, 0).shared)
    function = _compiled(name, unrolled, way.few, playing, devices[0].platform)
    if len(devices) > 1:
        problem = each(problem, lambda _, field: _sharded(field, devices))
        lanes = _sharded(lanes, devices)
        arguments = arguments[0], problem, lanes, shared
    with _compiling((playing, *key)):
        result = function(*arguments)
    return jax.tree.map(
        lambda leaf: _joined(leaf, count), result, is_leaf=lambda leaf: isinstance(leaf, Elements)
    )


def compile_ahead(name: str, size: int, problem: Problem, *lanes: Any, way: Way, shared: tuple = ()) -> None:
    """Compile in the background what a `call` will need: tracing one program overlaps compiling another."""
    full = padded(problem, size - jax.tree.leaves(problem.origin)[0].shape[-1])
    wide = jax.tree.map(lambda a: pad(a, size - a.shape[-1]), lanes)
    key = way.few, *_signature(name, (np.ones((), problem.n.dtype), full, wide, shared))
    if not way.played(key) and (False, *key) not in _ready:
        task = in_x64(lambda: call(name, size, problem, *lanes, way=way, shared=shared))
        threading.Thread(target=task).start()


def _signature(name: str, arguments: tuple) -> tuple:
    """What a compiled program is chosen by."""
    leaves, structure = jax.tree.flatten(arguments)
    return name, structure, tuple((np.shape(a), a.dtype.char) for a in leaves)


def _joined(leaf: Any, count: int) -> np.ndarray:
    """The first `count` lanes of an array, or of its elements, as NumPy."""
    if not isinstance(leaf, Elements):
        return np.array(np.asarray(leaf)[..., :count])
    out = np.empty((len(leaf.items), count), leaf.items[0].dtype if leaf.items else float)
    for row, item in zip(out, leaf.items, strict=True):
        row[:] = np.asarray(item)[:count]
    return out.reshape(*leaf.shape, count)


def unrollable(shared: CrossProducts) -> bool:
    """Whether the arithmetic of one lane is short enough to be written out."""
    return shared.size <= SHORT


def _sharded(tree: Any, devices: list[Any]) -> Any:
    """Arrays whose last axis, that of lanes, is spread over the devices."""
    mesh = jax.sharding.Mesh(np.array(devices), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(a: Array) -> Array:
        spec = jax.sharding.PartitionSpec(*(None for _ in a.shape[:-1]), "lanes")
        return jax.device_put(a, jax.sharding.NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


@contextlib.contextmanager
def _compiling(key: tuple) -> Iterator[None]:
    """Lets one thread at a time make the first call of a program, so that none is compiled twice."""
    if key in _ready:
        yield
        return
    with _lock:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        yield
        _ready.add(key)


_lock, _locks, _ready = threading.Lock(), {}, set()


@cache
def _compiled(name: str, unrolled: bool, few: bool, playing: bool, platform: str) -> Callable:
    inner = unroll(FUNCTIONS[name], apart=True)

    def over(function: Callable) -> Callable:
        def mapped(one: Array, problem: Problem, rest: tuple, shared: tuple) -> Any:
            axes = (None, axes_of(problem), *(-1 for _ in rest), *(None for _ in shared))
            return jax.vmap(function, in_axes=axes, out_axes=-1)(one, problem, *rest, *shared)

        return mapped

    whole = over(lambda _, *args: FUNCTIONS[name](*args))
    mapped = over(inner) if unrolled else whole
    if platform != "cpu":
        return jax.jit(mapped)
    return quick_jit(
        mapped,
        short=np.inf if few and unrolled else 0,
        name=f"lanes of {name}{', unrolled' if unrolled else ''}",
        plays=whole if playing else False,
    )
