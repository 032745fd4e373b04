"""`Fit`: a fitted model. Methods pick and label; the numbers come from functions of the record `Fitted`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    ModelView,
    fit_bound,
    identified_effects,
    identified_psi,
    refitted,
    require_switch,
    status,
    unidentified_names,
)
from lmmjax.reports import frames
from lmmjax.reports.other_names import OtherNames
from lmmjax.reports.summary import Summary, summarise
from lmmjax.reports.table import prints_whole
from lmmjax.results.building import Building
from lmmjax.results.cross_validation import Validation
from lmmjax.results.diagnostics import Diagnostics
from lmmjax.results.exports import Exports
from lmmjax.results.fixed_tests import FixedTests
from lmmjax.results.intervals import Intervals
from lmmjax.results.means import Means
from lmmjax.results.native_rows import native_rows
from lmmjax.results.predictions import Predictions
from lmmjax.results.random_effects import RandomEffects
from lmmjax.results.random_tests import RandomTests
from lmmjax.results.saving import Saving
from lmmjax.results.scans import Scans
from lmmjax.results.shares import Shares
from lmmjax.results.statsmodels_names import StatsmodelsNames

# what few fits are asked for is imported when it is
if TYPE_CHECKING:
    from lmmjax.postestimation.diagnostics.sensitivity import Sensitivity
    from lmmjax.results.plots import FitPlots
    from lmmjax.results.posterior import Posterior
    from lmmjax.results.resample import Permutation


@prints_whole
class Fit(
    FixedTests,
    Means,
    Intervals,
    RandomTests,
    RandomEffects,
    Shares,
    Predictions,
    Diagnostics,
    Building,
    Validation,
    Exports,
    Saving,
    Scans,
    StatsmodelsNames,
    OtherNames,
):
    """A linear mixed model fitted to one response.

    Attributes
    ----------
    model : the `Model`.
    fitted : the fit as a record, which all functions of a fit take.
    estimate : the record of arrays that `lmmjax.estimate` returned.
    y : (n,) the response; response : its name.
    reml : whether the criterion was REML.
    """

    def __init__(self, model: ModelView, fitted: Fitted):
        self.model, self.fitted = model, fitted
        self.y, self.estimate, self.reml = fitted.y, fitted.estimate, fitted.reml
        self.response = fitted.response

    def _series(self, values: Any, name: str) -> pd.Series:
        return pd.Series(np.asarray(values), index=self.fitted.data.x_names, name=name)

    @property
    def params(self) -> pd.Series:
        """Estimates of the fixed effects β, missing where the data leave them open: see `unidentified`."""
        return self._series(identified_effects(self.fitted), "estimate")

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the fixed effects."""
        se = np.sqrt(np.diagonal(self.estimate.cov_beta))
        return self._series(np.where(np.isnan(self.params), np.nan, se), "se")

    @property
    def tvalues(self) -> pd.Series:
        """Estimate over standard error."""
        return self._series(self.params / self.bse, "t")

    @property
    def deviance(self) -> float:
        """The minimised criterion: REML criterion, or −2 log-likelihood under ML."""
        return self.fitted.deviance

    @property
    def llf(self) -> float:
        """(Restricted) log-likelihood."""
        return self.fitted.llf

    @property
    def nobs(self) -> int:
        """Number of observations used."""
        return self.fitted.nobs

    @property
    def n_params(self) -> int:
        """Fixed effects, covariance parameters and, unless it is known, σ²."""
        return self.fitted.n_params

    @property
    def aic(self) -> float:
        """Akaike's criterion, on the criterion that was fitted, as lme4 does."""
        return self.fitted.aic

    @property
    def bic(self) -> float:
        """Bayesian information criterion with log(n), as lme4 does."""
        return self.fitted.bic

    @property
    def aicc(self) -> float:
        """AIC with the small-sample correction of Hurvich & Tsai (1989, doi:10.1093/biomet/76.2.297)."""
        return self.fitted.aicc

    @property
    def scale(self) -> float:
        """σ², the residual variance; missing if it is `unidentified`."""
        return float(identified_psi(self.estimate)[-1])

    @property
    def sigma(self) -> float:
        """σ, the residual standard deviation."""
        return float(np.sqrt(self.scale))

    @property
    def theta(self) -> np.ndarray:
        """Entries of the relative Cholesky factors, as lme4's `getME(., "theta")`."""
        return self.estimate.theta

    @property
    def status(self) -> str:
        """How the optimisation ended, what to do about it, and what the data do not identify."""
        return status(self.fitted)

    @property
    def converged(self) -> bool:
        """Gradient and Newton decrement are below tolerance at the reported point."""
        return self.fitted.converged

    @property
    def is_singular(self) -> bool:
        """A variance is estimated as 0 or a correlation as ±1."""
        return bool(self.estimate.singular)

    @property
    def bound(self) -> str:
        """At which end the ratio of variances of one kernel lies, or ""; see `BatchFit.bound`."""
        return fit_bound(self.fitted)

    @property
    def unidentified(self) -> list[str]:
        """Names, as in `conf_int`, of the covariance parameters that the data do not identify.

        Other values fit equally well, so estimate, standard error and interval are missing. The criterion,
        fixed effects, their tests and all other parameters are those of any model that says the same.
        """
        return unidentified_names(self.fitted)

    @property
    def grad_norm(self) -> float:
        """Largest derivative of the criterion, for columns of X and Z of unit scale."""
        return float(self.estimate.grad_norm)

    @property
    def n_iter(self) -> int:
        """Evaluations of the criterion with its derivatives."""
        return int(self.estimate.n_iter)

    def refit(self, y: Any = None, *, reml: bool | None = None) -> Fit:
        """The same model fitted to another response (n,); same criterion unless `reml` is given.

        Parameters
        ----------
        y : matched by the labels of rows, if it has some; that of this fit if None.

        Raises
        ------
        ValueError : y is of another shape, not numeric or not finite.
        """
        return self.model._wrap(refitted(self.fitted, y, reml))

    @native_rows
    def simulate(self, key: Any, n: int = 1) -> pd.DataFrame:
        """n responses drawn from the fitted model: a frame of rows × draws, as `fit_batch` takes it.

        Parameters
        ----------
        key : `jax.random` key.
        n : draws.

        Raises
        ------
        ValueError : no key, a number of draws that is none.
        """
        from lmmjax.postestimation.simulation.resample import simulate

        draws = simulate(self.fitted.data, key, self.fitted.population, self.estimate.psi, n)
        return pd.DataFrame(draws, index=self.fitted.data.frame.index)

    def sensitivity(self, fun: Callable | None = None) -> Sensitivity:
        """Derivatives of the estimates in every response, weight and group; infinitesimal-jackknife errors.

        Parameters
        ----------
        fun : of which parameters, as in `delta`; by default all of them.

        Raises
        ------
        ValueError : as of `delta`.
        """
        from lmmjax.postestimation.diagnostics.sensitivity import sensitivity

        return sensitivity(self.fitted, fun)

    def permutation(self, key: Any, term: str, n: int = 1000) -> Permutation:
        """Permutation test of a fixed term (Freedman-Lane on whitened residuals).

        Parameters
        ----------
        key : `jax.random` key. term : a fixed term, by its name in the formula.
        n : permutations.

        Raises
        ------
        ValueError : an unknown term, no key, a number of permutations that is none.
        """
        from lmmjax.results.resample import permutation

        return permutation(self.model, self.fitted, key, term, n)

    def posterior(self, key: Any, priors: dict[str, Any] | None = None, **options: Any) -> Posterior:
        """Draws from the posterior of all parameters and random effects; needs `pip install 'lmmjax[bayes]'`.

        Parameters
        ----------
        key : `jax.random` key.
        priors : by name, see `lmmjax.postestimation.posterior.priors` and, for patterned terms and
            residual structures, `structure_priors`; by default half-t(3) on standard
            deviations with the scale of the response,
            LKJ(1) on correlation matrices, uniform on other correlations, and flat fixed effects.
        draws, warmup, chains : 1000 draws are kept of each of 4 chains, after 1000 of warm-up.
        method : "nuts" on the marginal posterior of the variance parameters, β and b drawn given them, or
            "gibbs" through the conjugate conditionals.
        random_effects : whether to draw b.
        target_accept : acceptance probability that NUTS adapts its step to, 0.9.

        Raises
        ------
        ValueError : names the prior or the option that is wrong; a residual variance that is a function of
            the fitted values. ImportError : a package is missing.
        """
        from lmmjax.results.posterior import posterior

        return posterior(self, key, priors, **options)

    def summary(
        self,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
        *,
        correlation: bool = False,
    ) -> Summary:
        """What lmerTest prints; tables in a notebook, and by `to_latex()`, `to_html()` and `to_markdown()`.

        Parameters
        ----------
        ddf, robust, cluster : as of `coef_table`.
        correlation : whether the correlations of the fixed effects are shown, those of `cov_params`.
        """
        return summarise(self.fitted, ddf, robust, cluster, require_switch("correlation", correlation))

    def tidy(self) -> pd.DataFrame:
        """One row a coefficient or variance component (sds and correlations), with estimate and se."""
        return frames.tidy(self.fitted)

    def glance(self) -> pd.DataFrame:
        """One row about the fit."""
        return frames.glance(self.fitted)

    @property
    def plot(self) -> FitPlots:
        """Pictures, such as `fit.plot.residuals()`; see `FitPlots`."""
        from lmmjax.results.plots import FitPlots

        return FitPlots(self.fitted)

    @native_rows
    def augment(self) -> pd.DataFrame:
        """One row an observation: response, fitted, population-level fitted, residuals."""
        return frames.augment(self.fitted)

    def __repr__(self) -> str:
        kind, end = "REML" if self.reml else "ML", self.status.split(":")[0]
        return f"Fit({self.fitted.data.formula!r}, {kind}, deviance={self.deviance:.6g}, {end})"
