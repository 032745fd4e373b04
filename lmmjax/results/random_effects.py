"""Methods of `Fit` about variance components and conditional modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.postestimation.parameters.varcorr import varcorr
from lmmjax.postestimation.predictions import modes


class RandomEffects:
    """Variance components, the covariance of residuals, conditional modes."""

    fitted: Fitted

    def varcorr(self) -> pd.DataFrame:
        """Variance components: group, term1, term2, vcov, sdcor, se (of vcov); the last row is Residual.

        What the data do not identify is missing, and listed in `unidentified`. `attrs["note"]` says what
        parameters in time belong to, where occasions are not one unit apart.
        """
        return varcorr(self.fitted)

    def residual_cov(self, group: Any = None, cor: bool = False) -> pd.DataFrame:
        """Covariance matrix of the residuals of one group, rows and columns by visit, time or order.

        Parameters
        ----------
        group : a level of the structure's `group`; None for all visits of a structure of visits, else for
            the first of the groups with most rows. With `by` None gives the matrices of all its levels, one
            below the other.
        cor : correlations in place of covariances.

        Raises
        ------
        ValueError : an unknown group, or residuals that are independent.
        """
        from lmmjax.postestimation.parameters.residual_cov import residual_cov

        return residual_cov(self.fitted, group, cor)

    @property
    def random_effects(self) -> dict[str, pd.DataFrame]:
        """Conditional modes (BLUPs): for each grouping factor a frame of levels × terms."""
        return modes.random_effects(self.fitted)

    def ranef(self, cond_var: bool = True) -> pd.DataFrame:
        """Conditional modes in long form: group, level, term, value, and with cond_var also

        cond_sd (given y, parameters known) and pred_se (√MSPE: with the uncertainty of β̂).

        Parameters
        ----------
        cond_var : with the two standard deviations.

        Raises
        ------
        ValueError : cond_var is no bool.
        """
        return modes.ranef(self.fitted, cond_var)

    def cond_var(self, mspe: bool = False) -> dict[str, np.ndarray]:
        """Per random term, as written, (G, q, q) conditional or prediction error covariance matrices.

        Parameters
        ----------
        mspe : prediction errors, which have the uncertainty of β̂ too.

        Raises
        ------
        ValueError : a switch that is no bool.
        """
        return modes.cond_var(self.fitted, mspe)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Fixed plus random coefficients of every level: for each grouping factor levels × coefficients."""
        return modes.coef(self.fitted)
