"""Fits of one kernel: the global minimum of the criterion of each response, and its record."""

from __future__ import annotations

import jax
import numpy as np

from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem
from lmmjax.core.spectral.records import Points, at_ends, records
from lmmjax.core.spectral.rows import Rotated, rotated_points
from lmmjax.core.spectral.search import PAIRS, TOGETHER, Found, Spectral, search
from lmmjax.gram.block.products import BlockProducts
from lmmjax.gram.spectral.products import SpectralProducts, SpectralResponse
from lmmjax.optimize import Status

NOTHING = 1e2 * np.finfo(float).eps ** 2
"""Share of the squares of a response that is rounding."""


def is_spectral(problem: Problem) -> bool:
    """Whether the fits of a problem are found globally: one kernel, both variances unknown."""
    return isinstance(problem.shared, SpectralProducts | BlockProducts) and problem.known is None


def spectral_estimates(problem: Problem) -> tuple[Estimate, np.ndarray]:
    """The fits of the responses of a problem of NumPy arrays, and how many local optima each has, (T,).

    Arrays of the result lead with T where those of the problem trail with it; one response has no axis.
    """
    response = problem.response
    assert isinstance(response, SpectralResponse)
    alone = response.y.ndim == 1
    y = np.ascontiguousarray(np.atleast_2d(np.asarray(response.y).T))
    data = spectral_data(problem, y, np.atleast_1d(np.asarray(response.rest)))
    total = data.squares.sum(axis=1) + data.left
    lost = ~np.isfinite(total)
    if isinstance(data, Rotated):
        open_squares = np.full(len(y), np.inf)
        open_squares[~lost] = data.some(np.flatnonzero(~lost)).open_squares()
    else:
        open_squares = data.left + data.squares[:, data.mu <= 0].sum(axis=1)
    perfect = ~lost & (total <= NOTHING * float(problem.n))
    if data.rest or np.any(data.mu <= 0):
        # what K has no part in leaves nothing: σ² = 0 has an infinite likelihood
        perfect |= ~lost & (open_squares <= NOTHING * total)
    usable = np.flatnonzero(~lost & ~perfect)
    chosen = data if len(usable) == len(y) else data.some(usable)
    found = search(chosen)
    points = (
        rotated_points(chosen, found) if isinstance(chosen, Rotated) else _points(chosen, y[usable], found)
    )
    out, optima = all_records(problem, points, found.optima, data.ml, lost, perfect)
    return (jax.tree.map(lambda a: a[0], out) if alone else out), optima


def all_records(
    problem: Problem, points: Points, count: np.ndarray, ml: bool, lost: np.ndarray, perfect: np.ndarray
) -> tuple[Estimate, np.ndarray]:
    """Records and numbers of optima of all responses of a problem, from those of the others.

    lost, perfect : (T,) responses that are not finite, or of which nothing is left to fit.
    points, count : what was found of the others, in their order.
    """
    usable, total = np.flatnonzero(~lost & ~perfect), len(lost)
    out = records(problem, points, ml, usable)
    if len(usable) < total:
        out = jax.tree.map(lambda a: widened(a, usable, total), out)
    status = np.where(lost, Status.NOT_FINITE, np.where(perfect, Status.PERFECT_FIT, out.status))
    out.status[:], out.moves[:] = status, 0.0
    optima = np.zeros(total, int)
    optima[usable] = count
    return out, optima


def widened(a: np.ndarray, at: np.ndarray, total: int) -> np.ndarray:
    """Arrays of some of `total` responses among all: NaN, zero or false for the others."""
    out = np.full((total, *a.shape[1:]), np.nan if a.dtype.kind == "f" else 0, a.dtype)
    out[at] = a
    return out


def at_once(shared: SpectralProducts | BlockProducts) -> int:
    """How many responses to fit at a time: as many as stay in cache."""
    numbers = PAIRS if isinstance(shared, BlockProducts) else TOGETHER
    return max(1, numbers // max(len(shared.mu), 1))


def spectral_data(problem: Problem, y: np.ndarray, left: np.ndarray) -> Spectral:
    """The data of the responses ỹ (T, k) of a problem, and the squares (T,) of what is left beside them."""
    shared = problem.shared
    assert isinstance(shared, BlockProducts | SpectralProducts)
    unit = float(problem.basis.outward[0][0, 0]) ** 2
    rest = (y**2, left, float(problem.nu), not float(problem.reml), unit, float(shared.logdet_r))
    if isinstance(shared, BlockProducts):
        x = np.asarray(shared.x)
        p = x.shape[1]
        return Rotated(
            np.asarray(shared.mu),
            np.zeros((len(x), p)),
            np.zeros((p, p)),
            # rows that were condensed away have no K
            float(problem.n) - len(x),
            *rest,
            y,
            x,
        )
    return Spectral(
        np.asarray(shared.mu),
        np.asarray(shared.c),
        np.asarray(shared.xkx),
        float(shared.rest),
        *rest,
    )


def _points(data: Spectral, y: np.ndarray, found: Found) -> Points:
    """The criterion, and what follows from its ratio, at the minima of responses ỹ (T, k)."""
    total, t = len(y), np.where(np.isnan(found.t), 0.0, found.t)
    a, h = at_ends(t)
    scale = a[:, None] + h[:, None] * data.mu
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.sum(data.squares / scale, axis=1) + (data.left / a if data.rest else 0.0)
        value = np.sum(np.log(scale), axis=1) + (data.rest * np.log(a) if data.rest else 0.0)
    s = data.s_matrix(a, h)
    if data.ml and len(data.xkx):
        value = value + np.linalg.slogdet(s)[1]
    beta = -(y * (h[:, None] / scale)) @ data.c
    nu, logdet_r = np.full(total, data.nu), np.full(total, data.logdet_r)
    return Points(found.t, found.steps, value, found.slope, found.bend, found.fall, r2, s, beta, nu, logdet_r)
