"""Methods of `Fit` that hand it to other packages, which are imported when they are called."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method
from lmmjax.postestimation.hypotheses.robust import robust_choice
from lmmjax.postestimation.means.marginaleffects_bridge import marginal_model
from lmmjax.reports.maketables import TableColumn


class Exports:
    """A fit for marginaleffects and maketables."""

    fitted: Fitted

    def to_marginaleffects(
        self,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
        *,
        df: float | None = None,
    ) -> Any:
        """The fit as a model of the package marginaleffects, an instance of its `ModelAbstract`.

        `marginaleffects.predictions`, `comparisons`, `slopes`, their averages and plots, `datagrid` and
        `hypotheses` take it. Predictions are x'β̂ + offset, of the population, on the scale of the formula's
        response; the data are the rows of the fit, with predictors, response and grouping factors.

        Parameters
        ----------
        ddf, robust, cluster : the covariance of β̂, as in `cov_params`. `vcov="CR2"` or
            `vcov="kenward-roger"` in a call of marginaleffects takes another one.
        df : degrees of freedom of all its limits and p-values; None, infinite. marginaleffects has one number
            for a model; `emmeans`, `contrast` and `test` have those of every contrast.

        Raises
        ------
        ImportError : marginaleffects is missing (`pip install 'lmmjax[marginaleffects]'`).
        ValueError : a model that was built from matrices; rows of `newdata` that are not estimable.

        Source: Arel-Bundock, Greifer & Heiss (2024), doi:10.18637/jss.v111.i09.
        """
        return marginal_model(self.fitted, ddf, robust, cluster, df)

    def to_maketables(
        self, ddf: str = "satterthwaite", robust: str | None = None, cluster: Any = None
    ) -> TableColumn:
        """The fit as a column of `maketables.ETable`; arguments as of `coef_table`.

        It has coefficients with limits by their degrees of freedom, standard deviations and correlations of
        the random effects, numbers of observations and groups, log-likelihood and AIC. A fit has the same
        attributes itself; but maketables takes it for one of statsmodels, with limits of the normal
        distribution and without the random effects.
        """
        ddf = ddf_method(ddf)
        robust_choice(self.fitted.data, robust, cluster, ddf)
        return TableColumn(self.fitted, ddf, robust, cluster)

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        return self.to_maketables().__maketables_coef_table__

    @property
    def __maketables_depvar__(self) -> str:
        return self.to_maketables().__maketables_depvar__

    @property
    def __maketables_fixef_string__(self) -> None:
        return None

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return self.to_maketables().__maketables_vcov_info__

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return self.to_maketables().__maketables_stat_labels__

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return self.to_maketables().__maketables_default_stat_keys__

    def __maketables_stat__(self, key: str) -> Any:
        return self.to_maketables().__maketables_stat__(key)
