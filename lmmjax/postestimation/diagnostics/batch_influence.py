"""Influence of the levels of a grouping factor, or of rows, on the fits of many responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays.memory import require_memory
from lmmjax.batch import FEW, estimate_many
from lmmjax.core import Estimate
from lmmjax.fitted import FittedMany, component_names, require_switch
from lmmjax.inference.diagnostics.deletion import Deleted, change
from lmmjax.inference.diagnostics.deletion_many import without_clusters
from lmmjax.inference.robust.clusters_many import ManyClusters, shared_blocks
from lmmjax.optimize import Status
from lmmjax.postestimation.alike import Alike, alike
from lmmjax.postestimation.diagnostics.influence import (
    LOST,
    MEASURES,
    ONE_STEP,
    Without,
    one_step,
    sds_of,
    units,
    without_levels,
)
from lmmjax.postestimation.hypotheses.robust import holds

NO_FIT = "no fit to all rows"

TOGETHER = FEW // 8
"""Responses with a design in common from which on they are refitted as lanes, level by level."""


@dataclasses.dataclass(frozen=True, eq=False)
class BatchInfluence:
    """Fits of many responses without one level of a grouping factor, or one row, at a time.

    Numbers are those of `Influence`; those of a response without a fit are missing.

    Attributes
    ----------
    params, bse, sdcor, dfbetas : a row a response and level.
    cooks_distance, mdffits, covtrace, covratio, status : responses × levels.
    """

    params: pd.DataFrame
    bse: pd.DataFrame
    sdcor: pd.DataFrame
    dfbetas: pd.DataFrame
    cooks_distance: pd.DataFrame
    mdffits: pd.DataFrame
    covtrace: pd.DataFrame
    covratio: pd.DataFrame
    status: pd.DataFrame

    def __repr__(self) -> str:
        shape = self.cooks_distance.shape
        return f"BatchInfluence({shape[0]} responses, {shape[1]} levels of {self.status.columns.name!r})"


def influence_of_many(fits: FittedMany, group: str | None, refit: bool) -> BatchInfluence:
    """See `BatchFit.influence`."""
    require_switch("refit", refit)
    data, t = fits.data, len(fits.names)
    codes, levels = units(data, group)
    g, p, sds = len(levels), data.design.p, component_names(data.components)
    require_memory(
        f"fits of {t:,} responses without each of {g:,} levels", 1, t, g, 3 * p + len(sds) + len(MEASURES)
    )
    beta, bse, dfbetas = (np.full((t, g, p), np.nan) for _ in range(3))
    sdcor = np.full((t, g, len(sds)), np.nan)
    measures = {name: np.full((t, g), np.nan) for name in MEASURES}
    status = np.full((t, g), NO_FIT, object)
    for own in alike(fits):
        whole = jax.tree.map(lambda a, at=own.which: a[at], fits.estimate)
        at = np.ix_(np.arange(len(own.which)), own.columns)
        first = whole.beta[at], whole.cov_beta[:, own.columns[:, None], own.columns]
        for some, to, found in _found(own, whole, codes, g, refit):
            moved = change(first[0][some][:, None], first[1][some][:, None], found.deleted)
            k = own.which[some]
            place, wide = np.ix_(k, to, own.columns), np.ix_(k, to)
            beta[place], bse[place] = found.deleted.beta, found.deleted.bse
            dfbetas[place], sdcor[wide], status[wide] = moved.dfbetas, found.sdcor, found.status
            for name in MEASURES:
                measures[name][wide] = getattr(moved, name)
    index = pd.MultiIndex.from_product([fits.names, levels], names=[fits.names.name, levels.name])

    def frame(values: np.ndarray, columns: list[str]) -> pd.DataFrame:
        return pd.DataFrame(values.reshape(t * g, -1), index, columns)

    wide = {name: pd.DataFrame(values, fits.names, levels) for name, values in measures.items()}
    return BatchInfluence(
        params=frame(beta, data.x_names),
        bse=frame(bse, data.x_names),
        sdcor=frame(sdcor, sds),
        dfbetas=frame(dfbetas, data.x_names),
        status=pd.DataFrame(status, fits.names, levels),
        **wide,
    )


Found = Iterator[tuple[np.ndarray, np.ndarray, Without]]


def _found(own: Alike, whole: Estimate, codes: np.ndarray, levels: int, refit: bool) -> Found:
    """Yields numbers (t,) of responses among those alike, positions (l,) of levels, and fits without these.

    Parameters
    ----------
    whole : the fits to all of their rows; codes : (n,) levels of the rows of the model.
    """
    present, compact = np.unique(codes[own.rows], return_inverse=True)
    absent, every = np.setdiff1d(np.arange(levels), present), np.arange(len(own.which))
    sdcor = sds_of(own.fits.data, whole)[:, None]
    if len(absent):
        # levels without rows of theirs leave the fit as it is
        yield every, absent, _unmoved(own, whole, sdcor, len(absent), refit)
    if refit and len(every) >= TOGETHER:
        for k, level in enumerate(present):
            yield every, np.array([level]), _refits(own, compact != k)
        return
    many = None if refit else _clusters(own, compact)
    if many is not None:
        for part, beta, phi in without_clusters(many, compact):
            yield every[part], present, one_step(sdcor[part], Deleted(beta, phi))
        return
    for j in every:
        found = without_levels(own.fit(int(own.which[j])), compact, len(present), refit)
        deleted = Deleted(found.deleted.beta[None], found.deleted.cov_beta[None])
        yield every[[j]], present, Without(deleted, found.sdcor[None], found.status[None])


def _unmoved(own: Alike, whole: Estimate, sdcor: np.ndarray, levels: int, refit: bool) -> Without:
    beta = whole.beta[:, own.columns]
    shape = len(beta), levels
    phi = whole.cov_beta[:, own.columns[:, None], own.columns]
    ended = [Status(int(end)).name.lower() if refit else ONE_STEP for end in whole.status]
    return Without(
        Deleted(*(np.repeat(a[:, None], levels, axis=1) for a in (beta, phi))),
        np.repeat(sdcor, levels, axis=1),
        np.broadcast_to(np.array(ended, object)[:, None], shape),
    )


def _clusters(own: Alike, codes: np.ndarray) -> ManyClusters | None:
    """The levels as independent clusters, or None where they are none, or responses are few."""
    fits, design = own.fits, own.data.design
    if len(own.which) < TOGETHER or not all(holds(codes, term.codes) for term in design.terms):
        return None
    blocks = shared_blocks(design, codes) if codes.max() > 0 else None
    if blocks is None:
        return None
    psi, beta = fits.estimate.psi[own.which], fits.estimate.beta[own.which][:, own.columns]
    return ManyClusters(design, blocks, psi, beta, fits.y[np.ix_(own.rows, own.which)])


def _refits(own: Alike, keep: np.ndarray) -> Without:
    """Fits of all responses alike to the rows `keep` (n,) of theirs, (t, 1)."""
    fits, maker = own.fits, own.data.maker
    y = np.where(keep[:, None], fits.y[np.ix_(own.rows, own.which)], np.nan)
    found = estimate_many(maker, y, fits.reml)
    estimate, sdcor = found.estimate, sds_of(fits.data, found.estimate)
    lost = np.isnan(estimate.beta).any(axis=1)
    none = np.isnan(estimate.psi).all(axis=1)
    gone = np.where(lost, np.nan, 1.0)
    status = np.array([Status(int(end)).name.lower() for end in estimate.status], object)
    status[lost] = np.where(none & (found.reasons != ""), found.reasons, LOST)[lost]
    deleted = Deleted(
        (gone[:, None] * estimate.beta)[:, None], (gone[:, None, None] * estimate.cov_beta)[:, None]
    )
    return Without(deleted, (gone[:, None] * sdcor)[:, None], status[:, None])
