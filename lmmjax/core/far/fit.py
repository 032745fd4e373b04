"""Which fits are to be made in coordinates of the response, and such a fit."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array
from lmmjax.core.descents import best_of, better
from lmmjax.core.estimate import Estimate
from lmmjax.core.far.own import FAR, own_coefficients
from lmmjax.core.far.turn import Turn, own_at, turn_of
from lmmjax.core.problem import ProblemMaker
from lmmjax.covariance import FactorFamily
from lmmjax.design import Design
from lmmjax.gram.crossed.prepare import CrossedPrepared
from lmmjax.gram.dense.prepare import DensePrepared
from lmmjax.gram.layered.prepare import LayeredPrepared
from lmmjax.gram.nested.prepare import NestedPrepared
from lmmjax.optimize import Status

SUBTRACT, MOST = (CrossedPrepared, NestedPrepared, LayeredPrepared, DensePrepared), 3e9
"""Backends whose S are differences of sums with all of y, and the variance, beside σ², that these take."""

SOON = 8
"""Evaluations up to which a limit has been set so low."""


def suspects(design: Design, estimate: Estimate) -> np.ndarray:
    """Which fits (T,) have random effects that are far from σ², or no certificate."""
    status = np.asarray(estimate.status)
    if not can_turn(design):
        return np.zeros(status.shape, bool)
    long = np.asarray(estimate.n_iter) > SOON
    unsure = (status == Status.STALLED) | ((status == Status.ITERATION_LIMIT) & long)
    return (far_variances(design, np.asarray(estimate.psi)) & (status == Status.CONVERGED)) | unsure


def far_variances(design: Design, psi: np.ndarray, least: float = 1.0 / FAR) -> np.ndarray:
    """Whether random effects have `least` times the variance of residuals at ψ (..., m + 1), or more."""
    structure = design.structure
    weights = np.zeros(structure.n_params)
    for term, own, s in zip(design.terms, structure.terms, structure.slices(), strict=True):
        if isinstance(own.family, FactorFamily):
            z = np.asarray(term.z, float)
            weights[s] = np.tensordot(own.units, z.T @ z / len(z), axes=2)
    with np.errstate(all="ignore"):
        return psi[..., :-1] @ weights > psi[..., -1] * least


def turn_where_far(maker: ProblemMaker, psi: np.ndarray) -> Turn | None:
    """Coordinates for derivatives at ψ (m + 1,); None where those of the maker are as good."""
    if not can_turn(maker.design) or not far_variances(maker.design, psi):
        return None
    return turn_of(maker, own_at(maker, psi))


def rounded(maker: ProblemMaker, estimate: Estimate) -> np.ndarray:
    """Which certified fits (T,) have a criterion that rounding moves: of backends that subtract.

    Crossed with weights by 2.7e-7 at 1e9σ², by 4e-4 at 1e12σ².
    """
    status = np.asarray(estimate.status)
    if not isinstance(maker.prepared, SUBTRACT) or not can_turn(maker.design):
        return np.zeros(status.shape, bool)
    far = far_variances(maker.design, np.asarray(estimate.psi), MOST)
    return far & (status == Status.CONVERGED)


def can_turn(design: Design) -> bool:
    """Whether a design may have other coordinates: concrete, and with independent residuals."""
    plain = design.known is None and design.residual is None and len(design.terms) > 0
    return (
        plain
        and isinstance(design.x, np.ndarray)
        and all(isinstance(term.z, np.ndarray) and term.kernel is None for term in design.terms)
    )


def far_estimate(
    maker: ProblemMaker,
    y: np.ndarray,
    reml: bool,
    *,
    count: int = 1,
    start: Array | None = None,
    max_iter: int = 100,
    **options,
) -> Estimate | None:
    """The fit of a response y (n,) in coordinates of its own; None where its random effects are not far.

    Parameters
    ----------
    count : of descents, at least one; the others follow where the first has no certificate, too.
    start : θ (m,) in coordinates of the design, the only start then.
    options : as of `best_of`.
    """
    own = own_coefficients(maker, y)
    if own is None:
        return None
    turn = turn_of(maker, own)
    problem = turn.lanes(y, own.shift, reml)
    starts = turn.starts if start is None else [turn.started(np.asarray(start, float))]
    found = best_of(problem, starts[:count], max_iter=max_iter, **options)
    if found.status != Status.CONVERGED and count < len(starts):
        found = best_of(problem, starts, max_iter=max_iter, **options)
    return turn.restored(found, reml)


def preferred(new: Estimate, old: Estimate) -> np.ndarray:
    """Which of new fits (...) take the place of old ones: certified, or told to lack digits, or better."""
    known = np.isin(new.status, (Status.CONVERGED, Status.TOO_FEW_DIGITS))
    return known | better(new, old)
