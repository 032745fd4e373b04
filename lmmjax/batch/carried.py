"""Responses with weights of their own, which they carry beside products that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmjax.batch.device import fit_blocks
from lmmjax.batch.lanes import take_lanes
from lmmjax.batch.outcome import INFINITE, Outcome, failed, outcome
from lmmjax.batch.sources import own_families, own_problem
from lmmjax.core import Problem, ProblemMaker
from lmmjax.optimize import Status

NUMBERS, APART = 1 << 26, 4
"""Values of responses at a time; responses below which each has a design of its own."""

SMALL = 1e-9
"""σ² as a share of the variance of a response, below which a fit is looked at again."""


def fit_carried(
    maker: ProblemMaker,
    y: np.ndarray,
    weights: np.ndarray,
    reml: bool,
    max_iter: int,
    starts: Sequence[np.ndarray | None],
    dtype: Any,
) -> tuple[Outcome, np.ndarray]:
    """Fits of y (n, T) with weights (n, T), and the positions of those that are to be fitted on their rows.

    Those are of responses that do not determine all, or that end without a certificate or
    leave directions open.
    """
    products, total = own_families(maker), y.shape[1]
    found = failed(total, maker.design.p, maker.design.structure.n_params, "")
    again = np.ones(total, bool)
    step = max(1, NUMBERS // max(1, 4 * len(y)))
    for first in range(0, total, step):
        at = np.arange(first, min(first + step, total))
        problem, finite, estimable = own_problem(products, y[:, at], weights[:, at], reml)

        def block(part: slice, problem: Problem = problem) -> Problem:
            return take_lanes(problem, part)

        fitted = fit_blocks(len(at), problem.shared.vector, block, max_iter, starts, dtype)
        own = outcome(*fitted, len(starts)).without(~finite, Status.NOT_FINITE, INFINITE)
        found.put(at, own)
        fine = np.isin(own.estimate.status, (Status.CONVERGED, Status.LOCAL))
        fine &= own.estimate.sigma2 > SMALL * problem.origin.scale**2
        fine &= ~np.any(own.estimate.moves, axis=(1, 2))
        again[at] = finite & ~(estimable & fine)
    return found, np.flatnonzero(again)
