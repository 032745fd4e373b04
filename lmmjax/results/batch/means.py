"""Marginal means of many responses, as users hold them, and the method of `BatchFit` that makes them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lmmjax.fitted import FittedMany, require_level
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method
from lmmjax.postestimation.hypotheses.robust import robust_choice
from lmmjax.postestimation.means.batch_means import (
    contrasts_of_many,
    effect_tests_of_many,
    family_tests_of_many,
    means_of_many,
)
from lmmjax.postestimation.means.comparisons import letters_of_many
from lmmjax.postestimation.means.linear import Functions, View, marginal_means
from lmmjax.postestimation.means.tables import Contrasted, contrasted, slopes
from lmmjax.reports.cells import grid_of
from lmmjax.reports.markup import Grid, Markup
from lmmjax.reports.table import printed, prints_whole


class _ManyEstimates(Markup):
    """Linear functions of the coefficients of many responses, with how they are reported."""

    fitted: FittedMany
    how: View

    @property
    @abc.abstractmethod
    def table(self) -> pd.DataFrame:
        """A row a response and estimate."""

    def _pieces(self) -> list[str | Grid]:
        """The table."""
        return [grid_of(self.table, index=False)]

    def __repr__(self) -> str:
        return printed(self.table)


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BatchContrasts(_ManyEstimates):
    """Contrasts of marginal means of many responses; made by `BatchMeans.contrast`."""

    fitted: FittedMany
    contrasted: Contrasted
    how: View

    @property
    def table(self) -> pd.DataFrame:
        """Columns response, contrast, by-columns, estimate, se, df, lower, upper, t, p, q.

        Limits and p-values are adjusted in each family of each response; q are Benjamini-Hochberg values of
        these p over the responses, contrast by contrast.
        """
        return contrasts_of_many(self.fitted, self.contrasted, self.how)

    def joint_tests(self) -> pd.DataFrame:
        """F tests that all contrasts of a family are zero: response, by-columns, num_df, den_df, F, p, q."""
        return family_tests_of_many(self.fitted, self.contrasted.functions, self.how)


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BatchMeans(_ManyEstimates):
    """Marginal means, or slopes, of many responses by the levels of factors.

    Made by `BatchFit.emmeans` and `BatchFit.emtrends`.
    """

    fitted: FittedMany
    functions: Functions
    how: View

    @property
    def table(self) -> pd.DataFrame:
        """Columns response, those with levels, estimate, se, df, lower, upper; a row a response and mean."""
        return means_of_many(self.fitted, self.functions, self.how)

    def contrast(
        self,
        method: str | Mapping[str, Sequence[float]] | Any = "pairwise",
        adjust: str | None = None,
        by: str | Sequence[str] | None = None,
        *,
        ref: int | str | None = None,
    ) -> BatchContrasts:
        """Contrasts of these for every response; arguments as in `MarginalMeans.contrast`.

        With thousands of responses adjust="none" is much quicker: other adjustments are made one response
        after the other.

        Raises
        ------
        ValueError : as there.
        """
        made = contrasted(self.functions, self.how, method, adjust, by, ref)
        return BatchContrasts(self.fitted, made, self.how)

    def pairs(self, adjust: str | None = None, by: str | Sequence[str] | None = None) -> BatchContrasts:
        """All differences of two: `contrast("pairwise")`.

        Parameters
        ----------
        adjust, by : as of `contrast`.

        Raises
        ------
        ValueError : as of `contrast`; a single mean.
        """
        return self.contrast("pairwise", adjust, by)

    def cld(self, alpha: float = 0.05, adjust: str = "tukey") -> pd.DataFrame:
        """The table with a column `group` of letters, response by response.

        In a family of a response, means without a letter in common differ at level `alpha`, and those that
        share one do not; the smallest mean has an "a". A mean that is not estimable has none. With thousands
        of responses adjust="none" is much quicker.

        Parameters
        ----------
        adjust : of the p-values in a family, as of `contrast`.

        Raises
        ------
        ValueError : a level outside of (0, 1); as of `pairs`.

        Source: Piepho (2004), doi:10.1198/1061860043515.
        """
        pairs = contrasted(self.functions, self.how, "pairwise", adjust, None, None)
        return letters_of_many(self.fitted, self.functions, pairs, self.how, require_level(alpha, "alpha"))

    def joint_tests(self) -> pd.DataFrame:
        """F tests of the main effects and interactions of the factors for every response, in each family.

        Columns response, term, by-columns, num_df, den_df, F, p, q; see `MarginalMeans.joint_tests`. A
        response has the degrees of freedom of what its rows determine; q are Benjamini-Hochberg values over
        the responses, effect by effect. What is (confounded) is tested one response after the other.
        """
        return effect_tests_of_many(self.fitted, self.functions, self.how)


class Means:
    """Methods of `BatchFit` that make marginal means."""

    fitted: FittedMany

    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        ddf: str = "satterthwaite",
        level: float = 0.95,
        offset: float | None = None,
        robust: str | None = None,
        cluster: Any = None,
    ) -> BatchMeans:
        """Estimated marginal means of every response; arguments as in `Fit.emmeans`.

        All responses have one reference grid, that of all rows of the model: covariates have their mean over
        these, and weights count these, also for a response with missing values. What the rows of a response
        do not determine is NaN.
        """
        how = self._view(ddf, level, robust, cluster)
        functions = marginal_means(self.fitted.data, specs, by, at, weights, offset)
        return BatchMeans(self.fitted, functions, how)

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
    ) -> BatchMeans:
        """Slopes of a covariate for every response; arguments as in `Fit.emtrends`, grid as in `emmeans`.

        Raises
        ------
        ValueError : as of `Fit.emtrends`.
        """
        how = self._view(ddf, level, robust, cluster)
        slope = slopes(self.fitted.data, var)
        functions = marginal_means(self.fitted.data, specs, by, at, weights, None, slope)
        return BatchMeans(self.fitted, functions, how)

    def _view(self, ddf: str, level: float, robust: str | None, cluster: Any) -> View:
        ddf, level = ddf_method(ddf), require_level(level)
        return View(ddf, level, robust_choice(self.fitted.data, robust, cluster, ddf))
