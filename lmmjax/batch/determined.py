"""What of β̂ and its covariances depends on what the data leave open: missing in batches as in single fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.sparse_columns import Columns, complete_columns
from lmmjax.batch.lanes import lane_count, lanes_of, take_lanes
from lmmjax.batch.sources import OwnDesigns, SharedDesign, Source, is_apart, mapped_axes
from lmmjax.core import Estimate, Problem, ProblemMaker
from lmmjax.inference.natural import Natural, at_estimate_jit, natural
from lmmjax.inference.open_directions import inward_moves, moving_covariances
from lmmjax.inference.open_effects import Along, effects_along, effects_along_jit


def determined(
    maker: ProblemMaker, y: Columns, weights: np.ndarray | None, reml: bool, estimate: Estimate
) -> Estimate:
    """The estimates (T, ...) with NaN for covariances of β̂ that move along `moves`; by REML, as in `Fit`."""
    free = np.asarray(np.any(estimate.moves, axis=(1, 2)) & reml)
    if not free.any():
        return estimate
    cov = np.array(estimate.cov_beta)
    with jax.enable_x64(True):
        for at, source, which in _sources(maker, y, weights, reml, estimate, free):
            for k, problem, there in _derivatives(source, which, estimate):
                moves = inward_moves(problem, estimate.psi[k], estimate.moves[k])
                lost = moving_covariances(there, moves, there.outward)
                cov[k, at[:, None], at] = np.where(lost, np.nan, cov[k, at[:, None], at])
    return dataclasses.replace(estimate, cov_beta=cov)


def open_along(
    maker: ProblemMaker, y: Columns, weights: np.ndarray | None, reml: bool, estimate: Estimate
) -> dict[int, tuple[np.ndarray, Along]]:
    """Of responses whose data leave directions open, the columns of X that they have and β̂ along these.

    By REML, as in `Fit`.
    """
    free = np.asarray(np.any(estimate.moves, axis=(1, 2)) & reml)
    if not free.any():
        return {}
    sources = _sources(maker, y, weights, reml, estimate, free, responses=True)
    return {k: (at, own) for at, source, which in sources for k, own in _along(source, which, estimate)}


@dataclasses.dataclass(frozen=True)
class _Responses(SharedDesign):
    """The design with responses y (n, T)."""

    y: Columns

    def one(self, k: int) -> Problem:
        return self.maker(np.asarray(self.y[:, k], float), self.reml)

    def lanes(self, which: np.ndarray) -> Problem:
        return lanes_of(self.maker, self.y[:, which], self.reml)


def _sources(
    maker: ProblemMaker,
    y: Columns,
    weights: np.ndarray | None,
    reml: bool,
    estimate: Estimate,
    free: np.ndarray,
    responses: bool = False,
) -> Iterator[tuple[np.ndarray, Source, np.ndarray]]:
    """Yields columns of X, the source of problems with these, and responses of `free` (T,) that have them."""
    kept = ~np.isnan(estimate.beta)
    whole = np.full(len(free), weights is None) & complete_columns(y)
    for columns in np.unique(kept[free], axis=0):
        those, at = free & (kept == columns).all(axis=1), np.flatnonzero(columns)
        part = maker.with_columns(at)
        shared = _Responses(part, reml, y) if responses else SharedDesign(part, reml)
        yield at, shared, np.flatnonzero(those & whole)
        yield at, OwnDesigns(part, y, weights, reml, False), np.flatnonzero(those & ~whole)


def one_by_one(source: Source, which: np.ndarray) -> Iterator[tuple[int, Problem]]:
    """Yields every response of `which` with its problem, without those whose rows can have none."""
    for k in which:
        try:
            problem = source.one(int(k))
        except ValueError:
            if not isinstance(source, OwnDesigns):
                raise
            continue
        yield int(k), problem


def _along(source: Source, which: np.ndarray, estimate: Estimate) -> Iterator[tuple[int, Along]]:
    """Yields every response of `which` with its `effects_along`."""

    def steps(problem: Problem, k: int) -> np.ndarray:
        return inward_moves(problem, estimate.psi[k], estimate.moves[k])

    with jax.enable_x64(True):
        if len(which) <= source.few or is_apart(source):
            for k, problem in one_by_one(source, which):
                found = effects_along_jit(problem, estimate.psi[k], steps(problem, k))
                yield k, jax.tree.map(np.asarray, found)
            return
        size = lane_count(source.maker.prepared.shared.vector, len(which))
        for first in range(0, len(which), size):
            part = which[first : first + size]
            some = np.resize(part, size)
            problem = source.lanes(some)
            each = np.stack([steps(take_lanes(problem, j), k) for j, k in enumerate(some)], axis=-1)
            found = _mapped_along(problem, np.moveaxis(estimate.psi[some], 0, -1), each)
            found = jax.tree.map(np.asarray, found)
            yield from ((int(k), jax.tree.map(lambda a, j=j: a[j], found)) for j, k in enumerate(part))


def _derivatives(
    source: Source, which: np.ndarray, estimate: Estimate
) -> Iterator[tuple[int, Problem, Natural]]:
    """Yields every response of `which` with its problem and the derivatives at its estimate."""
    if len(which) <= source.few or is_apart(source):
        for k, problem in one_by_one(source, which):
            at, _ = at_estimate_jit(problem, estimate.psi[k], estimate.cov_relative[k])
            yield k, problem, jax.tree.map(np.asarray, at)
        return
    size = lane_count(source.maker.prepared.shared.vector, len(which))
    for first in range(0, len(which), size):
        part = which[first : first + size]
        problem = source.lanes(np.resize(part, size))
        at = _mapped(problem, np.moveaxis(estimate.psi[np.resize(part, size)], 0, -1))
        at = jax.tree.map(np.asarray, at)
        for j, k in enumerate(part):
            own = take_lanes(problem, j) if np.ndim(problem.origin.scale) else problem
            yield int(k), own, jax.tree.map(lambda a, j=j: a[j], at)


@partial(quick_jit, short=0, plays=False)
def _mapped(problem: Problem, psi: Array) -> Natural:
    """Derivatives at ψ (m + 1, T), arrays that lead with T."""
    return jax.vmap(lambda problem, psi: natural(problem, psi, tangent=False), (mapped_axes(problem), -1))(
        problem, psi
    )


@partial(quick_jit, short=0, plays=False)
def _mapped_along(problem: Problem, psi: Array, steps: Array) -> Along:
    """`effects_along` at ψ (m + 1, T) for steps (m + 1, k, T), arrays that lead with T."""
    return jax.vmap(effects_along, (mapped_axes(problem), -1, -1))(problem, psi, steps)
