"""Several descents from different starts, of which the best optimum is kept."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.arrays import Array
from lmmjax.batch import blank
from lmmjax.core import METHODS, Estimate, Problem, ProblemMaker, best_of, few_groups, further_starts
from lmmjax.core.descents import SCALES
from lmmjax.core.exactness import exact_lanes, without_digits
from lmmjax.core.far.fit import far_estimate, preferred, rounded, suspects
from lmmjax.fitted.checks import beyond, require_choice, require_evaluations
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.kept import kept
from lmmjax.fitted.records import Fitted
from lmmjax.inference.natural import at_estimate_jit
from lmmjax.inference.open_directions import inward_moves, moving_covariances
from lmmjax.optimize import Status


def multistart(
    data: ModelData,
    y: np.ndarray,
    reml: bool = True,
    *,
    method: str = "newton",
    start: Array | None = None,
    max_iter: int = 100,
    name: str | None = None,
) -> Fitted:
    """The best fit to y (n,); a variance function of the mean keeps its covariate. See `fit_one`."""
    require_choice("method", method, METHODS)
    if not np.all(np.isfinite(y)):
        row = data.frame.index[int(np.argmin(np.isfinite(y)))]
        raise ValueError(f"the response is not finite in row {row}: drop the row, or use fit_batch")
    size = float(np.max(np.abs(y)))
    if beyond(size):
        raise ValueError(
            f"the response is of the size {size:.3g}, whose square is not a double: divide it by a "
            "power of 10"
        )
    m = data.design.structure.n_params
    first = np.full(m, np.nan) if start is None else np.asarray(start, float)
    if first.shape != (m,):
        raise ValueError(f"start has shape {first.shape}; the model has {m} covariance parameters: ({m},)")
    if start is not None and not np.all(np.isfinite(first)):
        raise ValueError(
            f"start must be finite numbers, not {first.tolist()}: leave it out for moment estimates"
        )
    with jax.enable_x64(True):
        problem = data.problem(y, reml)
        starts = [first] if start is not None else [first, *other_starts(data, data.maker.in_units(y))]
        # what the standard errors and tests of large data are made from: a summary asks for it next
        at_estimate_jit.ahead(problem, np.zeros(m + 1), np.zeros((m + 1, m + 1)))
    found = best_of(problem, starts, method=method, max_iter=require_evaluations(max_iter))
    if max_iter and suspects(data.design, found):
        options = {"count": len(starts), "start": start, "method": method, "max_iter": max_iter}
        own = far_estimate(data.maker, y, reml, **options)
        found = found if own is None or not preferred(own, found) else own
    one = jax.tree.map(lambda a: a[None], found)
    if (exact := exact_lanes(data.maker, y[:, None], one, reml)).any():
        found = jax.tree.map(lambda a: a[0], blank(one, exact, Status.PERFECT_FIT))
    elif (without_digits(data.design, one) | rounded(data.maker, one)).any():
        found = dataclasses.replace(found, status=np.int32(Status.TOO_FEW_DIGITS))
    if reml and found.moves.any():
        found = dataclasses.replace(found, cov_beta=determined(problem, found))
    return Fitted(data, y, found, reml, data.frame.response if name is None else name)


def determined(problem: Problem, found: Estimate) -> np.ndarray:
    """The covariance (p, p) of β̂, NaN where it depends on what the data leave open."""
    with jax.enable_x64(True):
        at, _ = jax.tree.map(np.asarray, at_estimate_jit(problem, found.psi, found.cov_relative))
    lost = moving_covariances(at, inward_moves(problem, found.psi, found.moves), at.outward)
    return np.where(lost, np.nan, found.cov_beta)


@kept
def other_starts(data: ModelData, maker: ProblemMaker) -> list[np.ndarray]:
    """θ near zero, at it and far from it, and further starts of other parameters: they reach other optima.

    In the internal coordinates of `maker`.
    """
    if data.maker.prepared.shared.costly:
        return []
    few = few_groups(data.maker)
    if not few and data.design.structure.linear:
        return []
    return further_starts(maker, SCALES if few else ())
