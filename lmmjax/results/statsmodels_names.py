"""Names of statsmodels for what a fit has, for code and fingers that know them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, identified_effects, require_level
from lmmjax.postestimation.hypotheses.fit_contrasts import t_tests_frame
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method, hypothesis_test
from lmmjax.postestimation.predictions.predict import Request, check, new_rows, predict_new
from lmmjax.reports.table import prints_whole
from lmmjax.results.native_rows import like, rows_given


class StatsmodelsNames:
    """Aliases, and tests and predictions by statsmodels' names."""

    fitted: Fitted

    @property
    def fe_params(self) -> pd.Series:
        """Estimates of the fixed effects: `params`, which in statsmodels has the variances, too."""
        return pd.Series(identified_effects(self.fitted), index=self.fitted.data.x_names, name="estimate")

    @property
    def bse_fe(self) -> pd.Series:
        """Standard errors of the fixed effects: `bse`."""
        se = np.sqrt(np.diagonal(self.fitted.estimate.cov_beta))
        se = np.where(np.isnan(identified_effects(self.fitted)), np.nan, se)
        return pd.Series(se, index=self.fitted.data.x_names, name="se")

    @property
    def df_resid(self) -> int:
        """Observations less the rank of X; tests have degrees of freedom of their own (`ddf`)."""
        return self.fitted.nobs - self.fitted.data.design.p

    def t_test(
        self,
        l: Any,
        ddf: str = "satterthwaite",
        rhs: Any = None,
        *,
        level: float = 0.95,
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """t tests of the rows of Lβ = rhs, each by itself: estimate, se, df, lower, upper, t, p.

        Arguments are those of `test`, which tests all rows together.
        """
        return t_tests_frame(self.fitted, l, ddf, rhs, level, robust, cluster)

    def f_test(
        self,
        l: Any,
        ddf: str = "satterthwaite",
        rhs: Any = None,
        *,
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """F test of Lβ = rhs, all rows together: F, num_df, den_df, p. Arguments are those of `test`."""
        table = hypothesis_test(self.fitted, l, ddf, rhs, 0.95, robust, cluster)
        return table.filter(["F", "num_df", "den_df", "p"])

    def get_prediction(
        self,
        newdata: Any = None,
        *,
        re: Any = "none",
        ddf: str = "satterthwaite",
        new_levels: str = "error",
        offset: Any = None,
        weights: Any = None,
    ) -> Prediction:
        """Means of new rows, or of those of the fit, with limits for them and for new observations.

        Parameters
        ----------
        re : random terms that the mean has, as in `predict`. By default none, as in statsmodels: the mean of
            the population, x'β̂, and observations of groups that are drawn anew.
        ddf, new_levels, offset, weights : as in `predict`; weights are for the limits of observations.

        Raises
        ------
        ValueError : as in `predict`.
        """
        request = Request(re=re, ddf=ddf_method(ddf), new_levels=new_levels, offset=offset, weights=weights)
        asked = dataclasses.replace(request, interval="prediction")
        check(self.fitted.data, newdata, asked)
        new_rows(self.fitted.data, newdata, asked, warn=False)
        return Prediction(self.fitted, newdata, request)


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Predictions with their limits; made by `Fit.get_prediction`.

    Attributes
    ----------
    fitted, newdata, request : the fit, the rows, what was asked for.
    """

    fitted: Fitted
    newdata: Any
    request: Request

    def _table(self, interval: str, alpha: float) -> pd.DataFrame:
        level = 1.0 - require_level(alpha, "alpha")
        weights = self.request.weights if interval == "prediction" else None
        request = dataclasses.replace(self.request, interval=interval, level=level, weights=weights)
        return pd.DataFrame(predict_new(self.fitted, self.newdata, request))

    def _like(self, values: Any) -> Any:
        return like(rows_given(self.fitted, self.newdata), values)

    @property
    def predicted_mean(self) -> pd.Series:
        """The means."""
        request = dataclasses.replace(self.request, weights=None)
        return self._like(predict_new(self.fitted, self.newdata, request))

    @property
    def se_mean(self) -> pd.Series:
        """Their standard errors."""
        return self._like(self._table("confidence", 0.05)["se"])

    def conf_int(self, obs: bool = False, alpha: float = 0.05) -> pd.DataFrame:
        """Limits `lower` and `upper`, 1 − alpha, for the means or, with obs=True, new observations.

        Parameters
        ----------
        obs : for new observations; alpha : one less the level.

        Raises
        ------
        ValueError : alpha outside of (0, 1).
        """
        return self._like(self._table("prediction" if obs else "confidence", alpha)[["lower", "upper"]])

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Columns mean, mean_se, mean_ci_lower, mean_ci_upper, obs_ci_lower, obs_ci_upper.

        Parameters
        ----------
        alpha : one less the level of the limits.

        Raises
        ------
        ValueError : alpha outside of (0, 1).
        """
        mean, obs = self._table("confidence", alpha), self._table("prediction", alpha)
        names = {"fit": "mean", "se": "mean_se", "lower": "mean_ci_lower", "upper": "mean_ci_upper"}
        limits = {f"obs_ci_{name}": obs[name].to_numpy() for name in ("lower", "upper")}
        return self._like(mean.rename(columns=names).assign(**limits))

    def __repr__(self) -> str:
        return repr(self.summary_frame())
