"""Newton for many lanes: descend a few steps, gather those not yet converged, descend again, conclude.

A mapped loop runs until its slowest lane stops, so every stage takes a few steps and the next one sees
only the lanes that are left.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np

from lmmjax.arrays.compile import plays_now
from lmmjax.arrays.processors import cores
from lmmjax.batch.lane import RENEW, RESUME, START
from lmmjax.batch.lanes import (
    MOST_THREADS,
    blocks,
    cast,
    in_x64,
    join_lanes,
    lane_devices,
    put,
    some_lanes,
    take_lanes,
)
from lmmjax.batch.programs import Way, call, compile_ahead
from lmmjax.core import Estimate, Problem
from lmmjax.core.descents import better, count_optima, optimum_of, surpassed, uncertified
from lmmjax.optimize import NewtonState, Status, at_rest

FIRST, PERIOD = 3, 12
"""Evaluations before lanes are gathered, and those after which a slow lane takes new coordinates."""

CROWD = 4
"""While more than so many calls are needed for the lanes that are left, they are gathered every time."""

UNOPTIMISED = 4096
"""Lanes in all up to which half the compilation is worth two to four times the time of a step."""

EARLY = 3e-9
"""Decrement from which the step that is left is taken without a look, and its end certified by `conclude`."""

CERTIFIED = 4.0
"""The decrement of the certificate, in units of that at which a descent stops: programs round apart."""


def fit_lanes(
    total: int,
    size: int,
    block: Callable[[slice], Problem],
    max_iter: int,
    starts: Sequence[np.ndarray | None] = (None,),
    dtype: Any = np.float64,
) -> tuple[Estimate, np.ndarray]:
    """All stages for `total` responses, whose problems `block` makes; arrays of the result lead with T.

    Also how many different optima (T,) the descents of each ended at.

    Parameters
    ----------
    starts : θ (m,) in internal coordinates, the same for all, or None for the moment start of each: of the
        descents, of which the best is kept.
    dtype : of the descents. The results are evaluated at their ends in the dtype of the problems.
    """
    # a block is as many lanes as one device takes, times the devices, which work on one block together
    devices = len(lane_devices())
    size *= devices
    threads = min(cores(), MOST_THREADS) if devices == 1 else 1
    pool = _pool(threads)
    # with a block for every thread nothing is gained by gathering lanes
    first = FIRST if total > threads * size else PERIOD
    few = total <= UNOPTIMISED
    way = Way(few, {} if few and devices == 1 and plays_now() else None)
    run = _Run(pool, size, max_iter, first, np.dtype(dtype), way)

    def begin(part: slice) -> tuple:
        problem = block(part)
        if not problem.structure.n_params:
            return (problem,)
        state = run.standing(problem, starts[0])
        if part.start == 0:
            compile_ahead(
                "conclude",
                size,
                problem,
                cast(state, problem.n.dtype),
                shared=(run.bound(problem),),
                way=run.way,
            )
        return problem, run.begin(problem, starts[0], state)

    problem, *begun = join_lanes(list(pool.map(in_x64(begin), list(blocks(total, size)))))
    if not begun:
        rest = (np.zeros((0, total), problem.n.dtype), ())

        def only(part: slice) -> Estimate:
            return call("finish", size, take_lanes(problem, part), *some_lanes(rest, part), way=run.way)

        result = run.over(total, only)
        ends = [result.deviance]
    else:
        result = run.certified(problem, begun[0])
        ends, lowest = [optimum_of(result)], uncertified(result)
        for start in starts[1:]:
            state = run.over(total, lambda part, start=start: run.begin(take_lanes(problem, part), start))
            other = run.certified(problem, state)
            ends.append(optimum_of(other))
            lowest = np.minimum(lowest, uncertified(other))
            won = np.flatnonzero(better(other, result))
            put(result, won, some_lanes(other, won))
        result = surpassed(result, lowest)
    count = count_optima(np.stack(ends), result.status == Status.CONVERGED)
    return jax.tree.map(lambda a: np.moveaxis(a, -1, 0), result), count


@dataclasses.dataclass(frozen=True)
class _Run:
    """How the lanes of one batch are advanced: by which threads, how many a call, how far, in which dtype.

    `first` evaluations come before lanes are gathered.
    """

    pool: ThreadPoolExecutor
    size: int
    max_iter: int
    first: int
    dtype: np.dtype
    way: Way

    def standing(self, problem: Problem, start: np.ndarray | None) -> NewtonState:
        """The states of lanes before their first evaluation, at `start` (m,) or where it does not matter."""
        structure, lanes = problem.structure, problem.origin.scale.shape[-1]
        begin = np.zeros(structure.n_params) if start is None else start
        pivoting = structure.eyes(float)
        arrays = (np.asarray(a, self.dtype)[..., None] for a in (begin, *pivoting))
        x, *pivoting = (np.repeat(a, lanes, axis=-1) for a in arrays)
        return at_rest(x, tuple(pivoting), ())

    def begin(
        self, problem: Problem, start: np.ndarray | None, state: NewtonState | None = None
    ) -> NewtonState:
        """The first stage for lanes of one block, from `start` (m,) or, where it is None, from moments."""
        state = self.standing(problem, start) if state is None else state
        return self.stage(problem, state, START if start is None else RENEW, self.first, EARLY)

    def over(self, total: int, function: Callable[[slice], Any]) -> Any:
        """`function` of every block of `total` lanes, joined."""
        return join_lanes(list(self.pool.map(in_x64(function), list(blocks(total, self.size)))))

    def stage(
        self, problem: Problem, state: NewtonState, begin: int, limit: int, early: float
    ) -> NewtonState:
        """Up to `limit` evaluations in all for lanes of one block."""
        shared = np.int32(begin), np.int32(min(limit, self.max_iter)), self.dtype.type(early)
        return call(
            "newton_steps",
            self.size,
            cast(problem, self.dtype),
            state,
            shared=shared,
            way=self.way,
        )

    def later(self, problem: Problem, state: NewtonState, early: float) -> NewtonState:
        """The later stages, each for the lanes that are left; all of these have used as many evaluations."""
        left, base = np.flatnonzero(state.status == Status.ITERATION_LIMIT), 0
        while len(left) and (used := int(state.n_iter[left[0]])) < self.max_iter:
            renew = used - base in (0, PERIOD)
            base = used if renew else base
            more = 1 if len(left) > CROWD * self.size else PERIOD - (used - base)
            limit = min(used + more, self.max_iter) - base

            def some(part: slice, left=left, renew=renew, base=base, limit=limit) -> NewtonState:
                lanes = left[part]
                own = some_lanes(state, lanes)
                own = (
                    _restarted(own) if renew else dataclasses.replace(own, n_iter=own.n_iter - np.int32(base))
                )
                return self.stage(take_lanes(problem, lanes), own, RENEW if renew else RESUME, limit, early)

            new = self.over(len(left), some)
            new = dataclasses.replace(new, n_iter=new.n_iter + np.int32(base))
            put(state, left, new)
            left = left[new.status == Status.ITERATION_LIMIT]
        return state

    def certified(self, problem: Problem, state: NewtonState) -> Estimate:
        """The later stages, and the records of the fits at their ends."""
        state = self.later(problem, state, EARLY)
        result = self.conclude(problem, state)
        # the step that nobody looked at was not good enough
        left = np.flatnonzero(
            (result.status == Status.ITERATION_LIMIT) & np.isin(state.status, (Status.CONVERGED, Status.FLAT))
        )
        if len(left):
            some, again = take_lanes(problem, left), _restarted(some_lanes(state, left))
            part = self.conclude(some, self.later(some, again, 0.0))
            put(result, left, dataclasses.replace(part, n_iter=part.n_iter + result.n_iter[left]))
        return result

    def bound(self, problem: Problem) -> np.floating:
        """The decrement of the certificate."""
        return problem.n.dtype.type(CERTIFIED * float(np.finfo(self.dtype).eps) ** 0.875)

    def conclude(self, problem: Problem, state: NewtonState) -> Estimate:
        """The records of the fits, certified."""
        bound = self.bound(problem)
        state = cast(state, problem.n.dtype)

        def end(part: slice) -> Estimate:
            problems, states = take_lanes(problem, part), some_lanes(state, part)
            return call("conclude", self.size, problems, states, shared=(bound,), way=self.way)

        return self.over(state.n_iter.shape[-1], end)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: new ones meet new memory, and touching it first took a third of the time."""
    return ThreadPoolExecutor(threads)


# a forked process has none of its parent's threads
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _restarted(state: NewtonState) -> NewtonState:
    """States at the same points, of which nothing is known but how far steps may go, where that is far."""
    unfinished = np.full_like(state.status, Status.ITERATION_LIMIT)
    far = np.maximum(state.radius, state.radius.dtype.type(1))
    return dataclasses.replace(at_rest(state.x, state.context, ()), status=unfinished, radius=far)
