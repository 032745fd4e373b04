"""Methods of `Fit` about fitted values, residuals and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, fitted_values, normalized_residuals, residuals, scaled_residuals
from lmmjax.postestimation.predict import predict_new


class Predictions:
    """Values, residuals and predictions on the response's scale."""

    fitted: Fitted

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

    def predict(
        self,
        newdata: Any = None,
        *,
        re: Any = "all",
        new_levels: str = "error",
        offset: Any = None,
        kriging: bool = False,
    ) -> pd.Series:
        """Predictions for new rows, or for those of the fit if newdata is None.

        Parameters
        ----------
        re : "all", "none" (population level), or a list of grouping factors or terms to include.
        new_levels : "error", or "population" for b = 0 at unseen levels of a grouping factor.
        offset : of the new rows, in place of the model's `offset=`; `offset(...)` in the formula is kept.
        kriging : add the residual that a correlated residual structure expects at the new times or places,
            given the residuals of the same group. Prior weights are a column that the new rows have, too.

        Rows that are not estimable (a combination of levels that does not occur, aliased covariates
        apart) are NaN, and an `EstimabilityWarning` names them.
        """
        return predict_new(self.fitted, newdata, re, new_levels, offset, kriging)
