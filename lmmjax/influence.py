"""Leave-one-group-out influence: what each level of a grouping factor does to the estimates."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np
import pandas as pd

from lmmjax import varcomp
from lmmjax.batch_reports import only_group
from lmmjax.design import take_rows
from lmmjax.estimate import Estimate, estimate_jit
from lmmjax.optimize import Status
from lmmjax.problem import ProblemMaker

if TYPE_CHECKING:
    from lmmjax.results import Fit


@dataclasses.dataclass(frozen=True, eq=False)
class Influence:
    """Fits without one level of a grouping factor at a time; rows are the levels left out.

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
    """Refit without each level of a grouping factor: exact deletion, no one-step approximation.

    Parameters
    ----------
    group : the grouping factor; may be left out if there is one.
    """
    require_estimates(fit)
    model = fit.model
    group = only_group(list(dict.fromkeys(term.group for term in model.frame.random)), group)
    term = next(term for term in model.frame.random if term.group == group)
    whole = fit.estimate
    beta, bse = np.full((2, len(term.levels), model.design.p), np.nan)
    psi = np.full((len(term.levels), len(whole.psi)), np.nan)
    status = []
    for level in range(len(term.levels)):
        keep = term.codes != level
        try:
            maker = ProblemMaker(take_rows(model.design, keep), model._backend)
        except ValueError as error:
            status.append(f"not estimable: {error}")
            continue
        one = best_estimate(maker, fit.y[keep], fit.reml, whole.theta)
        status.append(Status(int(one.status)).name.lower())
        beta[level], bse[level], psi[level] = one.beta, np.sqrt(np.diagonal(one.cov_beta)), one.psi
    change = whole.beta - beta
    cooks = np.sum(change * np.linalg.solve(whole.cov_beta, change.T).T, axis=1) / max(model.design.p, 1)
    index, x_names = pd.Index(term.levels, name=group), list(model.frame.x_names)
    sdcor, _ = varcomp.sd_scale(psi, model.components)
    return Influence(
        pd.DataFrame(beta, index, x_names),
        pd.DataFrame(bse, index, x_names),
        pd.DataFrame(sdcor, index, varcomp.names(model.components)),
        pd.Series(cooks, index, name="cooks_distance"),
        pd.DataFrame(change / bse, index, x_names),
        pd.Series(status, index, name="status"),
    )


def best_estimate(
    maker: ProblemMaker, y: np.ndarray, reml: bool, theta: np.ndarray | None = None
) -> Estimate:
    """The best of the descents from the moment start and from θ (m,)."""
    with jax.enable_x64(True):
        problem = maker(y, reml)
        starts = [np.full(problem.structure.n_params, np.nan)]
        starts += [] if theta is None or not len(theta) else [np.asarray(theta)]
        results = [jax.tree.map(np.asarray, estimate_jit(problem, start)) for start in starts]
    return min(results, key=lambda r: (int(r.status) != Status.CONVERGED, float(r.deviance)))


def require_estimates(fit: Fit) -> None:
    if not np.all(np.isfinite(fit.estimate.psi)):
        raise ValueError(f"the fit has no estimates to resample from ({fit.status})")
