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
from lmmjax.design import take_rows
from lmmjax.estimate import Estimate, descend, estimate_jit, finish
from lmmjax.gram import CrossProducts
from lmmjax.optimize import Status
from lmmjax.problem import Problem, ProblemMaker
from lmmjax.unroll import unroll

LANES, FEWEST = 2048, 16
"""Responses advanced by one call, at most and at least."""

FEW = 512
"""Up to so many responses are fitted one after the other, by the program of a single fit."""

WORKING_SET = 100_000
"""Elements of one vector over the responses of a call that the second-level cache holds with its fellows."""

STAGES = (4, 8, 12, 12, 12, 100)
"""Evaluations of the criterion that the stages allow each of their lanes."""


def estimate_many(
    maker: ProblemMaker,
    y: np.ndarray,
    reml: bool = True,
    max_iter: int = 100,
    weights: np.ndarray | None = None,
) -> Estimate:
    """Fit every column of y (n, T); arrays of the result lead with T.

    A missing value (NaN) leaves its row out of the fit of its response, and nothing else. Responses with an
    infinite value get `Status.NOT_FINITE`, those with too few values left `Status.NOT_ESTIMABLE`; their
    results are missing.

    Parameters
    ----------
    weights : (n, T) weights ≥ 0 of every value, Var(ε) = σ²/w, times those of the design; 0 leaves the
        value out.
    """
    if weights is not None:
        return _own_weights(maker, y, weights, reml, max_iter)
    result, usable = _shared_design(maker, y, reml, max_iter)
    if usable.all():
        return result
    left = np.flatnonzero(~usable)
    return _merge(result, left, _incomplete(maker, y[:, left], reml, max_iter))


def _shared_design(
    maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int
) -> tuple[Estimate, np.ndarray]:
    """Fits of the complete columns of y (n, T), and which they are (T,)."""
    total = y.shape[1]
    shared = maker.prepared.shared
    if total <= FEW or shared.sequential:
        return _one_by_one(maker, y, reml, max_iter)
    usable = np.ones(total, bool)

    def block(part: slice) -> Problem:
        values = np.asarray(y[:, part], dtype=float)
        good = np.isfinite(values.sum(axis=0))
        usable[part] = good
        return maker.lanes(values if good.all() else np.where(good, values, 0.0), reml)

    result = _engine(total, lane_count(shared.vector), _unrollable(shared), block, max_iter)
    return blank(result, ~usable, Status.NOT_FINITE), usable


def _own_weights(
    maker: ProblemMaker, y: np.ndarray, weights: np.ndarray, reml: bool, max_iter: int
) -> Estimate:
    """Fits of responses with weights of their own."""
    if maker.prepared.shared.sequential:
        return _by_pattern(maker, y, weights, reml, max_iter)
    from lmmjax.gram.ownweights import OwnWeights

    products = OwnWeights(maker.design, maker.basis)
    total = y.shape[1]
    finite, estimable = np.ones(total, bool), np.ones(total, bool)
    own = maker.design.weights
    kappa = np.asarray(float(reml))

    def block(part: slice) -> Problem:
        values, w = np.asarray(y[:, part], dtype=float), np.asarray(weights[:, part], dtype=float)
        w = np.where(np.isnan(values), 0.0, w if own is None else w * own[:, None])
        good = ~np.isinf(values).any(axis=0) & np.isfinite(w).all(axis=0) & (w >= 0).all(axis=0)
        w, values = np.where(good, w, 1.0), np.where(good, values, 0.0)
        shared, response, origin, basis, n, fine = products(np.nan_to_num(values), w)
        finite[part], estimable[part] = good, fine
        return Problem(shared, response, origin, basis, n, kappa, maker.design.structure)

    q, groups = products.z.shape[0], products.groups
    result = _engine(total, lane_count(groups * q**2 * 4), True, block, max_iter)
    result = blank(result, ~estimable, Status.NOT_ESTIMABLE)
    return blank(result, ~finite, Status.NOT_FINITE)


