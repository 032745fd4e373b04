"""`CrossValidation`: predictions of rows from fits without them, and their scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.reports.cells import grid_of
from lmmjax.reports.markup import Grid, Markup
from lmmjax.reports.table import as_table


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CrossValidation(Markup):
    """Rows predicted from the others; made by `Fit.cross_validate`, prints its scores.

    Attributes
    ----------
    predictions : a row an observation, columns `observed`, `fit`, `se` and `fold`. `se` is the standard
        deviation of observed − fit: of a new response, β̂ and the levels left out or known included, at the
        variance parameters of the fit without the fold. NaN where the other rows do not determine it.
    table : a row a fold: `n` rows predicted, the scores, and `status`, how its fit ended.
    scores : number of rows predicted, and the scores over all of them.
    by : what was left out; fixed_variances : whether the variance parameters were held.

    On the scale of the response of the formula. Scores: `rmse` and `mae` in its units; `r2`, which is
    1 − Σ(observed − fit)²/Σ(observed − mean of the other folds)², below 0 where a mean predicts better;
    `lpd`, the mean log predictive density of a row, and `crps`, its mean continuous ranked probability
    score in the units of the response, of the normal distribution N(fit, se²). Large r2 and lpd, small
    others are good.
    """

    predictions: pd.DataFrame
    table: pd.DataFrame
    scores: pd.Series
    by: str
    fixed_variances: bool

    def _around(self) -> tuple[list[str], list[str]]:
        """Lines before the scores and after them."""
        how = "variances of the whole fit" if self.fixed_variances else "refitted"
        lost = int(np.isnan(self.predictions["fit"].to_numpy()).sum())
        head = f"Cross-validation by {self.by}: {len(self.table)} folds, {how}"
        return [head], [f"{lost} rows are not predicted: see .table"] * bool(lost)

    def _scores(self) -> pd.DataFrame:
        return self.scores.to_frame().T.astype({"n": int})

    def _pieces(self) -> list[str | Grid]:
        head, notes = self._around()
        return [*head, grid_of(self._scores(), index=False), *notes]

    def __repr__(self) -> str:
        head, notes = self._around()
        text = self._scores().to_string(index=False, float_format="{:.5g}".format)
        return "\n".join([*head, text, *notes])


class Validation:
    """Cross-validation of a fit."""

    fitted: Fitted

    def cross_validate(
        self,
        by: Any = "observation",
        folds: Any = None,
        *,
        key: Any = None,
        fixed_variances: bool = False,
    ) -> CrossValidation:
        """Predict rows from the fit to the others, and score the predictions.

        Everything that the other rows tell counts: levels of grouping factors that they have, at their
        conditional modes, and residuals that correlate with theirs. Whole groups left out are new ones.

        Parameters
        ----------
        by : what is left out as a whole: "observation", single rows, or a factor of the model (new groups
            are predicted), or a label for each row.
        folds : None leaves out each of them in turn; a number K divides them at random into K folds of
            nearly equal size, which takes a `key`; or the fold of each row.
        key : `jax.random` key.
        fixed_variances : True holds the variance parameters at those of the fit, σ² too: exact in closed
            form, without a refit, β̂ and the modes being those without the fold. False refits the model
            without each fold, all folds as one batch.

        Raises
        ------
        ValueError : an unknown factor, folds that cut what is left out as a whole, or no key.

        Warns
        -----
        EstimabilityWarning : rows that the others do not predict (a level of a fixed factor of their own).

        Source: Dubrule (1983), doi:10.1007/BF01033232; scores Gneiting & Raftery (2007),
        doi:10.1198/016214506000001437.
        """
        from lmmjax.postestimation.diagnostics.cross_validation import cross_validated

        predictions, table, scores = cross_validated(self.fitted, by, folds, key, fixed_variances)
        name = by if isinstance(by, str) else str(getattr(by, "name", None) or "label")
        return as_table(CrossValidation(predictions, table, scores, name, fixed_variances))
