"""Several descents from different starts, of which the best optimum is kept."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.arrays import Array
from lmmjax.core import METHODS, Estimate, Problem, ProblemMaker, best_of
from lmmjax.fitted.checks import require_choice
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.kept import kept
from lmmjax.fitted.records import Fitted
from lmmjax.inference.estimable import inward_moves, unsteady
from lmmjax.inference.natural import at_estimate_jit

MANY = 50
"""Groups of a factor from which on one descent is made: several optima are a matter of few groups."""


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
    m = data.design.structure.n_params
    first = np.full(m, np.nan) if start is None else np.asarray(start, float)
    if first.shape != (m,):
        raise ValueError(f"start has shape {first.shape}; the model has {m} covariance parameters: ({m},)")
    with jax.enable_x64(True):
        problem = data.problem(y, reml)
        starts = [first] if start is not None else [first, *other_starts(data, data.maker.in_units(y))]
    found = best_of(problem, starts, method=method, max_iter=max_iter)
    if reml and found.moves.any():
        found = dataclasses.replace(found, cov_beta=determined(problem, found))
    return Fitted(data, y, found, reml, data.frame.response if name is None else name)


def determined(problem: Problem, found: Estimate) -> np.ndarray:
    """The covariance (p, p) of β̂, NaN where it depends on what the data leave open."""
    with jax.enable_x64(True):
        at, _ = jax.tree.map(np.asarray, at_estimate_jit(problem, found.psi, found.cov_relative))
    lost = unsteady(at, inward_moves(problem, found.psi, found.moves), at.outward)
    return np.where(lost, np.nan, found.cov_beta)


@kept
def other_starts(data: ModelData, maker: ProblemMaker) -> list[np.ndarray]:
    """θ at zero and near it, and the further starts of every parameter: they reach other optima.

    Near in the internal coordinates of `maker`.
    """
    structure = data.design.structure
    many = min((t.n_groups for t in data.design.terms), default=MANY) >= MANY
    if not structure.n_params or data.maker.prepared.shared.costly or (many and structure.linear):
        return []
    chosen, starts = structure.components, []
    outward = np.asarray(structure.entry_map(maker.basis.outward))
    for k in range(1, max(len(p.starts) for p in structure.parameters)):
        d = np.asarray(structure.prior(float)).copy()
        rest = np.setdiff1d(np.arange(structure.n_params), chosen)
        d[rest] = [p.starts[min(k, len(p.starts) - 1)] for p in np.array(structure.parameters, object)[rest]]
        starts.append(np.asarray(structure.encode(outward @ d)))
    if len(chosen) and not many:
        d = np.asarray(structure.prior(float)).copy()
        d[chosen] *= 0.01
        small = np.asarray(structure.encode(outward @ d))
        starts += [small, np.where(np.isin(np.arange(len(small)), chosen), 0.0, small)]
    return starts
