"""Influence by deletion: what each level of a grouping factor, or each row, does to the estimates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from lmmjax.batch.leave_out import without_each
from lmmjax.core import Estimate
from lmmjax.fitted import (
    Fitted,
    ModelData,
    component_names,
    identified_sds,
    kept,
    require_estimates,
    require_switch,
)
from lmmjax.inference.diagnostics.deletion import Deleted, Held, change, held, without_groups, without_rows
from lmmjax.optimize import Status
from lmmjax.postestimation.predictions.modes import only_group

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
    mdffits : Cook's distance with Φ₍ᵢ₎ for Φ.
    covtrace : |tr(Φ⁻¹Φ₍ᵢ₎) − p|; covratio : |Φ₍ᵢ₎|/|Φ|, below 1 where the level costs precision.
    status : how each fit ended, or why the model has no fit without the level; its numbers are missing.

    Source: Belsley, Kuh & Welsch (1980), doi:10.1002/0471725153; for mixed models Nieuwenhuis,
    te Grotenhuis & Pelzer (2012), doi:10.32614/RJ-2012-011, and Loy & Hofmann (2014),
    doi:10.18637/jss.v056.i05.
    """

    params: pd.DataFrame
    bse: pd.DataFrame
    sdcor: pd.DataFrame
    cooks_distance: pd.Series
    dfbetas: pd.DataFrame
    mdffits: pd.Series
    covtrace: pd.Series
    covratio: pd.Series
    status: pd.Series

    def __repr__(self) -> str:
        worst = self.cooks_distance.idxmax() if self.cooks_distance.notna().any() else None
        return f"Influence({len(self.params)} levels of {self.params.index.name!r}, largest: {worst})"


def influence(fitted: Fitted, group: str | None = None, refit: bool = True) -> Influence:
    """Refit without each level of a grouping factor, or each row: exact deletion, no one-step approximation.

    Parameters
    ----------
    group : the grouping factor, of random effects or of the residual structure, which may be left out if
        there is one, or "observation" to leave out the rows one at a time.
    refit : with False the variance parameters keep their values, σ² too, and β̂ and its covariance are those
        of generalised least squares without the level: one step, without a fit.

    Every refit is the better of the descents from its moment start and from θ̂ of the whole fit.
    """
    require_estimates(fitted)
    require_switch("refit", refit)
    data, whole = fitted.data, fitted.estimate
    codes, index = units(data, group)
    found = without_levels(fitted, codes, len(index), refit)
    moved = change(whole.beta, whole.cov_beta, found.deleted)
    x_names = data.x_names
    measures = {name: pd.Series(getattr(moved, name), index, name=name) for name in MEASURES}
    return Influence(
        params=pd.DataFrame(found.deleted.beta, index, x_names),
        bse=pd.DataFrame(found.deleted.bse, index, x_names),
        sdcor=pd.DataFrame(found.sdcor, index, component_names(data.components)),
        dfbetas=pd.DataFrame(moved.dfbetas, index, x_names),
        status=pd.Series(found.status, index, name="status"),
        **measures,
    )


MEASURES = ("cooks_distance", "mdffits", "covtrace", "covratio")
"""Those of `Influence` that have one value a level."""

ONE_STEP = "one step"
LOST = "not estimable: the other rows do not determine β"


@dataclasses.dataclass(frozen=True, eq=False)
class Without:
    """Fits without levels, of one response (G) or many (t, G); NaN where there is none.

    Attributes
    ----------
    deleted : β̂ and Φ; sdcor : (..., ·) standard deviations and correlations.
    status : (...) texts, how each ended, or why there is none.
    """

    deleted: Deleted
    sdcor: np.ndarray
    status: np.ndarray


def without_levels(fitted: Fitted, codes: np.ndarray, levels: int, refit: bool) -> Without:
    """Fits without the rows of each level, codes (n,) of `levels`, that all have rows."""
    data, whole = fitted.data, fitted.estimate
    if refit:
        one, reasons = without_each(data.maker, fitted.y, fitted.reml, whole.theta, codes, levels)
        ends = zip(reasons, one.status, strict=True)
        status = [reason or Status(int(end)).name.lower() for reason, end in ends]
        return Without(Deleted(one.beta, one.cov_beta), sds_of(data, one), np.array(status, object))
    fit = held_at(fitted)
    rowwise = levels == len(codes)
    found = without_rows(fit) if rowwise else without_groups(fit, codes, levels)
    return one_step(sds_of(data, whole), found)


def one_step(sdcor: np.ndarray, found: Deleted) -> Without:
    """What is left out with the variance parameters held, whose sds and correlations are `sdcor` (..., ·)."""
    lost = np.asarray(np.isnan(found.beta).any(axis=-1))
    return Without(found, np.where(lost[..., None], np.nan, sdcor), np.where(lost, LOST, ONE_STEP))


def sds_of(data: ModelData, estimate: Estimate) -> np.ndarray:
    """Standard deviations and correlations (..., ·) of estimates of a model."""
    return identified_sds(data.design.structure, data.components, estimate)


influence_kept = kept(influence)
"""`influence`, computed once for a fit: several measures are read from it."""


def units(data: ModelData, group: str | None) -> tuple[np.ndarray, pd.Index]:
    """Codes (n,) and levels of the grouping factor that is meant, or of the rows."""
    frame = data.frame
    levels = {term.group: (term.codes, term.levels) for term in reversed(frame.random)}
    levels = dict(reversed(levels.items()))
    own = frame.residual
    if own is not None and own.design is not None and own.groups is not None:
        levels.setdefault(":".join(own.groups.names), (own.design.codes, own.groups.labels))
    if group == OBSERVATION and group not in levels:
        return np.arange(data.design.n), pd.Index(frame.index, name=OBSERVATION)
    group = only_group(list(levels), group)
    codes, labels = levels[group]
    if any(term.kernel is not None for term in frame.random if term.group == group):
        # a kernel has levels that were not observed
        present, codes = np.unique(codes, return_inverse=True)
        labels = pd.Index(labels)[present]
    return np.asarray(codes), pd.Index(labels, name=group)


@kept
def held_at(fitted: Fitted) -> Held:
    """The fit with its variance parameters held, for leverages and deletion in one step."""
    return held(fitted.data.design, fitted.y, fitted.estimate.psi)


def leave_out(fitted: Fitted, names: list[str]) -> np.ndarray | None:
    """Parameters (G, k) without each independent group; None where a factor crosses the others."""
    random = fitted.data.frame.random
    for term in () if any(t.kernel is not None for t in random) else random:
        pairs = [np.unique(np.stack([term.codes, other.codes]), axis=1).shape[1] for other in random]
        if pairs == [len(np.unique(other.codes)) for other in random]:
            without = influence(fitted, term.group)
            return pd.concat([without.params, without.sdcor], axis=1)[names].to_numpy()
    return None
