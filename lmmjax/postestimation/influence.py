"""Influence by deletion: what each level of a grouping factor, or each row, does to the estimates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from lmmjax.batch.leave_out import without_each
from lmmjax.fitted import Fitted, component_names, require_estimates, sd_scale
from lmmjax.optimize import Status
from lmmjax.postestimation.modes import only_group

OBSERVATION = "observation"
"""The `group` that stands for single rows."""


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


def influence(fitted: Fitted, group: str | None = None) -> Influence:
    """Refit without each level of a grouping factor, or each row: exact deletion, no one-step approximation.

    Parameters
    ----------
    group : the grouping factor, which may be left out if there is one, or "observation" to leave out the
        rows one at a time.

    Every refit is the better of the descents from its moment start and from θ̂ of the whole fit.
    """
    require_estimates(fitted)
    data, whole = fitted.data, fitted.estimate
    factors = list(dict.fromkeys(term.group for term in data.frame.random))
    if group == OBSERVATION and group not in factors:
        codes, index = np.arange(data.design.n), pd.Index(data.frame.index, name=OBSERVATION)
    else:
        group = only_group(factors, group)
        term = next(term for term in data.frame.random if term.group == group)
        codes, index = term.codes, pd.Index(term.levels, name=group)
    one, reasons = without_each(data.maker, fitted.y, fitted.reml, whole.theta, np.asarray(codes), len(index))
    status = [
        reason or Status(int(end)).name.lower() for reason, end in zip(reasons, one.status, strict=True)
    ]
    change = whole.beta - one.beta
    bse = np.sqrt(np.diagonal(one.cov_beta, axis1=1, axis2=2))
    cooks = np.sum(change * np.linalg.solve(whole.cov_beta, change.T).T, axis=1) / max(data.design.p, 1)
    x_names = data.x_names
    sdcor, _ = sd_scale(one.psi, data.components)
    return Influence(
        pd.DataFrame(one.beta, index, x_names),
        pd.DataFrame(bse, index, x_names),
        pd.DataFrame(sdcor, index, component_names(data.components)),
        pd.Series(cooks, index, name="cooks_distance"),
        pd.DataFrame(change / bse, index, x_names),
        pd.Series(status, index, name="status"),
    )


def leave_out(fitted: Fitted, names: list[str]) -> np.ndarray | None:
    """Parameters (G, k) without each independent group; None where a factor crosses the others."""
    random = fitted.data.frame.random
    for term in random:
        pairs = [np.unique(np.stack([term.codes, other.codes]), axis=1).shape[1] for other in random]
        if pairs == [len(np.unique(other.codes)) for other in random]:
            without = influence(fitted, term.group)
            return pd.concat([without.params, without.sdcor], axis=1)[names].to_numpy()
    return None
