"""Methods of `Fit` and `BatchFit` about shares of variance, those of kernels among them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted, FittedMany, require_switch
from lmmjax.postestimation.parameters import functions


def _values(fitted: Fitted, wanted: functions.Shares) -> pd.Series:
    fun, weights, names = wanted
    return pd.Series(functions.at_estimate(fitted, fun, weights), index=names)


def _with_errors(fitted: Fitted, wanted: functions.Shares, level: float) -> pd.DataFrame:
    fun, weights, names = wanted
    return functions.table(fitted, fun, names, level, "logit", weights)


def _of_many(fits: FittedMany, wanted: functions.Shares) -> pd.DataFrame:
    fun, weights, names = wanted
    return pd.DataFrame(functions.at_estimate(fits, fun, weights), index=fits.names, columns=names)


def _of_many_with_errors(fits: FittedMany, wanted: functions.Shares, level: float) -> pd.DataFrame:
    fun, weights, names = wanted
    return functions.batch_table(fits, fun, names, level, "logit", weights)


class Shares:
    """Shares of the variance: ICC, R², of terms; heritability, reliability of breeding values."""

    fitted: Fitted

    def icc(self, by_group: bool = False, *, se: bool = False, level: float = 0.95) -> Any:
        """Share of the variance that is between groups, averaged over the rows where slopes vary.

        For one random intercept τ²/(τ² + σ²), where σ² stands for the mean over the rows of the residual
        variance: σ²/w with weights, the known variances in a meta-analysis. With by_group=True a Series by
        grouping factor. With se=True a frame: estimate, se, lower, upper, by the delta method, limits on the
        logit scale.

        Parameters
        ----------
        by_group : of every grouping factor by itself. se : with standard errors and limits; level : of these.

        Raises
        ------
        ValueError : a switch that is no bool, a level outside of (0, 1).

        Source: Johnson (2014), doi:10.1111/2041-210X.12225.
        """
        wanted = functions.icc(self.fitted, require_switch("by_group", by_group))
        if require_switch("se", se):
            return _with_errors(self.fitted, wanted, level)
        values = _values(self.fitted, wanted).astype(float)
        return values if by_group else float(values.iloc[0])

    def r2(self, *, se: bool = False, level: float = 0.95) -> Any:
        """Marginal and conditional R²: shares of the fixed part, and of both parts, in the variance.

        A Series; with se=True a frame: estimate, se, lower, upper, by the delta method, limits on the logit
        scale. X is taken as given, so that se is that of β̂ and the variance components only.

        Parameters
        ----------
        se : with standard errors and limits; level : of these.

        Raises
        ------
        ValueError : a switch that is no bool, a level outside of (0, 1).

        Source: Nakagawa & Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; random slopes
        Johnson (2014), doi:10.1111/2041-210X.12225.
        """
        wanted = functions.r2(self.fitted)
        if require_switch("se", se):
            return _with_errors(self.fitted, wanted, level)
        return _values(self.fitted, wanted).rename("r2")

    def variance_shares(self, *, se: bool = False, level: float = 0.95) -> Any:
        """Shares of the variance: of every fixed term, every random term and the residual; they sum to 1.

        Of a fixed term that of its part of xᵀβ̂ over the rows, of a random term the mean over the rows of
        zᵀΣ̂z (Σ̂ of slopes and intercept together), of the residual the mean of σ̂²/w. The denominator is
        their sum; covariances between the parts of fixed terms do not enter. A share of a fixed term is
        biased upwards by the error of β̂, its square on average.

        A Series; with se=True a frame: estimate, se, lower, upper, by the delta method in β̂ and the variance
        components, limits on the logit scale. Names are those of the terms, of random ones their factor.

        Parameters
        ----------
        se : with standard errors and limits; level : of these.

        Raises
        ------
        ValueError : a switch that is no bool, a level outside of (0, 1).

        Source: Hoffman & Schadt (2016), doi:10.1186/s12859-016-1323-z.
        """
        wanted = functions.variance_shares(self.fitted)
        if require_switch("se", se):
            return _with_errors(self.fitted, wanted, level)
        return _values(self.fitted, wanted).rename("share")

    def heritability(
        self,
        level: float = 0.95,
        *,
        method: str | None = None,
        scale: str = "diagonal",
        by: str | None = None,
    ) -> pd.DataFrame:
        """Proportions of variance of a model with kernels: heritability, repeatability, all other terms.

        A row a grouping factor as in `varcorr`, Residual, and, where a factor has other terms beside its
        kernel, repeatability: all of them together. Columns estimate, se (delta method), lower, upper,
        variance (of which it is the share: its mean over the rows), bound ("lower" or "upper" for a share
        that is estimated as 0 or 1: it has no se).

        Parameters
        ----------
        method : of the limits. "profile": where −2ℓ of the criterion that was fitted, minimised over the
            other shares, is χ²₁'s quantile above its minimum; they reach 0 and 1, and are there for estimates
            at an end. "logit": estimate and se on the logit scale, missing at an end. None: profiles of
            models with one kernel and no other term, where they are at hand, else logit. `attrs["method"]`
            says which.
        scale : what a variance σ²ᵤ of levels with covariances σ²ᵤK counts for. "diagonal": σ²ᵤ times the mean
            of K_gg over the rows, their mean variance, the mean of K_gg zᵀΣz with slopes. "sample": σ²ᵤ
            tr(CZKZᵀ)/(n − 1), C = I − 11ᵀ/n, the variance among the rows that are there, which does not
            change with a constant in K; other terms likewise. "ratio": σ²ᵤ, as GCTA has it.
        by : a column of the data: the shares among its rows, level by level; of several traits or
            environments.

        Raises
        ------
        ValueError : no term has a kernel; profiles of models with terms of several columns or with residual
            structures.

        Source: limits, Visscher & Goddard (2015), doi:10.1534/genetics.114.171017; the scale of K, Legarra
        (2016), doi:10.1016/j.tpb.2015.08.005.
        """
        from lmmjax.postestimation.parameters.heritability import heritability

        return heritability(self.fitted, level, method, scale, by)

    def reliability(self, group: str | None = None) -> pd.DataFrame:
        """Reliability of breeding values: 1 − PEV/(σ²ᵤK_gg), the squared correlation of û_g and u_g.

        A row a level of each term with a kernel, those without data too; columns group, level, term, value,
        pred_se (√PEV, with the uncertainty of β̂), reliability, accuracy (its root), observed (whether the
        level has rows). Of Σ K_gg where a term has several columns, column by column.

        Parameters
        ----------
        group : a grouping factor as in `varcorr`; None for all that have a kernel, or all if none has.

        Raises
        ------
        ValueError : an unknown grouping factor.

        Source: Henderson (1975), doi:10.2307/2529430.
        """
        from lmmjax.postestimation.predictions.reliability import reliability

        return reliability(self.fitted, group)

    def genetic_correlation(self, *, test: bool = False, level: float = 0.95) -> pd.DataFrame:
        """Correlations of the columns of random terms, such as traits, and of the residuals of traits.

        Of a model with (0 + trait | id) and a kernel, by `lmmjax.multitrait` or written out. A row a pair:
        group, term1, term2, estimate, se (delta method), lower, upper (on Fisher's z scale), bound ("lower"
        or "upper" for −1 and 1, where there is no se).

        Parameters
        ----------
        test : whether to add likelihood ratio tests, by the criterion that was fitted, of pairs of random
            terms: chisq_0, p_0 of a correlation of zero (χ²₁), chisq_1, p_1 of one of 1, or −1 where the
            estimate is negative (a mixture of χ²₀ and χ²₁ in equal parts).
        level : of the limits.

        Raises
        ------
        ValueError : no term with a kernel has two correlated columns.

        Source: Self & Liang (1987), doi:10.1080/01621459.1987.10478472, of the mixture.
        """
        from lmmjax.postestimation.parameters.trait_correlations import genetic_correlation

        return genetic_correlation(self.fitted, level, test)


class BatchShares:
    """Shares of the variance of every response."""

    fitted: FittedMany

    def icc(self, by_group: bool = False, *, se: bool = False, level: float = 0.95) -> Any:
        """Share of the variance that is between groups, a Series over responses; see `Fit.icc`.

        With by_group=True a frame, responses × grouping factors. With se=True a frame, responses ×
        (name, estimate | se | lower | upper).

        Parameters
        ----------
        level : of the limits.

        Raises
        ------
        ValueError : a switch that is no bool, a level outside of (0, 1).
        """
        wanted = functions.icc(self.fitted, require_switch("by_group", by_group))
        if require_switch("se", se):
            return _of_many_with_errors(self.fitted, wanted, level)
        values = _of_many(self.fitted, wanted)
        return values if by_group else values["icc"]

    def r2(self, *, se: bool = False, level: float = 0.95) -> pd.DataFrame:
        """Marginal and conditional R² of every response; see `Fit.r2`. With se=True as `icc`.

        Variances are averaged over the rows that a response has.

        Parameters
        ----------
        level : of the limits.

        Raises
        ------
        ValueError : as of `icc`.
        """
        wanted = functions.r2(self.fitted)
        if require_switch("se", se):
            return _of_many_with_errors(self.fitted, wanted, level)
        return _of_many(self.fitted, wanted)

    def variance_shares(self, *, se: bool = False, level: float = 0.95) -> pd.DataFrame:
        """Shares of the variance of every response: responses × terms and Residual; see
        `Fit.variance_shares`.

        With se=True responses × (name, estimate | se | lower | upper). Rows and weights are those that a
        response has.

        Parameters
        ----------
        level : of the limits.

        Raises
        ------
        ValueError : as of `Fit.variance_shares`.
        """
        if require_switch("se", se):
            return _of_many_with_errors(self.fitted, functions.variance_shares(self.fitted), level)
        return functions.shares_table(self.fitted)

    def heritability(
        self,
        term: str | None = None,
        level: float = 0.95,
        *,
        method: str | None = None,
        scale: str = "diagonal",
        by: str | None = None,
    ) -> pd.DataFrame:
        """Share of one term in the variance of each response: estimate, se, lower, upper, variance, bound.

        Parameters
        ----------
        term : a grouping factor as in `varcorr`, "Residual" or "repeatability"; may be left out where one
            term has a kernel.
        level, method, scale, by : as in `Fit.heritability`. With `by` columns are (level of `by`, column).

        Raises
        ------
        ValueError : no term with a kernel, or several and no `term`; all of `Fit.heritability`.
        """
        from lmmjax.postestimation.parameters.heritability import batch_heritability

        return batch_heritability(self.fitted, term, level, method, scale, by)
