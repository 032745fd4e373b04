"""Conditional modes of many responses, in chunks of those that share rows and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lmmjax.core import conditional_means, response_axes
from lmmjax.fitted import FittedMany

CHUNK = 4_000_000
"""Numbers that a chunk of responses may hold while their modes are computed."""


def modes_of_responses(fits: FittedMany) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields (positions of responses, per term (chunk, G, q)) for all that were fitted."""
    fitted = np.flatnonzero(np.isfinite(fits.estimate.psi).all(axis=1))
    for lanes, keep, weights in _alike(fits, fitted):
        whole = weights is None and keep.all()
        # a subset keeps all levels; of one without values nothing is known: b = 0
        columns = np.flatnonzero(fits.kept[lanes[0]])
        part = fits.data if whole else fits.data.subset(keep, weights, columns)
        yield from _chunks(fits, lanes, part.expanded, keep, columns)


def _alike(fits: FittedMany, lanes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yields (responses, rows they have (n,), their weights (n,)) with rows and weights in common."""
    if fits.weights is not None:
        for k in lanes:
            w = fits.weights[:, k]
            yield np.array([k]), np.isfinite(fits.y[:, k]) & (w > 0), w
        return
    missing = np.isnan(fits.y)
    complete = ~np.any(missing[:, lanes], axis=0)
    yield lanes[complete], np.ones(len(missing), bool), None
    lanes = lanes[~complete]
    missing = missing[:, lanes]
    patterns, which = np.unique(np.packbits(missing, axis=0), axis=1, return_inverse=True)
    for k in range(patterns.shape[1]):
        chosen = np.flatnonzero(which.ravel() == k)
        yield lanes[chosen], ~missing[:, chosen[0]], None


def _chunks(
    fits: FittedMany, lanes: np.ndarray, make: Callable, keep: np.ndarray, columns: np.ndarray
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields (positions, modes) for the responses `lanes`; chunks of one shape, so one program."""
    design, estimate = fits.data.design, fits.estimate
    cost = design.n + sum(t.n_groups * t.q * (t.q + design.p + 2) for t in design.terms)
    size = max(1, min(len(lanes), CHUNK // cost))
    if fits.data.maker.prepared.shared.sequential:
        size = 1
    for first in range(0, len(lanes), size):
        part = lanes[first : first + size]
        padded = np.resize(part, size)
        with jax.enable_x64(True):
            y = np.asarray(fits.y[:, padded].T, dtype=float)
            problem = make(y if keep.all() else y[:, keep], fits.reml)
            modes = _lane_means(problem, estimate.psi[padded], estimate.beta[padded][:, columns])
            arrays = [np.asarray(b)[: len(part)] for b in modes]
        yield part, [b[:, : t.n_groups] for b, t in zip(arrays, design.terms, strict=True)]


@jax.jit
def _lane_means(problem: Any, psi: Any, beta: Any) -> Any:
    """`conditional_means` over the leading axis."""
    return jax.vmap(conditional_means, in_axes=(response_axes(problem), 0, 0))(problem, psi, beta)
