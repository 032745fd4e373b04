"""Moderated tests of many responses: their residual variances borrow from each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from lmmjax.batch.ddf import covariances
from lmmjax.fitted import FittedMany, by_reml_many, identified_psi, kept, require_switch
from lmmjax.formula.labelled import labelled
from lmmjax.formula.matching import positions
from lmmjax.inference.ddf import independent_rows
from lmmjax.inference.moderation import Shrinkage, VariancePrior, treat, variance_prior
from lmmjax.postestimation.averages import response_means
from lmmjax.postestimation.hypotheses.batch_tests import (
    TABLE,
    adjust,
    combinations,
    estimable_combinations,
    responses_of,
)
from lmmjax.postestimation.hypotheses.contrasts import hypothesis, written
from lmmjax.postestimation.hypotheses.estimability import lost_contrasts
from lmmjax.postestimation.hypotheses.fixed_tests import METHODS, ddf_method, f_tail


@dataclasses.dataclass(frozen=True, eq=False)
class ModeratedMany:
    """Many fits with a common prior of their residual variances.

    Attributes
    ----------
    fits : by REML. prior : of σ².
    s2, df : (T,) σ̂² and its degrees of freedom, 2σ̂⁴/Var(σ̂²). s2_post : (T,) their posterior.
    average : (T,) means of the responses. ddf : a key of `fixed_tests.METHODS`.
    """

    fits: FittedMany
    prior: VariancePrior
    s2: np.ndarray
    df: np.ndarray
    s2_post: np.ndarray
    average: np.ndarray
    ddf: str

    @cached_property
    def fixed(self) -> dict[str, np.ndarray]:
        """`moderated_tests` of the fixed effects, (T, p) each."""
        return moderated_tests(self, np.eye(self.fits.data.design.p))

    def shrinkage(self, which: np.ndarray) -> Shrinkage:
        """What the prior does to some responses."""
        # there is no more in the data than all of their degrees of freedom
        total = np.minimum(self.df + self.prior.df, np.nansum(self.df))
        return Shrinkage(self.df[which], total[which], (self.s2_post / self.s2)[which])


def moderate_many(fits: FittedMany, trend: Any, robust: bool, ddf: str) -> ModeratedMany:
    """See `BatchFit.moderate`."""
    ddf = ddf_method(ddf)
    if ddf == "normal":
        chosen = ", ".join(name for name in METHODS if name != "normal")
        raise ValueError(f"moderated tests are t tests: ddf is one of {chosen}")
    if fits.data.design.known is not None:
        raise ValueError("the residual variances are known: there is nothing to moderate")
    robust = require_switch("robust", robust)
    if isinstance(trend, bool | np.bool_):
        return _moderate(by_reml_many(fits), bool(trend), robust, ddf)
    return _moderated(by_reml_many(fits), trend, robust, ddf)


@kept
def _moderate(fits: FittedMany, trend: bool, robust: bool, ddf: str) -> ModeratedMany:
    return _moderated(fits, trend, robust, ddf)


def _moderated(fits: FittedMany, trend: Any, robust: bool, ddf: str) -> ModeratedMany:
    estimate = fits.estimate
    with np.errstate(divide="ignore", invalid="ignore"):
        s2, df = identified_psi(estimate)[:, -1], 2.0 / estimate.cov_relative[:, -1, -1]
    df = np.where(np.isfinite(s2), df, np.nan)
    average = response_means(fits)
    prior = variance_prior(s2, df, _covariate(fits, trend, average), robust)
    post = np.where(np.isfinite(s2), prior.posterior(s2, df), np.nan)
    return ModeratedMany(fits, prior, s2, df, post, average, ddf)


def _covariate(fits: FittedMany, trend: Any, average: np.ndarray) -> np.ndarray | None:
    """Of the prior variance (T,): means of the responses, or numbers matched by their labels."""
    if isinstance(trend, bool | np.bool_):
        return average if trend else None
    given = labelled(trend, "trend")
    if given.values.shape != (len(fits.names),):
        raise ValueError(
            f"trend has shape {given.values.shape}: give True, or one number for each of {len(fits.names)} "
            "responses"
        )
    place = positions(given.index, fits.names, "trend", "the responses", "labels")
    return given.values if place is None else given.values[place]


def moderated_tests(
    of: ModeratedMany, rows: np.ndarray, reported: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for the rows (k, p) of L, each (T, k).

    Parameters
    ----------
    reported : (T, k) which to report; by default those that have no part of what a response leaves out.
    """
    fits = of.fits
    if reported is None:
        reported = np.asarray(~np.any(~fits.kept[:, None, :] & (rows != 0), axis=2))
    value, variance = combinations(fits.estimate, fits.kept, rows)
    se, df = np.full((2, *value.shape), np.nan)
    with np.errstate(all="ignore"):
        pieces = (
            piece
            for those, columns in _patterns(fits)
            for piece in covariances(
                responses_of(fits).with_columns(columns), those, rows[:, columns], of.ddf
            )
        )
        for at, unit, own in pieces:
            phi = np.diagonal(own.phi, axis1=1, axis2=2)
            slope = -np.diagonal(own.slopes, axis1=2, axis2=3) / phi[:, None, :]
            ratio, df[at] = of.shrinkage(at).of(slope, own.cov_psi, own.sigma2)
            se[at] = np.sqrt(ratio * np.diagonal(own.adjusted, axis1=1, axis2=2)) * unit[:, None]
        known = reported & np.isfinite(variance)
        value = np.where(reported, value, np.nan)
        se, df = np.where(known, se, np.nan), np.where(known, df, np.nan)
        t = value / se
    p = 2.0 * stdtr(df, -np.abs(t))
    return dict(zip(TABLE, (value, se, df, t, p, adjust(p)), strict=True))


