"""Many responses with one design: start, descend, gather those not yet converged, descend again, finish.

A mapped loop runs until its slowest lane stops, so every stage takes a few steps and the next one
sees only the lanes that are left. Up to `FEW` responses, and designs that are `sequential`, are fitted
one after the other. Every response gets one descent, from its moment start.
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
from lmmjax.estimate import Estimate, descend, estimate_jit, finish, moment_start
from lmmjax.gram import CrossProducts
from lmmjax.optimize import Status
from lmmjax.problem import Problem, ProblemMaker, response_axes
from lmmjax.unroll import unroll

LANES, FEWEST = 2048, 16
"""Responses advanced by one call, at most and at least."""

FEW = 512
"""Up to so many responses are fitted one after the other, by the program of a single fit."""

WORKING_SET = 100_000
"""Elements of one vector over the responses of a call that the second-level cache holds with its fellows."""

STAGES = (4, 8, 12, 12, 12, 100)
"""Evaluations of the criterion that the stages allow each of their lanes."""


def estimate_many(maker: ProblemMaker, y: np.ndarray, reml: bool = True, max_iter: int = 100) -> Estimate:
    """Fit every column of y (n, T); arrays of the result lead with T.

    Responses with a missing or infinite value get `Status.NOT_FINITE` and missing results.
    """
    total = y.shape[1]
    if total <= FEW or maker.prepared.shared.sequential:
        return _one_by_one(maker, y, reml, max_iter)
    size = lane_count(maker.prepared.shared)
    usable = np.ones(total, bool)
    parts = list(_blocks(total, size))
    pieces: list[Any] = [None] * len(parts)

    def begin(k: int) -> None:
        part = parts[k]
        block = np.asarray(y[:, part], dtype=float)
        good = np.isfinite(block.sum(axis=0))
        usable[part] = good
        problem = maker.lanes(block if good.all() else np.where(good, block, 0.0), reml)
        pieces[k] = (problem, *_call("start", size, problem))

    with ThreadPoolExecutor(_workers(maker.prepared.shared)) as pool:
        list(pool.map(_in_x64(begin), range(len(pieces))))
        problem, theta, turns = _concatenate(pieces)
        state = _descend(pool, size, problem, theta, turns, max_iter)
        done = pool.map(
            _in_x64(
                lambda part: _call("finish", size, _take(problem, part), *(_lanes(s, part) for s in state))
            ),
            parts,
        )
        result = _concatenate(list(done))
    return blank(jax.tree.map(lambda a: np.moveaxis(a, -1, 0), result), usable)


def _one_by_one(maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int) -> Estimate:
    """`estimate_many` as a loop."""
    values = np.asarray(y, dtype=float)
    usable = np.isfinite(values.sum(axis=0))
    with jax.enable_x64(True):
        problem = maker.lanes(np.where(usable, values, 0.0), reml)
        start = np.full(problem.structure.n_params, np.nan)
        results = [
            jax.tree.map(np.asarray, estimate_jit(_take(problem, k), start, max_iter=max_iter))
            for k in range(values.shape[1])
        ]
    return blank(jax.tree.map(lambda *arrays: np.stack(arrays), *results), usable)


def _descend(pool, size: int, problem: Problem, theta: Array, turns: tuple, max_iter: int) -> tuple:
    """Newton for all lanes: (θ, coordinates, state) with axes of lanes last."""
    total = theta.shape[-1]
    if not len(theta):
        return theta, turns, None
    left = np.arange(total)
    state: Any = None
    for most in STAGES:
        limit = min(most, max_iter)
        max_iter -= limit

        def stage(part: np.ndarray, limit: int = limit) -> Any:
            sub = _take(problem, part), theta[:, part], tuple(t[..., part] for t in turns)
            return _call("descend", size, *sub, shared=(np.int32(limit),))

        blocks = [left[b] for b in _blocks(len(left), size)]
        new = _concatenate(list(pool.map(_in_x64(stage), blocks)))
        if state is None:
            state = new
        else:
            new = dataclasses.replace(new, n_iter=new.n_iter + state.n_iter[left])
            for old, fresh in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
                old[..., left] = fresh
        theta[:, left] = new.x
        for turn, fresh in zip(turns, new.context, strict=True):
            turn[..., left] = fresh
        left = left[new.status == Status.ITERATION_LIMIT]
        if not len(left) or not max_iter:
            break
    return theta, turns, state


FUNCTIONS: dict[str, Callable] = {"start": moment_start, "descend": descend, "finish": finish}


def _call(name: str, size: int, problem: Problem, *lanes: Any, shared: tuple = ()) -> Any:
    """One of `FUNCTIONS` over lanes, padded to `size` so that all blocks share a program; NumPy out."""
    count = jax.tree.leaves(problem.origin)[0].shape[-1]
    problem, lanes = _padded(problem, size - count), jax.tree.map(lambda a: _pad(a, size - count), lanes)
    function = _compiled(name, _unrollable(problem.shared), len(lanes))
    one = np.ones((), problem.n.dtype)
    with _compiling(function, size):
        result = function(one, problem, lanes, shared)
    return jax.tree.map(lambda a: np.array(a[..., :count]), result)


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
        axes = (None, response_axes(problem, -1), *(-1 for _ in rest), *(None for _ in shared))
        return jax.vmap(inner, in_axes=axes, out_axes=-1)(one, problem, *rest, *shared)

    return jax.jit(mapped)


def _unrollable(shared: CrossProducts) -> bool:
    """Whether the arithmetic of one lane is short enough to be written out."""
    return shared.size <= 60


def _take(problem: Problem, part: Any) -> Problem:
    """The problem of some lanes."""
    return dataclasses.replace(
        problem, response=_lanes(problem.response, part), origin=_lanes(problem.origin, part)
    )


def _lanes(tree: Any, part: Any) -> Any:
    return jax.tree.map(lambda a: a[..., part], tree)


def _padded(problem: Problem, extra: int) -> Problem:
    return dataclasses.replace(
        problem,
        response=jax.tree.map(lambda a: _pad(a, extra), problem.response),
        origin=jax.tree.map(lambda a: _pad(a, extra), problem.origin),
    )


def _pad(a: Array, extra: int) -> Array:
    return np.concatenate([a, np.repeat(a[..., :1], extra, axis=-1)], axis=-1) if extra else a


def _concatenate(pieces: list[Any]) -> Any:
    """Join pieces along the lanes; shared arrays of problems are taken from the first."""
    if isinstance(pieces[0], tuple):
        return tuple(_concatenate([piece[k] for piece in pieces]) for k in range(len(pieces[0])))
    if isinstance(pieces[0], Problem):
        return dataclasses.replace(
            pieces[0],
            response=_concatenate([piece.response for piece in pieces]),
            origin=_concatenate([piece.origin for piece in pieces]),
        )
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=-1), *pieces)


def lane_count(shared: CrossProducts) -> int:
    """Responses a call: a power of two whose working set fits the cache; few sizes, few programs."""
    return 1 << int(np.log2(np.clip(WORKING_SET / shared.vector, FEWEST, LANES)))


def _blocks(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def _workers(shared: CrossProducts) -> int:
    """Threads for blocks of lanes; one for programs that call LAPACK, which can block each other."""
    return min(4, os.cpu_count() or 1) if _unrollable(shared) else 1


def _in_x64(function: Callable) -> Callable:
    """`function` under 64-bit JAX, which is a setting of the thread."""

    def inside(*args: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args)

    return inside


def blank(result: Estimate, usable: np.ndarray) -> Estimate:
    """Missing values in the lanes (T,) that are not usable, and their status."""
    status = np.where(usable, result.status, Status.NOT_FINITE)
    bad = np.isin(status, (Status.PERFECT_FIT, Status.NOT_FINITE))
    if not bad.any():
        return dataclasses.replace(result, status=status)

    def mask(a: Array) -> Array:
        if not np.issubdtype(a.dtype, np.floating):
            return a
        return np.where(bad.reshape((-1,) + (1,) * (a.ndim - 1)), np.nan, a)

    return dataclasses.replace(jax.tree.map(mask, result), status=status)
