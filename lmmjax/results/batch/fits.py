"""`BatchFit`: one model fitted to many responses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.fitted import (
    FittedMany,
    ModelView,
    batch_bounds,
    by_reml_many,
    component_names,
    identified_effects_many,
    identified_psi,
    identified_sds,
    one_of_many,
    psi_errors,
    reported,
    some_of_many,
)
from lmmjax.formula import nearest
from lmmjax.postestimation.hypotheses.batch_tests import covariances
from lmmjax.postestimation.parameters import functions
from lmmjax.reports import batch_summary, batch_tables
from lmmjax.reports.other_names import OtherNames
from lmmjax.reports.summary import Summary
from lmmjax.reports.table import prints_whole
from lmmjax.results.batch.exports import BatchExports
from lmmjax.results.batch.hypotheses import BatchTests
from lmmjax.results.batch.images import Maps
from lmmjax.results.batch.means import Means
from lmmjax.results.batch.predictions import BatchPredictions
from lmmjax.results.saving import Saving
from lmmjax.results.scans import Scans
from lmmjax.results.shares import BatchShares

if TYPE_CHECKING:
    from lmmjax.results.batch.plots import BatchPlots


@prints_whole
class BatchFit(
    BatchTests, Means, BatchPredictions, BatchShares, Maps, BatchExports, Saving, Scans, OtherNames
):
    """Results of `Model.fit_batch`, indexed by response.

    Attributes
    ----------
    model : the `Model`.
    fitted : the fits as a record, which all functions of many fits take.
    names : labels of the T responses.
    estimate : record of arrays that lead with T.
    reml : whether the criterion was REML.
    """

    def __init__(self, model: ModelView, fitted: FittedMany, *, warn: bool = True):
        self.model, self.fitted = model, fitted
        self.names, self.estimate, self.reml = fitted.names, fitted.estimate, fitted.reml
        failed = int(np.sum(~fitted.converged))
        if failed and warn:
            warnings.warn(
                f"{failed} of {len(self.names)} responses could not be fitted; see `.reasons` of the result",
                stacklevel=stack_level(),
            )

    def _series(self, values: Any, name: str) -> pd.Series:
        return pd.Series(values, index=self.names, name=name)

    @property
    def params(self) -> pd.DataFrame:
        """Fixed effects, responses × coefficients, missing where the data leave them open."""
        return self._frame(identified_effects_many(self.fitted))

    @property
    def bse(self) -> pd.DataFrame:
        """Their standard errors."""
        return self._frame(np.where(np.isnan(identified_effects_many(self.fitted)), np.nan, self.fitted.bse))

    @property
    def tvalues(self) -> pd.DataFrame:
        """Estimate over standard error."""
        return self.params / self.bse

    def cov_params(self, robust: str | None = None, cluster: Any = None) -> np.ndarray:
        """Covariance matrices (T, p, p) of the fixed effects; see `Fit.cov_params`.

        Raises
        ------
        ValueError : as of `Fit.cov_params`.
        """
        return covariances(self.fitted, robust, cluster)

    @cached_property
    def by_reml(self) -> BatchFit:
        """The same responses fitted by REML: itself, if they are."""
        # those that cannot be fitted have been reported
        return self if self.reml else BatchFit(self.model, by_reml_many(self.fitted), warn=False)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances and covariances, responses × components named (group, term1, term2); last Residual."""
        columns = pd.MultiIndex.from_tuples(
            [(c.group, c.term1 or "", c.term2 or "") for c in self.fitted.data.components],
            names=["group", "term1", "term2"],
        )
        values = reported(identified_psi(self.estimate), self.fitted.data.components)[0]
        return pd.DataFrame(values, index=self.names, columns=columns)

    @property
    def varcorr_se(self) -> pd.DataFrame:
        """Standard errors of `varcorr`; missing on a boundary."""
        se = psi_errors(self.fitted.data.design.structure, self.estimate)
        se = se * reported(self.estimate.psi, self.fitted.data.components)[1]
        return pd.DataFrame(se, index=self.names, columns=self.varcorr.columns)

    @property
    def deviance(self) -> np.ndarray:
        """(T,) the minimised criterion."""
        return np.asarray(self.estimate.deviance)

    @property
    def llf(self) -> pd.Series:
        """(Restricted) log-likelihood of each response."""
        return self._series(-0.5 * self.deviance, "llf")

    @property
    def sigma(self) -> pd.Series:
        """Residual standard deviations."""
        return self._series(np.sqrt(identified_psi(self.estimate)[..., -1]), "sigma")

    @property
    def converged(self) -> pd.Series:
        """Whether each fit is certified."""
        return self._series(self.fitted.converged, "converged")

    @property
    def is_singular(self) -> pd.Series:
        """A variance is estimated as 0 or a correlation as ±1."""
        return self._series(np.asarray(self.estimate.singular), "is_singular")

    @property
    def bound(self) -> pd.Series:
        """Of models of one kernel the end of its range at which the ratio of variances lies, else "".

        "lower", no variance of the kernel; "upper", none of the residuals (its fit is that at zero, what is
        reported 1e-10 of the other); under maximum likelihood the ratios 1e-5 and 1e5.
        """
        return self._series(batch_bounds(self.fitted), "bound")

    @property
    def unidentified(self) -> np.ndarray:
        """(T,) whether the data leave a covariance parameter open: it is missing; see `Fit.unidentified`."""
        return self.estimate.unidentified.any(axis=-1)

    @property
    def status(self) -> pd.Series:
        """How each fit ended: the name of its `Status`."""
        return self._series(self.fitted.status, "status")

    @property
    def reasons(self) -> pd.Series:
        """Why a response has no estimates, or not all; empty for those of which nothing is to be said.

        A response without a fit has the message that the model on its rows alone would give, or the advice of
        its status; one whose rows do not determine all fixed effects names those that are missing.
        """
        return self._series(self.fitted.reasons, "reasons")

    @property
    def n_optima(self) -> pd.Series:
        """How many different optima the descents of each response ended at; the best is reported.

        1 where one descent was made; see `starts` of `Model.fit_batch`.
        """
        return self._series(self.fitted.n_optima, "n_optima")

    @property
    def n_starts(self) -> pd.Series:
        """How many descents each response had, from different starts; 0 where none could be made."""
        return self._series(self.fitted.n_starts, "n_starts")

    @property
    def convergence(self) -> pd.DataFrame:
        """How the fit of each response ended, a row a response.

        Columns status, converged, n_iter, n_starts, n_optima, several (whether its descents ended at more
        than one optimum, of which the best is reported), is_singular, unidentified and reason.
        """
        return batch_summary.convergence(self.fitted)

    def summary(self, ddf: str = "satterthwaite") -> Summary:
        """What the batch is of and how its fits ended, with quartiles over the responses; prints as text.

        Notes name responses with several optima. `ddf` as in `t_tests`.

        Raises
        ------
        ValueError : an unknown ddf.
        """
        return batch_summary.summarise(self.fitted, ddf)

    @property
    def sdcor(self) -> pd.DataFrame:
        """Standard deviations and correlations, responses × names as `sd_(Intercept)|Subject`, `sigma`.

        Parameters of residuals are what their names say: `var(2)` is a variance.
        """
        rows = self.fitted.data.components
        values = identified_sds(self.fitted.data.design.structure, rows, self.estimate)
        return pd.DataFrame(values, index=self.names, columns=component_names(rows))

    def delta(self, fun: Callable, level: float = 0.95) -> pd.DataFrame:
        """A function of the parameters of each response: responses × (name, column); see `Fit.delta`.

        Parameters
        ----------
        fun : of the parameters of one response, as there. level : of the limits.

        Raises
        ------
        ValueError : as of `Fit.delta`.
        """
        return functions.batch_table(self.fitted, *functions.named(self.fitted.data, fun), level)

    def random_effects(self, group: str | None = None) -> pd.DataFrame:
        """Conditional modes (BLUPs) of one grouping factor: responses × (level, term).

        `fits.random_effects().to_numpy().reshape(T, G, q)` is the array; nothing is refitted.

        Parameters
        ----------
        group : the grouping factor; may be left out if there is one.

        Raises
        ------
        ValueError : an unknown factor; none is named where there are several.
        """
        return batch_tables.random_effects(self.fitted, group)

    def conf_int(
        self,
        level: float = 0.95,
        which: str = "fixed",
        *,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """Wald intervals of the fixed effects: responses × (coefficient, lower | upper).

        With which="all" sds and correlations come first, on the scales of `Fit.conf_int`. `ddf`, `robust`
        and `cluster` as in `t_tests`: t quantiles with Satterthwaite's degrees of freedom; "normal" is
        quicker.

        Parameters
        ----------
        level : of the intervals.

        Raises
        ------
        ValueError : an unknown `which` or ddf, a level outside of (0, 1).
        """
        return batch_tables.conf_int(self.fitted, level, which, ddf, robust, cluster)

    def tidy(
        self, ddf: str = "satterthwaite", robust: str | None = None, cluster: Any = None
    ) -> pd.DataFrame:
        """Long frame: response, effect, group, term, estimate, se, df, t, p, q; sds and correlations.

        q are Benjamini-Hochberg values of a fixed effect over the responses that have a p-value.

        Parameters
        ----------
        ddf, robust, cluster : as in `t_tests`, with its errors.
        """
        return batch_tables.tidy(self.fitted, ddf, robust, cluster)

    @property
    def plot(self) -> BatchPlots:
        """Pictures, such as `fits.plot.volcano("x")`; see `BatchPlots`."""
        from lmmjax.results.batch.plots import BatchPlots

        return BatchPlots(self.fitted, self.top)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Any]:
        """The labels of the responses, as of a dict of fits."""
        return iter(self.names)

    def __contains__(self, response: Any) -> bool:
        return pd.api.types.is_hashable(response) and response in self.names

    def __getitem__(self, response: Any) -> Any:
        """The full `Fit` of one response, by its label; the `BatchFit` of several. Nothing is refitted.

        Several are a list of labels, a slice (of positions, or of labels with both ends, as in pandas), or
        booleans, such as `fits[fits.converged]`; a Series of them goes by its labels.
        """
        try:
            if not isinstance(response, slice) and pd.api.types.is_hashable(response):
                at: Any = self.names.get_loc(response)
                return self.model._wrap(one_of_many(self.fitted, int(at)))
            at = pd.Series(np.arange(len(self.names)), index=self.names)
            if isinstance(response, slice):
                at = at[response]
            else:
                at = at.loc[response if isinstance(response, pd.Series) else pd.Index(response)]
        except (KeyError, IndexError, TypeError, pd.errors.IndexingError) as error:
            lost = _lost(response, self.names)
            known = nearest(str(lost), self.names) if np.isscalar(lost) else error
            raise KeyError(f"no response {lost!r:.80} in this batch: {known}") from None
        return BatchFit(self.model, some_of_many(self.fitted, at.to_numpy()), warn=False)

    def __repr__(self) -> str:
        good = int(self.converged.sum())
        return f"BatchFit({self.fitted.data.formula!r}, {len(self)} responses, {good} converged)"


def _lost(response: Any, names: pd.Index) -> Any:
    """What of a label, or of a list of them, is no response."""
    if not isinstance(response, list | tuple | np.ndarray | pd.Index):
        return response
    labels = (one for one in response if not isinstance(one, bool | np.bool_))
    return next((one for one in labels if one not in names), response)
