"""Newton for many lanes: descend a few steps, gather those not yet converged, descend again, conclude.

A mapped loop runs until its slowest lane stops, so every stage takes a few steps and the next one sees
only the lanes that are left.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np

from lmmjax.covariance import Structure
from lmmjax.estimate import Estimate
from lmmjax.lane_programs import call
from lmmjax.lanes import blocks, cast, join_lanes, put, some_lanes, take_lanes
from lmmjax.optimize import NewtonState, Status, at_rest
from lmmjax.problem import Problem

STAGES = (4, 6, 12, 12, 12, 100)
"""Evaluations of the criterion that the stages allow each of their lanes."""

EARLY = 1e-8
"""Decrement from which the step that is left is taken without a look, and its end certified by `conclude`."""

CERTIFIED = 4.0
"""The decrement of the certificate, in units of that at which a descent stops: programs round apart."""


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
    pool = _pool(min(4, os.cpu_count() or 1) if threaded else 1)
    run = _Run(pool, size, max_iter, np.dtype(dtype))

    def begin(part: slice) -> tuple:
        problem = block(part)
        if not problem.structure.n_params:
            return (problem,)
        state = _standing(problem.structure, part.stop - part.start, start, run.dtype)
        return problem, run.stage(problem, state, STAGES[0], EARLY)

    problem, *begun = join_lanes(list(pool.map(in_x64(begin), list(blocks(total, size)))))
    if not begun:
        rest = (np.zeros((0, total), problem.n.dtype), ())
        result = run.over(
            total, lambda part: call("finish", size, take_lanes(problem, part), *some_lanes(rest, part))
        )
    else:
        state = run.later(problem, begun[0], EARLY)
        result = run.conclude(problem, state)
        # the step that nobody looked at was not good enough
        left = np.flatnonzero((result.status == Status.ITERATION_LIMIT) & (state.status == Status.CONVERGED))
        if len(left):
            some, again = take_lanes(problem, left), _restarted(some_lanes(state, left))
            part = run.conclude(some, run.later(some, again, 0.0))
            put(result, left, dataclasses.replace(part, n_iter=part.n_iter + result.n_iter[left]))
    return jax.tree.map(lambda a: np.moveaxis(a, -1, 0), result)


@dataclasses.dataclass(frozen=True)
class _Run:
    """How the lanes of one batch are advanced: by which threads, how many a call, how far, in which dtype."""

    pool: ThreadPoolExecutor
    size: int
    max_iter: int
    dtype: np.dtype

    def over(self, total: int, function: Callable[[slice], Any]) -> Any:
        """`function` of every block of `total` lanes, joined."""
        return join_lanes(list(self.pool.map(in_x64(function), list(blocks(total, self.size)))))

    def stage(self, problem: Problem, state: NewtonState, limit: int, early: float) -> NewtonState:
        """Up to `limit` evaluations in all for lanes of one block."""
        most = np.int32(min(limit, self.max_iter))
        return call(
            "descend", self.size, cast(problem, self.dtype), state, shared=(most, self.dtype.type(early))
        )

    def later(self, problem: Problem, state: NewtonState, early: float) -> NewtonState:
        """The later stages, each for the lanes that are left; all of these have used as many evaluations."""
        left = np.flatnonzero(state.status == Status.ITERATION_LIMIT)
        for k, more in enumerate(STAGES[1:]):
            used = int(state.n_iter[left[0]]) if len(left) else 0
            limit = min(more, self.max_iter - used)
            if not len(left) or limit <= 0:
                break
            # a slow lane goes on in new coordinates
            renew = k > 0 and used > 0
            if not renew:
                limit += used

            def some(part: slice, left: np.ndarray = left, renew: bool = renew, limit: int = limit) -> Any:
                lanes = left[part]
                own = some_lanes(state, lanes)
                return self.stage(take_lanes(problem, lanes), _restarted(own) if renew else own, limit, early)

            new = self.over(len(left), some)
            new = dataclasses.replace(new, n_iter=new.n_iter + used * renew)
            put(state, left, new)
            left = left[new.status == Status.ITERATION_LIMIT]
        return state

    def conclude(self, problem: Problem, state: NewtonState) -> Estimate:
        """The records of the fits, certified."""
        bound = problem.n.dtype.type(CERTIFIED * float(np.finfo(self.dtype).eps) ** 0.875)
        state = cast(state, problem.n.dtype)

        def end(part: slice) -> Estimate:
            return call(
                "conclude", self.size, take_lanes(problem, part), some_lanes(state, part), shared=(bound,)
            )

        return self.over(state.n_iter.shape[-1], end)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: new ones meet new memory, and touching it first took a third of the time."""
    return ThreadPoolExecutor(threads)


# a forked process has none of its parent's threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _standing(structure: Structure, lanes: int, start: np.ndarray | None, dtype: np.dtype) -> NewtonState:
    """The states of lanes before their first evaluation, at `start` (m,) or, as NaN, the moment start."""
    first = np.full(structure.n_params, np.nan) if start is None else start
    turns = [np.eye(term.q) for term in structure.terms]
    x, *turns = (np.repeat(np.asarray(a, dtype)[..., None], lanes, axis=-1) for a in (first, *turns))
    return at_rest(x, tuple(turns), ())


def _restarted(state: NewtonState) -> NewtonState:
    """States at the same points, of which nothing is known."""
    unfinished = np.full_like(state.status, Status.ITERATION_LIMIT)
    return dataclasses.replace(at_rest(state.x, state.context, ()), status=unfinished)


def in_x64(function: Callable) -> Callable:
    """`function` under 64-bit JAX and without NumPy's warnings, which are settings of the thread.

    A response that overflows gets a status; it needs no warning of its own.
    """

    def inside(*args: Any) -> Any:
        with jax.enable_x64(True), np.errstate(all="ignore"):
            return function(*args)

    return inside
