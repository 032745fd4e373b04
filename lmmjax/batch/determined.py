"""Covariances of β̂ that depend on what the data leave open are missing, in a batch as in a single fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.arrays.sparse_columns import Columns, complete_columns
from lmmjax.batch.lanes import lane_count, take_lanes
from lmmjax.batch.sources import OwnDesigns, SharedDesign, Source, is_apart, mapped_axes
from lmmjax.core import Estimate, Problem, ProblemMaker
from lmmjax.inference.natural import Natural, at_estimate_jit, natural
from lmmjax.inference.open_directions import inward_moves, moving_covariances


def determined(
    maker: ProblemMaker, y: Columns, weights: np.ndarray | None, reml: bool, estimate: Estimate
) -> Estimate:
    """The estimates (T, ...) with NaN for covariances of β̂ that move along `moves`; by REML, as in `Fit`."""
    free = np.asarray(np.any(estimate.moves, axis=(1, 2)) & reml)
    if not free.any():
        return estimate
    cov, kept = np.array(estimate.cov_beta), ~np.isnan(estimate.beta)
    whole = np.full(len(free), weights is None) & complete_columns(y)
    for columns in np.unique(kept[free], axis=0):
        those, at = free & (kept == columns).all(axis=1), np.flatnonzero(columns)
        part = maker.with_columns(at)
        for chosen, source in (
            (those & whole, SharedDesign(part, reml)),
            (those & ~whole, OwnDesigns(part, y, weights, reml, False)),
        ):
            for k, problem, there in _derivatives(source, np.flatnonzero(chosen), estimate):
                moves = inward_moves(problem, estimate.psi[k], estimate.moves[k])
                lost = moving_covariances(there, moves, there.outward)
                cov[k, at[:, None], at] = np.where(lost, np.nan, cov[k, at[:, None], at])
    return dataclasses.replace(estimate, cov_beta=cov)


def _derivatives(
    source: Source, which: np.ndarray, estimate: Estimate
) -> Iterator[tuple[int, Problem, Natural]]:
    """Yields every response of `which` with its problem and the derivatives at its estimate."""
    if len(which) <= source.few or is_apart(source):
        for k in which:
            problem = source.one(int(k))
            at, _ = at_estimate_jit(problem, estimate.psi[k], estimate.cov_relative[k])
            yield int(k), problem, jax.tree.map(np.asarray, at)
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