def _patterns(fits: FittedMany) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields responses (T,) that have a fit with the same fixed effects, and the positions of these."""
    fitted = np.isfinite(fits.estimate.psi).all(axis=1)
    for columns in np.unique(fits.kept[fitted], axis=0):
        yield fitted & (fits.kept == columns).all(axis=1), np.flatnonzero(columns)


def moderated_contrasts(of: ModeratedMany, rows: np.ndarray, labels: list[str]) -> dict[str, np.ndarray]:
    """`moderated_tests` of contrasts, rows (k, p); those that are not estimable are missing, and named."""
    table = moderated_tests(of, rows, estimable_combinations(of.fits, rows))
    lost = lost_contrasts(of.fits.data, rows, labels)
    return {name: np.where(lost, np.nan, column) for name, column in table.items()}


def moderated_hypothesis(of: ModeratedMany, l: Any, rhs: Any) -> pd.DataFrame:
    """See `Moderated.test`."""
    fits, names = of.fits, of.fits.data.x_names
    rows, right, _ = hypothesis(l, names, rhs, fits.data.frame.aliased)
    lost = lost_contrasts(fits.data, rows, [written(row, names) for row in rows])
    reported = np.asarray(estimable_combinations(fits, rows).all(axis=1) & (not lost.any()))
    f, num_df, den_df = np.full((3, len(fits.names)), np.nan)
    value, variance = combinations(fits.estimate, fits.kept, rows)
    with np.errstate(all="ignore"):
        for those, at in _patterns(fits):
            l = rows[:, at]
            inverse = np.linalg.inv(np.asarray(fits.data.maker.with_columns(at).basis.x_factor))
            used = independent_rows(l, right, inverse @ inverse.T)
            whole = responses_of(fits).with_columns(at)
            for which, unit, own in covariances(whole, those & reported, l[used], of.ddf):
                apart = (value[which][:, used] - right[used]) / unit[:, None]
                f[which], den_df[which] = of.shrinkage(which).f_tests(own, apart)
                num_df[which] = len(used)
        known = np.isfinite(variance).all(axis=1)
        f, den_df = np.where(known, f, np.nan), np.where(known, den_df, np.nan)
        p = f_tail(f, num_df, den_df)
    table = {"F": f, "num_df": num_df, "den_df": den_df, "p": p, "q": adjust(p)}
    return pd.DataFrame(table, index=fits.names)


def treat_table(of: ModeratedMany, table: dict[str, np.ndarray], lfc: float) -> pd.DataFrame:
    """See `BatchFit.treat`; `table` has one contrast, (T, 1)."""
    if not np.isfinite(lfc) or lfc < 0:
        raise ValueError(f"lfc is the smallest change that matters, at least 0, not {lfc}")
    value, se, df = (table[name][:, 0] for name in ("estimate", "se", "df"))
    with np.errstate(invalid="ignore"):
        t, p = treat(value, se, df, float(lfc))
    columns = {"estimate": value, "se": se, "df": df, "t": t, "p": p, "q": adjust(p)}
    return pd.DataFrame(columns, index=of.fits.names)
