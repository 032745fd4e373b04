"""Methods of `BatchFit` about predictions and influence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from lmmjax.fitted import FittedMany
from lmmjax.postestimation.predictions.batch_predict import predict_many
from lmmjax.postestimation.predictions.predict import Request

if TYPE_CHECKING:
    from lmmjax.postestimation.diagnostics.batch_influence import BatchInfluence


class BatchPredictions:
    """Predictions for new rows, and what single levels do to the estimates, of many responses."""

    fitted: FittedMany

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
    ) -> pd.DataFrame:
        """Predictions of every response for new rows, or for those of the model if newdata is None.

        Responses × rows of x'β̂ + z'b̂ without `se` and `interval`; else a frame with the columns `fit`, `se`,
        `lower` and `upper`, a row a response and new row: `fits.predict(new, se=True).loc[name]` is
        `fits[name].predict(new, se=True)`.

        Arguments are those of `Fit.predict`; `offset` and `weights` are for the new rows of all responses. Of
        batches with weights of their own, prediction intervals need `weights`. A response without a fit is
        NaN, and so are rows that its own rows do not determine; those that no response determines are named
        by an `EstimabilityWarning`.
        """
        request = Request(re, new_levels, offset, weights, kriging, se, interval, level, ddf)
        return predict_many(self.fitted, newdata, request)

    def influence(self, group: str | None = None, *, refit: bool = True) -> BatchInfluence:
        """What every level of a grouping factor, or every row, does to the estimates of every response.

        Arguments are those of `Fit.influence`. With `refit` the model is fitted to every response without
        each level, as `Model.fit_batch` does it; refit=False holds the variance parameters, and is quick
        where the levels are independent of each other.

        Returns
        -------
        BatchInfluence : frames `params`, `bse`, `sdcor` and `dfbetas` with a row a response and level,
            `cooks_distance`, `mdffits`, `covtrace`, `covratio` and `status` responses × levels.
        """
        from lmmjax.postestimation.diagnostics.batch_influence import influence_of_many

        return influence_of_many(self.fitted, group, refit)
