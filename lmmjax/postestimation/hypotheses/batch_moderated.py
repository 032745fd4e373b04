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
from lmmjax.fitted import FittedMany, ModelData, by_reml_many, identified_psi, kept, require_switch
from lmmjax.formula.labelled import labelled
from lmmjax.formula.matching import positions
from lmmjax.inference.ddf import independent_rows
from lmmjax.inference.moderation.moderated import (
    JointTests,
    Regressions,
    Shrinkage,
    VariancePrior,
    treat,
    variance_prior,
)
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

    @cached_property
    def shrinkage(self) -> Shrinkage:
        """What the prior does to the responses."""
        return Shrinkage.by(self.prior, self.s2, self.df)


def moderate_many(fits: FittedMany, trend: Any, robust: bool, ddf: str) -> ModeratedMany:
    """See `BatchFit.moderate`."""
    ddf = moderated_ddf(fits.data, ddf)
    robust = require_switch("robust", robust)
    if isinstance(trend, bool | np.bool_):
        return _moderate(by_reml_many(fits), bool(trend), robust, ddf)
    return _moderated(by_reml_many(fits), trend, robust, ddf)


def moderated_ddf(data: ModelData, ddf: str) -> str:
    """A key of `fixed_tests.METHODS`; ValueError where there is nothing to moderate, or no t test."""
    ddf = ddf_method(ddf)
    if ddf == "normal":
        chosen = ", ".join(name for name in METHODS if name != "normal")
        raise ValueError(f"moderated tests are t tests: ddf is one of {chosen}")
    if data.design.known is not None:
        raise ValueError("the residual variances are known: there is nothing to moderate")
    return ddf


@kept
def _moderate(fits: FittedMany, trend: bool, robust: bool, ddf: str) -> ModeratedMany:
    return _moderated(fits, trend, robust, ddf)


def _moderated(fits: FittedMany, trend: Any, robust: bool, ddf: str) -> ModeratedMany:
    s2, df = residual_variances(fits)
    average = response_means(fits)
    prior = variance_prior(s2, df, _covariate(fits, trend, average), robust)
    post = np.where(np.isfinite(s2), prior.posterior(s2, df), np.nan)
    return ModeratedMany(fits, prior, s2, df, post, average, ddf)


def residual_variances(fits: FittedMany) -> tuple[np.ndarray, np.ndarray]:
    """σ̂² and its degrees of freedom 2σ̂⁴/Var(σ̂²), (T,) each."""
    estimate = fits.estimate
    with np.errstate(divide="ignore", invalid="ignore"):
        s2, df = identified_psi(estimate)[:, -1], 2.0 / estimate.cov_relative[:, -1, -1]
    return s2, np.where(np.isfinite(s2), df, np.nan)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Unmoderated:
    """Contrasts of T responses before the prior: value, standard error (T, k), and what σ̂² has to do with it.

    NaN where a response does not determine them.
    """

    value: np.ndarray
    se: np.ndarray
    regressions: Regressions

    def tests(self, shrinkage: Shrinkage) -> dict[str, np.ndarray]:
        """Columns of `TABLE`, (T, k) each."""
        with np.errstate(all="ignore"):
            ratio, df = shrinkage.of(self.regressions)
            se = self.se * np.sqrt(ratio)
            df = np.where(np.isnan(se), np.nan, df)
            t = self.value / se
            p = 2.0 * stdtr(df, -np.abs(t))
        return dict(zip(TABLE, (self.value, se, df, t, p, adjust(p)), strict=True))


def unmoderated(
    fits: FittedMany, rows: np.ndarray, ddf: str, reported: np.ndarray | None = None
) -> Unmoderated:
    """Of the rows (k, p) of L.

    Parameters
    ----------
    reported : (T, k) which to report; by default those that have no part of what a response leaves out.
    """
    if reported is None:
        reported = np.asarray(~np.any(~fits.kept[:, None, :] & (rows != 0), axis=2))
    value, variance = combinations(fits, rows)
    se, b, spread = np.full((3, *value.shape), np.nan)
    residual = np.full(len(value), np.nan)
    with np.errstate(all="ignore"):
        for those, columns in _patterns(fits):
            some = responses_of(fits).with_columns(columns)
            for at, unit, own in covariances(some, those, rows[:, columns], ddf):
                phi = np.diagonal(own.phi, axis1=1, axis2=2)
                slope = -np.diagonal(own.slopes, axis1=2, axis2=3) / phi[:, None, :]
                found = Regressions.of(slope, own.cov_psi, own.sigma2)
                b[at], spread[at], residual[at] = found.b, found.variance, found.residual
                se[at] = np.sqrt(np.diagonal(own.adjusted, axis1=1, axis2=2)) * unit[:, None]
    known = reported & np.isfinite(variance)
    value, se = np.where(reported, value, np.nan), np.where(known, se, np.nan)
    return Unmoderated(value, se, Regressions(b, spread, residual))


