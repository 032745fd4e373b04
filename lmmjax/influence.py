"""Influence by deletion: what each level of a grouping factor, or each row, does to the estimates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from lmmjax import varcomp
from lmmjax.batch import fit_lanes, lane_count, take_lanes
from lmmjax.batch.estimate_many import nothing
from lmmjax.batch_reports import only_group
from lmmjax.core import Estimate, Problem, ProblemMaker, estimate_jit
from lmmjax.design import standardise_response, take_rows
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.optimize import Status

if TYPE_CHECKING:
    from lmmjax.results import Fit

OBSERVATION = "observation"
"""The `group` that stands for single rows."""

MANY = 2048
"""Up to so many refits take less time in a loop than to compile a program for all of them.

Without compression a refit takes its time in arithmetic, and a loop is as fast whatever their number.
"""

CHUNK = 1 << 24
"""Numbers that the products of the refits of one chunk may take: 128 MiB."""


@dataclasses.dataclass(frozen=True, eq=False)
class Influence:
    """Fits without one level of a grouping factor, or one row, at a time; their rows are what is left out.

    Attributes
    ----------
    params, bse : levels × fixed effects, of the fit without the level.
    sdcor : levels × standard deviations and correlations of that fit.
    cooks_distance : Dᵢ = (β̂ − β̂₍ᵢ₎)ᵀ Φ⁻¹ (β̂ − β̂₍ᵢ₎)/p with Φ of the whole fit.
    dfbetas : (β̂ − β̂₍ᵢ₎)/se(β̂₍ᵢ₎), levels × fixed effects.
    status : how each fit ended, or why the model has no fit without the level; its numbers are missing.

    Source: Belsley, Kuh & Welsch (1980), doi:10.1002/0471725153; for mixed models Nieuwenhuis,
    te Grotenhuis & Pelzer (2012), doi:10.32614/RJ-2012-011.
    """

    params: pd.DataFrame
    bse: pd.DataFrame
    sdcor: pd.DataFrame
    cooks_distance: pd.Series
    dfbetas: pd.DataFrame
    status: pd.Series

    def __repr__(self) -> str:
        worst = self.cooks_distance.idxmax() if self.cooks_distance.notna().any() else None
        return f"Influence({len(self.params)} levels of {self.params.index.name!r}, largest: {worst})"


def influence(fit: Fit, group: str | None = None) -> Influence:
    """Refit without each level of a grouping factor, or each row: exact deletion, no one-step approximation.

    Parameters
    ----------
    group : the grouping factor, which may be left out if there is one, or "observation" to leave out the
        rows one at a time.

    Every refit is the better of the descents from its moment start and from θ̂ of the whole fit.
    """
    require_estimates(fit)
    model, whole = fit.model, fit.estimate
    factors = list(dict.fromkeys(term.group for term in model.frame.random))
    if group == OBSERVATION and group not in factors:
        codes, index = np.arange(model.design.n), pd.Index(model.frame.index, name=OBSERVATION)
    else:
        group = only_group(factors, group)
        term = next(term for term in model.frame.random if term.group == group)
        codes, index = term.codes, pd.Index(term.levels, name=group)
    one = nothing(len(index), model.design.p, model.design.structure.n_params, len(whole.theta))
    status = np.full(len(index), "", object)
    todo = np.ones(len(index), bool)
    if isinstance(model.maker.prepared, GroupedPrepared) and not model.maker.prepared.shared.tied:
        todo = ~_by_difference(fit, codes, group == OBSERVATION, one)
    for level in np.flatnonzero(todo):
        keep = codes != level
        try:
            maker = ProblemMaker(take_rows(model.design, keep), model._backend)
        except ValueError as error:
            status[level] = f"not estimable: {error}"
            continue
        _store(one, level, best_estimate(maker, fit.y[keep], fit.reml, whole.theta))
    for level in np.flatnonzero(status == ""):
        status[level] = Status(int(one.status[level])).name.lower()
    change = whole.beta - one.beta
    bse = np.sqrt(np.diagonal(one.cov_beta, axis1=1, axis2=2))
    cooks = np.sum(change * np.linalg.solve(whole.cov_beta, change.T).T, axis=1) / max(model.design.p, 1)
    x_names = list(model.frame.x_names)
    sdcor, _ = varcomp.sd_scale(one.psi, model.components)
    return Influence(
        pd.DataFrame(one.beta, index, x_names),
        pd.DataFrame(bse, index, x_names),
        pd.DataFrame(sdcor, index, varcomp.names(model.components)),
        pd.Series(cooks, index, name="cooks_distance"),
        pd.DataFrame(change / bse, index, x_names),
        pd.Series(status, index, name="status"),
    )


def _by_difference(fit: Fit, codes: np.ndarray, single: bool, result: Estimate) -> np.ndarray:
    """Fill in the levels whose products are those of all rows less their own; which they are (levels,)."""
    # imported here: a single fit has no use for it
    from lmmjax.gram.grouped.leave_out import LeaveOut

    maker, theta = fit.model.maker, fit.estimate.theta
    prepared, structure = maker.prepared, maker.design.structure
    assert isinstance(prepared, GroupedPrepared)
    done = np.zeros(len(result.status), bool)
    y = fit.y if prepared.order is None else fit.y[prepared.order]
    residual, origin, factor = standardise_response(maker.rows, maker.basis, y)
    products = LeaveOut(prepared, maker.rows, residual * factor, single)
    present, row = np.unique(codes, return_index=True)
    part = products.part[row]
    # a part is a level only where the levels are the groups of the products
    usable = products.exact[part] & (np.bincount(products.part)[part] == np.bincount(codes)[present])
    levels, part = present[usable], part[usable]
    kappa = np.asarray(float(fit.reml))

    def problem(chosen: np.ndarray) -> Problem:
        shared, response, n = products(chosen)

        def every(tree):
            return jax.tree.map(lambda a: np.repeat(np.asarray(a)[..., None], len(chosen), axis=-1), tree)

        return Problem(shared, response, every(origin), every(maker.basis), n, kappa, structure)

    vector = products.elements()
    few = len(levels) <= MANY or not prepared.compressed
    chunk = max(1, CHUNK // vector)
    for first in range(0, len(levels), chunk):
        where, chosen = levels[first : first + chunk], part[first : first + chunk]
        fits = _one_by_one(problem(chosen), theta) if few else _together(problem, chosen, vector, theta)
        _store(result, where, fits)
        done[where] = True
    return done


def _one_by_one(problem: Problem, theta: np.ndarray) -> Estimate:
    results = [_best(take_lanes(problem, k), theta) for k in range(len(problem.n))]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *results)


def _together(
    problem: Callable[[np.ndarray], Problem], chosen: np.ndarray, vector: int, theta: np.ndarray
) -> Estimate:
    """The fits without the parts `chosen`, as lanes."""
    whole = problem(chosen)
    with jax.enable_x64(True):
        inner = np.asarray(
            whole.structure.change_basis(theta, jax.tree.map(lambda a: a[..., 0], whole.basis.inward))
        )
    results = [
        fit_lanes(len(chosen), lane_count(vector, len(chosen)), partial(take_lanes, whole), 100, s)
        for s in ([None, inner] if len(theta) else [None])
    ]
    if len(results) == 1:
        return results[0]
    a, b = results
    better = (b.status == Status.CONVERGED) & ((a.status != Status.CONVERGED) | ~(a.deviance <= b.deviance))
    _store(a, better, jax.tree.map(lambda v: v[better], b))
    return a


def _store(result: Estimate, where: Any, part: Estimate) -> None:
    for mine, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(part), strict=True):
        mine[where] = theirs


def best_estimate(
    maker: ProblemMaker, y: np.ndarray, reml: bool, theta: np.ndarray | None = None
) -> Estimate:
    """The best of the descents from the moment start and from θ (m,)."""
    with jax.enable_x64(True):
        return _best(maker(y, reml), theta)


def _best(problem: Problem, theta: np.ndarray | None) -> Estimate:
    with jax.enable_x64(True):
        starts = [np.full(problem.structure.n_params, np.nan)]
        starts += [] if theta is None or not len(theta) else [np.asarray(theta)]
        results = [jax.tree.map(np.asarray, estimate_jit(problem, start)) for start in starts]
    return min(results, key=lambda r: (int(r.status) != Status.CONVERGED, float(r.deviance)))


def require_estimates(fit: Fit) -> None:
    if not np.all(np.isfinite(fit.estimate.psi)):
        raise ValueError(f"the fit has no estimates to resample from ({fit.status})")