def _incomplete(maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int) -> Estimate:
    """Fits of responses with missing values: by pattern where many share one, else by weights of 0 and 1."""
    codes = np.unique(np.packbits(np.isnan(y), axis=0), axis=1, return_inverse=True)[1].ravel()
    size = np.bincount(codes)[codes]
    common = (size >= FEW // 8) | maker.prepared.shared.sequential
    if y.shape[1] - common.sum() < FEW // 8:
        common[:] = True
    result = None
    for chosen, fit in ((common, _by_pattern), (~common, _own_weights)):
        where = np.flatnonzero(chosen)
        if len(where):
            part = fit(maker, y[:, where], np.ones((len(y), len(where))), reml, max_iter)
            if result is None:
                result = jax.tree.map(lambda a: np.zeros((y.shape[1], *a.shape[1:]), a.dtype), part)
            result = _merge(result, where, part)
    assert result is not None
    return result


def _by_pattern(
    maker: ProblemMaker, y: np.ndarray, weights: np.ndarray, reml: bool, max_iter: int
) -> Estimate:
    """Fits with a design for every pattern of rows and weights."""
    key = np.where(np.isnan(y), 0.0, weights)
    _, first, pattern = np.unique(key, axis=1, return_index=True, return_inverse=True)
    result = None
    for k, one in enumerate(first):
        where = np.flatnonzero(pattern.ravel() == k)
        w = key[:, one]
        try:
            sub = ProblemMaker(take_rows(maker.design, w > 0, w), maker.backend)
            part = _shared_design(sub, y[w > 0][:, where], reml, max_iter)[0]
        except ValueError:
            m, p = maker.design.structure.n_entries, maker.design.p
            part = nothing(len(where), p, m, maker.design.structure.n_params)
        if result is None:
            result = jax.tree.map(lambda a: np.zeros((y.shape[1], *a.shape[1:]), a.dtype), part)
        result = _merge(result, where, part)
    assert result is not None
    return result


def _merge(result: Estimate, where: np.ndarray, part: Estimate) -> Estimate:
    """`result` with its lanes `where` replaced."""
    for old, new in zip(jax.tree.leaves(result), jax.tree.leaves(part), strict=True):
        old[where] = new
    return result


def nothing(lanes: int, p: int, m: int, n_params: int) -> Estimate:
    """Missing results of responses that cannot be estimated."""

    def void(*shape: int) -> np.ndarray:
        return np.full((lanes, *shape), np.nan)

    return Estimate(
        theta=void(n_params),
        psi=void(m + 1),
        beta=void(p),
        sigma2=void(),
        cov_beta=void(p, p),
        cov_psi=void(m + 1, m + 1),
        deviance=void(),
        status=np.full(lanes, Status.NOT_ESTIMABLE, np.int32),
        grad_norm=void(),
        decrement=void(),
        n_iter=np.zeros(lanes, np.int32),
        singular=np.zeros(lanes, bool),
    )


def _engine(
    total: int, size: int, threaded: bool, block: Callable[[slice], Problem], max_iter: int
) -> Estimate:
    """All stages for `total` responses, whose problems `block` makes; arrays of the result lead with T."""
    parts = list(_blocks(total, size))

    def begin(part: slice) -> tuple:
        problem = block(part)
        structure = problem.structure
        if not structure.n_params:
            return (problem,)
        lanes = part.stop - part.start
        theta = np.full((structure.n_params, lanes), np.nan)
        turns = tuple(np.zeros((term.q, term.q, lanes)) for term in structure.terms)
        limit = np.int32(min(STAGES[0], max_iter))
        return problem, _call("descend", size, problem, theta, turns, shared=(limit,))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1) if threaded else 1) as pool:
        problem, *begun = _concatenate(list(pool.map(_in_x64(begin), parts)))
        if begun:
            state = _descend(pool, size, problem, begun[0], max_iter - STAGES[0])
            point = (state.x, state.context, state)
        else:
            point = (np.zeros((0, total)), (), None)

        def end(part: slice) -> Estimate:
            return _call("finish", size, _take(problem, part), *_lanes(point, part))

        result = _concatenate(list(pool.map(_in_x64(end), parts)))
    return jax.tree.map(lambda a: np.moveaxis(a, -1, 0), result)