def moderated_tests(
    of: ModeratedMany, rows: np.ndarray, reported: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for the rows (k, p) of L, each (T, k); `reported` as in `unmoderated`."""
    return unmoderated(of.fits, rows, of.ddf, reported).tests(of.shrinkage)


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
    table = unmoderated_hypothesis(fits, rows, right, of.ddf, reported).tests(of.shrinkage)
    return pd.DataFrame(table | {"q": adjust(table["p"])}, index=fits.names)


@dataclasses.dataclass(frozen=True, eq=False)
class UnmoderatedF:
    """F tests of T responses before the prior, of `num_df` (T,) contrasts; the others of `tests` are NaN."""

    num_df: np.ndarray
    tests_apart: JointTests

    def tests(self, shrinkage: Shrinkage) -> dict[str, np.ndarray]:
        """F, num_df, den_df, p, (T,) each."""
        f, den_df = np.full((2, len(self.num_df)), np.nan)
        apart = self.tests_apart
        with np.errstate(all="ignore"):
            for k in np.unique(self.num_df[np.isfinite(self.num_df)]).astype(int):
                at = self.num_df == k
                own = apart.regressions
                some = Regressions(own.b[at, :k], own.variance[at, :k], own.residual[at])
                f[at], den_df[at] = shrinkage.some(at).f_tests(JointTests(apart.products[at, :k, :k], some))
            p = f_tail(f, self.num_df, den_df)
        return {"F": f, "num_df": self.num_df, "den_df": den_df, "p": p}


def unmoderated_hypothesis(
    fits: FittedMany, rows: np.ndarray, right: np.ndarray, ddf: str, reported: np.ndarray
) -> UnmoderatedF:
    """Of Lβ = rhs, L (k, p), for those responses that are `reported` (T,)."""
    total, most = len(fits.names), len(rows)
    num_df, residual = np.full((2, total), np.nan)
    b, spread = np.full((2, total, most), np.nan)
    products = np.full((total, most, most), np.nan)
    value, variance = combinations(fits, rows)
    known = np.isfinite(variance).all(axis=1)
    with np.errstate(all="ignore"):
        for those, at in _patterns(fits):
            l = rows[:, at]
            inverse = np.linalg.inv(np.asarray(fits.data.maker.with_columns(at).basis.x_factor))
            used = independent_rows(l, right, inverse @ inverse.T)
            whole, k = responses_of(fits).with_columns(at), len(used)
            for which, unit, own in covariances(whole, those & reported, l[used], ddf):
                apart = (value[which][:, used] - right[used]) / unit[:, None]
                found = JointTests.of(own, apart)
                products[which, :k, :k], num_df[which] = found.products, k
                b[which, :k], spread[which, :k] = found.regressions.b, found.regressions.variance
                residual[which] = found.regressions.residual
    products[~known] = np.nan
    return UnmoderatedF(num_df, JointTests(products, Regressions(b, spread, residual)))


def treat_table(of: ModeratedMany, table: dict[str, np.ndarray], lfc: float) -> pd.DataFrame:
    """See `BatchFit.treat`; `table` has one contrast, (T, 1)."""
    if not np.isfinite(lfc) or lfc < 0:
        raise ValueError(f"lfc is the smallest change that matters, at least 0, not {lfc}")
    value, se, df = (table[name][:, 0] for name in ("estimate", "se", "df"))
    with np.errstate(invalid="ignore"):
        t, p = treat(value, se, df, float(lfc))
    columns = {"estimate": value, "se": se, "df": df, "t": t, "p": p, "q": adjust(p)}
    return pd.DataFrame(columns, index=of.fits.names)
