"""Methods of `Fit` about fitted values, residuals and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, fitted_values, normalized_residuals, residuals, scaled_residuals
from lmmjax.postestimation.predictions.predict import Request, predict_new
from lmmjax.results.native_rows import native_rows


class Predictions:
    """Values, residuals and predictions on the response's scale.

    They are Series and frames of pandas, or of the library of the frame whose rows they have.
    """

    fitted: Fitted

    @native_rows
    def _on_rows(self, values: np.ndarray, name: str) -> pd.Series:
        return pd.Series(values, index=self.fitted.data.frame.index, name=name)

    @property
    def fittedvalues(self) -> pd.Series:
        """Xβ̂ + Zb̂ + offset."""
        return self._on_rows(fitted_values(self.fitted), "fitted")

    @property
    def resid(self) -> pd.Series:
        """Response less fitted values."""
        return self._on_rows(residuals(self.fitted), "resid")

    @property
    def scaled_resid(self) -> pd.Series:
        """Pearson residuals: (y − ŷ) over the standard deviation of the residual."""
        return self._on_rows(scaled_residuals(self.fitted), "scaled_resid")

    @property
    def normalized_resid(self) -> pd.Series:
        """Residuals y − ŷ decorrelated by the Cholesky factor of their covariance, of unit variance."""
        return self._on_rows(normalized_residuals(self.fitted), "normalized_resid")

    @native_rows
    def predict(
        self,
        newdata: Any = None,
        *,
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        ddf: str = "satterthwaite",
        re: Any = "all",
        new_levels: str = "error",
        offset: Any = None,
        weights: Any = None,
        kriging: bool = False,
    ) -> pd.Series | pd.DataFrame:
        """Predictions for new rows, or for those of the fit if newdata is None, with limits if asked for.

        A series of x'β̂ + z'b̂ without `se` and `interval`, else a frame with the columns `fit`, `se`, `lower`
        and `upper`, all on the scale of the response; of polars, if `newdata` is, or of its other library.

        Parameters
        ----------
        se : standard errors √Var(x'β̂ + z'b̂ − x'β − z'b), from the inverse of Henderson's mixed-model
            equations: with the part of β̂ and all covariances between the random terms and levels of a row.
            A new level adds z'Dz. They go with confidence limits.
        interval : "confidence", limits for x'β + z'b, or "prediction", for a new response at the row, whose
            residual variance (by the variance function and prior weights of the row) is added; so is z'Dz
            of what `re` leaves out, as of a level drawn anew, which is in `se`, too.
        level : of the limits.
        ddf : their degrees of freedom: "satterthwaite", by the derivatives of the variance in the covariance
            parameters; "kenward-roger", which adds to the variance what the estimation of these costs
            (Kackar & Harville; Prasad & Rao; a fit by ML is refitted by REML); "normal".
        re : "all", "none" (population level), or grouping factors ("g"), terms ("x | g") or columns of terms
            ("1 | g" of (x | g)) to include, one or a list.
        new_levels : "error", or "population" for b = 0 at unseen levels of a grouping factor.
        offset : of the new rows, in place of the model's `offset=`; `offset(...)` in the formula is kept.
        weights : prior weights of the new rows, in place of the column of the model's: a column or one value
            a row, for the variance of new residuals.
        kriging : add the residual that a correlated residual structure expects at the new times or places,
            given those of the same group. What is predicted is then the new response itself, and `se`
            its prediction error under both intervals.

        Rows that are not estimable (a combination of levels that does not occur, aliased covariates
        apart) are NaN, and an `EstimabilityWarning` names them; standard errors and limits that depend on
        what the data do not identify are NaN, too.

        Raises
        ------
        ValueError : newdata lack a column, or have new levels of a factor; an unknown option; weights or
            offsets that do not match the new rows.

        Sources: Henderson (1975), doi:10.2307/2529430; Kackar & Harville (1984),
        doi:10.1080/01621459.1984.10477102.
        """
        request = Request(re, new_levels, offset, weights, kriging, se, interval, level, ddf)
        return predict_new(self.fitted, newdata, request)
