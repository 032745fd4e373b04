"""Conditional modes of many responses, in chunks of those that share rows and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import quick_jit
from lmmjax.batch import FEW
from lmmjax.core import conditional_means, response_axes
from lmmjax.core.far.fit import can_turn, far_variances
from lmmjax.fitted import FittedMany, fitted_modes
from lmmjax.inference.open_directions import nearby, settled
from lmmjax.postestimation.alike import Alike, alike

ALONE = FEW // 8
"""Responses alike up to which their modes are those of single fits."""

CHUNK = 4_000_000
"""Numbers that a chunk of responses may hold while their modes are computed."""


def modes_of_responses(fits: FittedMany) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields (positions of responses, per term (chunk, G, q)) for all that were fitted."""
    for own in alike(fits):
        yield from modes_of(own)


def modes_of(own: Alike) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields (positions, modes) of responses alike; chunks of one shape, so one program.

    Of a level that has none of their rows nothing is known: b = 0. A few go one by one: every pattern of
    missing values would be a program; so do those whose variances are far, in coordinates of their own.
    """
    apart = np.full(len(own.which), len(own.which) < ALONE) | are_far(own)
    for j in own.which[apart]:
        yield np.array([j]), [modes.b[None] for modes in fitted_modes(own.fit(int(j)))]
    if apart.all():
        return
    own = own.some(own.which[~apart])
    fits, make, keep, lanes = own.fits, own.data.expanded, own.rows, own.which
    design, estimate = fits.data.design, fits.estimate
    cost = design.n + sum(t.n_groups * t.q * (t.q + design.p + 2) for t in design.terms)
    size = max(1, min(len(lanes), CHUNK // cost))
    if fits.data.maker.prepared.shared.sequential:
        size = 1
    for first in range(0, len(lanes), size):
        part = lanes[first : first + size]
        padded = np.resize(part, size)
        psi, beta = estimate.psi[padded], estimate.beta[padded][:, own.columns]
        points = nearby(design.structure, psi, estimate.moves[padded])
        y = np.asarray(fits.y[:, padded], dtype=float).T

        def modes(y: np.ndarray, psi: np.ndarray, beta: np.ndarray = beta) -> list[np.ndarray]:
            with jax.enable_x64(True):
                problem = make(y if keep.all() else y[:, keep], fits.reml)
                return [np.asarray(b) for b in _lane_means(problem, psi, beta)]

        values = modes(y, psi)
        if len(points):
            steady = _steady(modes, y, psi, points)
            values = [np.where(same, b, np.nan) for same, b in zip(steady, values, strict=True)]
        yield part, [b[: len(part), : t.n_groups] for b, t in zip(values, design.terms, strict=True)]


def are_far(own: Alike) -> np.ndarray:
    """Which of the responses (t,) have modes in coordinates of their own."""
    design, estimate = own.data.design, own.fits.estimate
    if not can_turn(design):
        return np.zeros(len(own.which), bool)
    identified = ~estimate.moves[own.which].any(axis=(1, 2))
    return identified & far_variances(design, estimate.psi[own.which])


def _steady(
    modes: Callable[[np.ndarray, np.ndarray], list[np.ndarray]],
    y: np.ndarray,
    psi: np.ndarray,
    points: np.ndarray,
) -> list[np.ndarray]:
    """Per term which modes (T, G, q) are the same at all `points`: those of y, and those of noise."""
    sd = np.sqrt(psi[:, -1])[:, None, None]
    noise = sd[..., 0] * np.random.default_rng(0).normal(size=y.shape)
    out = None
    for response in (y, noise):
        at, near = modes(response, psi), [modes(response, point) for point in points]
        sizes = [np.maximum(np.max(np.abs(b), axis=1, keepdims=True), sd) for b in at]
        pairs = zip(at, zip(*near, strict=True), sizes, strict=True)
        own = [settled(b, list(others), size) for b, others, size in pairs]
        out = own if out is None else [one & two for one, two in zip(out, own, strict=True)]
    return out


@partial(quick_jit, short=0, plays=False)
def _lane_means(problem: Any, psi: Any, beta: Any) -> Any:
    """`conditional_means` over the leading axis."""
    return jax.vmap(conditional_means, in_axes=(response_axes(problem), 0, 0))(problem, psi, beta)
