"""Marginal means, slopes and contrasts of a fit, as users hold them, and the methods that make them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted, require_level
from lmmjax.postestimation.means.comparisons import comparison_arrows, letter_table
from lmmjax.postestimation.means.contrast_methods import level_names
from lmmjax.postestimation.means.joint import effect_tests, family_tests
from lmmjax.postestimation.means.linear import Functions, View, marginal_means
from lmmjax.postestimation.means.tables import (
    Contrasted,
    contrast_table,
    contrasted,
    covariance_of,
    means_table,
    printed_notes,
    regridded,
    slopes,
    view,
)
from lmmjax.reports.cells import grid_of
from lmmjax.reports.markup import Grid, Markup, wrapped
from lmmjax.reports.table import printed, prints_whole


class _Estimates(Markup):
    """Linear functions of the coefficients of a fit, with how they are reported."""

    fitted: Fitted
    functions: Functions
    how: View

    def contrast(
        self,
        method: str | Mapping[str, Sequence[float]] | Any = "pairwise",
        adjust: str | None = None,
        by: str | Sequence[str] | None = None,
        *,
        ref: int | str | None = None,
    ) -> Contrasts:
        """Contrasts of these, family by family.

        Parameters
        ----------
        method : "pairwise", "revpairwise"; "trt.vs.ctrl" ("trt.vs.ctrlk": the last is the control); "consec",
            each less the one before; "poly", orthogonal polynomials of equally spaced levels; "eff" and
            "del.eff", each less the mean of all and of the others; "mean_chg"; "identity"; {name: k weights},
            a frame with a row a contrast, or weights (m, k). Weights in a dict or Series are matched by names
            of means or their levels: {"B less A": {"B": 1, "A": -1}}.
        adjust : of p-values and limits in a family: "tukey" (of pairwise comparisons; Šidák's takes its place
            in other families), "dunnett" and "mvt", exact by the multivariate t distribution of the
            estimates, to some 3e-4; "scheffe", "sidak", "bonferroni", "holm", "fdr" (Benjamini & Hochberg's;
            limits of the last two are Bonferroni's), "none". By default what is usual: Tukey's for pairs,
            Dunnett's with a control, "mvt" for "consec" and "mean_chg", "fdr" for effects, none for
            polynomials and weights. What is not estimable counts in the size of the family, but not for
            "holm", "fdr" and "mvt".
        by : columns that divide these into families; by default those of `emmeans`, [] for none.
        ref : the control, by its name or position from 0 on.

        Raises
        ------
        ValueError : an unknown method or adjustment, weights of another number than there are means.
        """
        return Contrasts(self.fitted, contrasted(self.functions, self.how, method, adjust, by, ref), self.how)

    @property
    @abc.abstractmethod
    def table(self) -> pd.DataFrame:
        """A row an estimate."""

    def _pieces(self) -> list[str | Grid]:
        """The table and the notes below it."""
        table = self.table
        return [grid_of(table, index=False), *printed_notes(table.attrs)]

    def __repr__(self) -> str:
        table = self.table
        return "\n".join([printed(table), "", *wrapped(printed_notes(table.attrs))])

    def pairs(self, adjust: str | None = None, by: str | Sequence[str] | None = None) -> Contrasts:
        """All differences of two: `contrast("pairwise")`.

        Parameters
        ----------
        adjust, by : as of `contrast`.

        Raises
        ------
        ValueError : as of `contrast`; a single mean.
        """
        return self.contrast("pairwise", adjust, by)

    def cov(self) -> pd.DataFrame:
        """Covariance matrix of the estimates, on the scale of the model."""
        names = level_names(self.functions.labels, brackets=False)
        cov = covariance_of(self.fitted, self.functions, self.how)
        return pd.DataFrame(cov, index=names, columns=names)


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MarginalMeans(_Estimates):
    """Marginal means, or slopes, by the levels of factors; made by `Fit.emmeans` and `Fit.emtrends`."""

    fitted: Fitted
    functions: Functions
    how: View

    @property
    def table(self) -> pd.DataFrame:
        """Columns with levels, then estimate, se, df, lower, upper; a row a mean, limits not adjusted."""
        return means_table(self.fitted, self.functions, self.how)

    def joint_tests(self) -> pd.DataFrame:
        """F tests of the main effects and interactions of the factors, in each family.

        Columns term, by-columns, num_df, den_df, F, p. An effect is tested on means that are averaged with
        equal weights over the other factors, that of a nested factor within what it is nested in. Where
        cells are missing it has the degrees of freedom of its estimable contrasts, no row without one; what
        else is estimable of differences of means is the last term, "(confounded)", as in R's emmeans.
        """
        return effect_tests(self.fitted, self.functions, self.how)

    def cld(self, alpha: float = 0.05, adjust: str = "tukey") -> pd.DataFrame:
        """The table, by increasing estimate in each family, with a column `group` of letters.

        Means without a letter in common differ at level `alpha`; those that share one do not.

        Parameters
        ----------
        alpha : of differences. adjust : of their p-values, as of `contrast`.

        Raises
        ------
        ValueError : a level outside of (0, 1); as of `pairs`.

        Source: Piepho (2004), doi:10.1198/1061860043515.
        """
        pairs = contrasted(self.functions, self.how, "pairwise", adjust, None, None)
        return letter_table(self.fitted, self.functions, pairs, self.how, require_level(alpha, "alpha"))

    def regrid(self) -> MarginalMeans:
        """Means on the scale of the response as linear functions: their contrasts are differences there.

        By the delta method, for a response that is transformed in the formula.
        """
        if self.how.text is None:
            return self
        how = self.how
        if how.back is None:
            back = view(self.fitted, how.ddf, how.level, "response").back
            how = dataclasses.replace(how, back=back)
        made = regridded(self.fitted, self.functions, how)
        return MarginalMeans(self.fitted, made, View(how.ddf, how.level, how.robust))

    def plot(self, ax: Any = None, *, comparisons: bool = True, adjust: str = "tukey") -> Any:
        """Estimates with limits, and arrows of which two overlap where their means do not differ.

        Parameters
        ----------
        ax : Axes to draw on; new ones if None.
        comparisons : whether to draw arrows, for pairwise comparisons in each family, adjusted by `adjust`,
            at the level of the limits.

        Returns
        -------
        matplotlib's Axes.

        Raises
        ------
        ImportError : matplotlib is missing (`pip install 'lmmjax[plot]'`).
        """
        from lmmjax.plot import plot_means

        ends, misled = None, []
        if comparisons and len(self.functions.labels) > 1:
            pairs = contrasted(self.functions, self.how, "pairwise", adjust, None, None)
            ends, misled = comparison_arrows(self.fitted, self.functions, pairs, self.how)
        return plot_means(self.table, list(self.functions.by), ends, misled, ax)


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Contrasts(_Estimates):
    """Contrasts of marginal means; made by `MarginalMeans.contrast`."""

    fitted: Fitted
    contrasted: Contrasted
    how: View

    @property
    def functions(self) -> Functions:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The contrasts as linear functions of the coefficients."""
        return self.contrasted.functions

    @property
    def table(self) -> pd.DataFrame:
        """Columns contrast, by-columns, estimate, se, df, lower, upper, t, p; a row a contrast.

        Limits and p-values are adjusted in each family; `attrs` says how. With type="response" differences of
        logarithms are ratios, of which t and p test that they are 1.
        """
        return contrast_table(self.fitted, self.contrasted, self.how)

    def joint_tests(self) -> pd.DataFrame:
        """F tests that all contrasts of a family are zero: columns by-columns, num_df, den_df, F, p."""
        return family_tests(self.fitted, self.functions, self.how)


class Means:
    """Methods of `Fit` that make marginal means."""

    fitted: Fitted

    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        ddf: str = "satterthwaite",
        level: float = 0.95,
        type: str = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
        offset: float | None = None,
        robust: str | None = None,
        cluster: Any = None,
    ) -> MarginalMeans:
        """Estimated marginal means (least-squares means) by the levels of factors.

        Predictions for all combinations of the predictors, averaged over those that are not named: factors at
        all their levels, covariates at their mean (at both values if they have two). Factors that are nested
        in others are averaged within these, and shown with them.

        Parameters
        ----------
        specs : names of predictors, "a", ["a", "b"] or "a * b"; "1" for one overall mean; "a | b" for by="b".
        by : predictors whose levels make separate families of comparisons.
        at : {predictor: value or values} in place of its levels or its mean.
        weights : of what is averaged over: "equal"; "proportional" to the frequency of the combinations in
            the data; "outer", to the product of the frequencies of the levels of each; "cells", to that of
            each cell; "flat", equal for cells that have observations.
        ddf : as in `coef_table`. level : of the limits.
        type : "link", the scale of the model; "response": a transformation of the response in the formula,
            such as log(y), is undone, with standard errors by the delta method and transformed limits.
        bias_adjust : with type="response", add ½σ²h″ for h the inverse of the transformation, so that the
            mean and not the median is estimated; sigma : σ, by default the square root of all variance
            components together (mean over the rows where it differs).
        offset : in place of the model's offsets, which are evaluated at the reference grid like covariates
            (an array beside the data: its mean).
        robust, cluster : the covariance, as in `cov_params`.

        A mean that is not estimable, because a cell is missing, is NaN, and an `EstimabilityWarning` names
        it.

        Raises
        ------
        ValueError : an unknown predictor or level, a model that was built from matrices, or more combinations
            than can be held.

        Sources: Searle, Speed & Milliken (1980, doi:10.1080/00031305.1980.10483031); Lenth (2016,
        doi:10.18637/jss.v069.i01), whose R package emmeans these results agree with.

        Examples
        --------
        >>> import lmmjax as lj
        >>> from lmmjax.datasets import load
        >>> fit = lj.lmm("score ~ Machine + (Machine | Worker)", load("machines")).fit()
        >>> fit.emmeans("Machine").pairs().table["estimate"].round(2).tolist()
        [-7.97, -13.92, -5.95]
        """
        how = view(self.fitted, ddf, level, type, bias_adjust, sigma, robust, cluster)
        functions = marginal_means(self.fitted.data, specs, by, at, weights, offset)
        return MarginalMeans(self.fitted, functions, how)

    def emtrends(
        self,
        var: str,
        specs: str | Sequence[str] = "1",
        by: str | Sequence[str] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        ddf: str = "satterthwaite",
        level: float = 0.95,
        robust: str | None = None,
        cluster: Any = None,
    ) -> MarginalMeans:
        """Slopes of a covariate, averaged as `emmeans` averages predictions.

        Parameters
        ----------
        var : name of the covariate, as in the data; the derivative is taken through whatever the formula
            makes of it (`poly`, splines, logarithms), at its mean or at the values in `at`.
        specs, by, at, weights, ddf, level, robust, cluster : as in `emmeans`.

        A response that is transformed stays so.

        Raises
        ------
        ValueError : var is no numeric predictor; all of `emmeans`.
        """
        how = view(self.fitted, ddf, level, robust=robust, cluster=cluster)
        functions = marginal_means(
            self.fitted.data, specs, by, at, weights, None, slopes(self.fitted.data, var)
        )
        return MarginalMeans(self.fitted, functions, how)
