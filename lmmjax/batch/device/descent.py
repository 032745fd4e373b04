"""The stages of `batch.newton_lanes` for lanes on devices.

A few steps for all; then those that go on are gathered there, and put back. The host hears how many they
are. The steps of a lane, where its coordinates are renewed, and what certifies its end are those of the
host's way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.batch.device.lanes import (
    call,
    counted,
    gathered,
    joined,
    on_lanes,
    packed,
    put,
    unfinished,
    unpacked,
    unseen,
    varying,
)
from lmmjax.batch.device.pipeline import Block, through_blocks
from lmmjax.batch.device.where import Place
from lmmjax.batch.lane import RENEW, RESUME, START
from lmmjax.batch.newton_lanes import CERTIFIED, EARLY, FIRST, PERIOD
from lmmjax.core import Estimate, Problem
from lmmjax.core.descents import better, count_optima, optimum_of, surpassed, uncertified
from lmmjax.optimize import NewtonState, Status, at_rest


def fit_on_devices(
    place: Place,
    total: int,
    lanes: int,
    block: Block,
    max_iter: int,
    starts: Sequence[np.ndarray | None] = (None,),
    dtype: Any = np.float64,
) -> tuple[Estimate, np.ndarray]:
    """`newton_lanes.fit_lanes` on devices: all stages for `total` responses, `lanes` a device at a time."""

    def fitted(part: slice, lanes: int, problem: Problem) -> tuple[Estimate, np.ndarray]:
        return _fitted(_Run(place, lanes, max_iter, np.dtype(dtype)), part, problem, starts)

    whole, count = through_blocks(place, total, lanes, block, fitted)
    return jax.tree.map(lambda a: np.moveaxis(a, -1, 0), whole), count


def _fitted(
    run: _Run, part: slice, problem: Problem, starts: Sequence[np.ndarray | None]
) -> tuple[Estimate, np.ndarray]:
    """The records of a block on the host, trailing with its responses, and how many optima each has."""
    count = part.stop - part.start
    if not problem.structure.n_params:
        result = run.only(problem, count)
        return result, count_optima(np.stack([result.deviance]))
    result, ends, lowest = None, [], np.full(count, np.inf)
    descents = _cast(problem, dtype=run.dtype.name) if problem.n.dtype != run.dtype else problem
    for start in starts:
        other = run.descended(problem, descents, start, count)
        ends.append(optimum_of(other))
        lowest = np.minimum(lowest, uncertified(other))
        if result is None:
            result = other
            continue
        won = better(other, result)
        result = jax.tree.map(lambda old, new, won=won: np.where(won, new, old), result, other)
    assert result is not None
    result = surpassed(result, lowest)
    return result, count_optima(np.stack(ends), result.status == Status.CONVERGED)


@dataclasses.dataclass(frozen=True)
class _Run:
    """How the lanes of a block are advanced: where, how many a device, how far, in which dtype."""

    place: Place
    lanes: int
    max_iter: int
    dtype: np.dtype

    def only(self, problem: Problem, count: int) -> Estimate:
        """The records of fits without parameters of covariance, on the host."""
        like = problem.origin.scale
        theta = on_lanes(_nothing, self.place.devices)((), like)
        made = call("finish", self.place.devices, problem, theta, ())
        result, rows = on_lanes(_sent, self.place.devices)((), made)
        return unpacked(rows, result, count)

    def descended(
        self, problem: Problem, descents: Problem, start: np.ndarray | None, count: int
    ) -> Estimate:
        """The records at the ends of a descent from `start` (m,), or from moments, on the host.

        `descents` is the problem in the dtype of the descents.
        """
        structure, devices = problem.structure, self.place.devices
        begin = np.zeros(structure.n_params) if start is None else np.asarray(start)
        at = [np.asarray(a, self.dtype) for a in (begin, *structure.eyes(float))]
        state = on_lanes(_standing, devices)(at, descents.origin.scale)
        moved = self.stage(descents, state, START if start is None else RENEW, FIRST, EARLY)
        state, left = on_lanes(_advanced, devices)((), moved)
        state = self.later(descents, state, left, min(FIRST, self.max_iter), EARLY)
        result, left, rows = self.conclude(problem, state)
        if not most(left):
            return unpacked(rows, result, count)
        return unpacked(self.again(problem, descents, state, result, left), result, count)

    def stage(
        self, problem: Problem, state: NewtonState, begin: int, limit: int, early: float
    ) -> NewtonState:
        """Up to `limit` evaluations in all."""
        shared = np.int32(begin), np.int32(min(limit, self.max_iter)), self.dtype.type(early)
        return call("newton_steps", self.place.devices, problem, state, shared=shared)

    def later(
        self, problem: Problem, state: NewtonState, left: Array, used: int, early: float
    ) -> NewtonState:
        """The later stages of lanes that have used as many evaluations: each for the lanes that are left."""
        base, devices = 0, self.place.devices
        while used < self.max_iter and (going_on := most(left)):
            renew = used - base in (0, PERIOD)
            base = used if renew else base
            limit = min(base + PERIOD, self.max_iter) - base
            gather = on_lanes(_going_on, devices, size=self.room(going_on), renew=renew)
            fields, own, at = gather(np.int32(base), varying(problem), state)
            own = self.stage(
                dataclasses.replace(problem, **fields), own, RENEW if renew else RESUME, limit, early
            )
            state, left = on_lanes(_put_back, devices)(np.int32(base), own, state, at)
            used = base + limit
        return state

    def room(self, left: int) -> int:
        """Lanes of a device that are gathered for `left` that go on: of two sizes, for few programs."""
        return min(self.place.going_on, self.lanes) if left <= self.place.going_on else self.lanes

    def conclude(self, problem: Problem, state: NewtonState) -> tuple[Estimate, Array, tuple]:
        """The records of the fits, certified; how many want another look; their rows for the host."""
        kind, before = problem.n.dtype, state.status
        if state.x.dtype != kind:
            state = _cast(state, dtype=np.dtype(kind).name)
        bound = kind.type(CERTIFIED * float(np.finfo(self.dtype).eps) ** 0.875)
        made = call("conclude", self.place.devices, problem, state, shared=(bound,))
        return on_lanes(_concluded, self.place.devices)((), made, before)

    def again(
        self, problem: Problem, descents: Problem, state: NewtonState, result: Estimate, left: Array
    ) -> tuple:
        """The rows of the records, after another descent where the last step was not good enough."""
        devices = self.place.devices
        gather = on_lanes(_looked_at, devices, size=self.room(most(left)))
        fields, inner, own, before, at, left = gather(
            (), varying(problem), varying(descents), state, result.status, result.n_iter
        )
        own = self.later(dataclasses.replace(descents, **inner), own, left, 0, 0.0)
        part, _, _ = self.conclude(dataclasses.replace(problem, **fields), own)
        return on_lanes(_mended, devices)((), result, at, part, before)


def _nothing(_: Any, like: Array) -> Array:
    return jnp.zeros((0, *like.shape), like.dtype)


def _standing(at: list[Array], like: Array) -> NewtonState:
    """States before their first evaluation, at x (m,) in coordinates (q, q), ...: the entries of `at`."""
    lanes = like.shape[-1]
    x, *pivoting = (jnp.repeat(jnp.asarray(a)[..., None], lanes, axis=-1) for a in at)
    return at_rest(x, tuple(pivoting), ())


def _advanced(_: Any, state: Any) -> tuple[NewtonState, Array]:
    """The states of the first stage, and how many lanes go on."""
    state = joined(state)
    return state, counted(unfinished(state.status))


def _going_on(base: Array, fields: Any, state: NewtonState, size: int, renew: bool) -> tuple:
    """Lanes that go on: what varies of their problems, their states, and their places."""
    (fields, own), at = gathered(unfinished(state.status), (fields, state), size)
    return fields, _restarted(own) if renew else dataclasses.replace(own, n_iter=own.n_iter - base), at


def _restarted(state: NewtonState) -> NewtonState:
    """States at the same points, of which nothing is known but how far steps may go, where that is far."""
    status = jnp.full_like(state.status, Status.ITERATION_LIMIT)
    far = jnp.maximum(state.radius, 1.0)
    return dataclasses.replace(at_rest(state.x, state.context, ()), status=status, radius=far)


def _put_back(base: Array, part: Any, state: NewtonState, at: Array) -> tuple[NewtonState, Array]:
    """All states after a later stage, and how many lanes go on."""
    part = joined(part)
    state = put((), state, at, dataclasses.replace(part, n_iter=part.n_iter + base))
    return state, counted(unfinished(state.status))


def _concluded(_: Any, result: Any, before: Array) -> tuple[Estimate, Array, tuple]:
    result = joined(result)
    return result, counted(unseen(result.status, before)), packed(result)


def _looked_at(
    _: Any, fields: Any, inner: Any, state: NewtonState, status: Array, n_iter: Array, size: int
) -> tuple:
    """Lanes whose last step was not good enough, from where they are; and how many these are."""
    left = unseen(status, state.status)
    (fields, inner, own, n_iter), at = gathered(left, (fields, inner, state, n_iter), size)
    return fields, inner, _restarted(own), n_iter, at, counted(left)


def _mended(_: Any, result: Estimate, at: Array, part: Estimate, before: Array) -> tuple:
    part = dataclasses.replace(part, n_iter=part.n_iter + before)
    return packed(put((), result, at, part))


def _sent(_: Any, result: Any) -> tuple[Estimate, tuple]:
    result = joined(result)
    return result, packed(result)


@partial(quick_jit, short=0, plays=False, static_argnames=("dtype",))
def _cast(tree: Any, *, dtype: str) -> Any:
    """Arrays with those of floating point in another dtype."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def most(counts: Array) -> int:
    """The largest of the counts of each device: what the host hears between stages."""
    return int(np.max(np.asarray(counts)))