def _one_by_one(maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int) -> tuple[Estimate, np.ndarray]:
    """`_shared_design` as a loop."""
    values = np.asarray(y, dtype=float)
    usable = np.isfinite(values.sum(axis=0))
    with jax.enable_x64(True):
        problem = maker.lanes(np.where(usable, values, 0.0), reml)
        start = np.full(problem.structure.n_params, np.nan)
        results = [
            jax.tree.map(np.asarray, estimate_jit(_take(problem, k), start, max_iter=max_iter))
            for k in range(values.shape[1])
        ]
    result = jax.tree.map(lambda *arrays: np.stack(arrays), *results)
    return blank(result, ~usable, Status.NOT_FINITE), usable


def _descend(pool: ThreadPoolExecutor, size: int, problem: Problem, state: Any, max_iter: int) -> Any:
    """The later stages of Newton, each for the lanes that are left; axes of lanes are last."""
    left = np.flatnonzero(state.status == Status.ITERATION_LIMIT)
    for most in STAGES[1:]:
        limit = min(most, max_iter)
        if not len(left) or limit <= 0:
            break
        max_iter -= limit

        def stage(part: np.ndarray, limit: int = limit) -> Any:
            own = _lanes((state.x, state.context), part)
            return _call("descend", size, _take(problem, part), *own, shared=(np.int32(limit),))

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
    function = _compiled(name, _unrollable(problem.shared), len(lanes))
    one = np.ones((), problem.n.dtype)
    with _compiling(function, size):
        result = function(one, problem, lanes, shared)
    return jax.tree.map(lambda a: np.array(np.asarray(a)[..., :count]), result)


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


def _unrollable(shared: CrossProducts) -> bool:
    """Whether the arithmetic of one lane is short enough to be written out."""
    return shared.size <= 60


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


def _take(problem: Problem, part: Any) -> Problem:
    """The problem of some lanes."""
    return _each(problem, lambda _, field: _lanes(field, part))


def _lanes(tree: Any, part: Any) -> Any:
    return jax.tree.map(lambda a: a[..., part], tree)


def _padded(problem: Problem, extra: int) -> Problem:
    return _each(problem, lambda _, field: jax.tree.map(lambda a: _pad(a, extra), field))


def _pad(a: Array, extra: int) -> Array:
    return np.concatenate([a, np.repeat(a[..., :1], extra, axis=-1)], axis=-1) if extra else a


def _concatenate(pieces: list[Any]) -> Any:
    """Join pieces along the lanes; shared arrays of problems are taken from the first."""
    if isinstance(pieces[0], tuple):
        return tuple(_concatenate([piece[k] for piece in pieces]) for k in range(len(pieces[0])))
    if isinstance(pieces[0], Problem):
        return _each(pieces[0], lambda name, _: _concatenate([getattr(piece, name) for piece in pieces]))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=-1), *pieces)


def lane_count(vector: int) -> int:
    """Responses a call: a power of two whose working set fits the cache; few sizes, few programs."""
    return 1 << int(np.log2(np.clip(WORKING_SET / vector, FEWEST, LANES)))


def _blocks(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def _in_x64(function: Callable) -> Callable:
    """`function` under 64-bit JAX, which is a setting of the thread."""

    def inside(*args: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args)

    return inside


def blank(result: Estimate, bad: np.ndarray, status: Status) -> Estimate:
    """Missing values and a status in the lanes `bad` (T,)."""
    if not bad.any():
        return result

    def mask(a: Array) -> Array:
        if not np.issubdtype(a.dtype, np.floating):
            return a
        return np.where(bad.reshape((-1,) + (1,) * (a.ndim - 1)), np.nan, a)

    masked = jax.tree.map(mask, result)
    return dataclasses.replace(masked, status=np.where(bad, int(status), result.status).astype(np.int32))
