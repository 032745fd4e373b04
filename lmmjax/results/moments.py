"""`Moments`: moment estimates of a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from lmmjax.fitted import ModelView
from lmmjax.postestimation.parameters.varcorr import varcorr_table
from lmmjax.reports.table import prints_whole


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Moment estimates; made by `Model.moments`.

    Attributes
    ----------
    model : the `Model`.
    psi : (m + 1,) components as the moment equations give them, variances possibly negative; the last is σ².
    beta : (p,) generalised least squares at the components, negative ones taken as zero; cov_beta (p, p) its
        covariance, the components taken as known.
    n_iter : solutions of the moment equations.
    converged : of an iterated estimate, whether it settled.
    """

    model: ModelView
    psi: np.ndarray
    beta: np.ndarray
    cov_beta: np.ndarray
    n_iter: int
    converged: bool

    def varcorr(self) -> pd.DataFrame:
        """Variance components: group, term1, term2, vcov, sdcor (missing where a variance is negative)."""
        with np.errstate(invalid="ignore"):
            unknown = np.full(len(self.psi), np.nan)
            table = varcorr_table(self.model.data.components, self.psi, unknown)
        return table.drop(columns="se")

    @property
    def params(self) -> pd.Series:
        """Fixed effects by feasible generalised least squares."""
        return pd.Series(self.beta, index=self.model.data.x_names, name="estimate")

    @property
    def bse(self) -> pd.Series:
        """Their standard errors."""
        values = np.sqrt(np.diagonal(self.cov_beta))
        return pd.Series(values, index=self.model.data.x_names, name="se")

    def __repr__(self) -> str:
        return f"Moments({self.model.data.formula!r}, n_iter={self.n_iter})"
