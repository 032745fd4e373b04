"""Methods of `Fit` about intervals and functions of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    ModelView,
    require_choice,
    require_level,
)
from lmmjax.postestimation.parameters import functions, profiles
from lmmjax.postestimation.parameters.intervals import wald_limits

if TYPE_CHECKING:
    from lmmjax.results.resample import Bootstrap

METHODS = ("wald", "profile", "boot")


class Intervals:
    """Wald, profile and bootstrap intervals; the delta method."""

    model: ModelView
    fitted: Fitted

    def conf_int(
        self,
        method: str = "wald",
        level: float = 0.95,
        which: str = "fixed",
        *,
        ddf: str = "satterthwaite",
        criterion: str | None = None,
        key: Any = None,
        n: int = 1000,
        kind: str = "percentile",
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """Confidence intervals, columns lower and upper.

        Parameters
        ----------
        method : "wald": standard deviations on the log scale, correlations on Fisher's z scale; "profile":
            the values at which twice the log-likelihood, maximised over the other parameters, is within χ²₁'s
            quantile of its maximum, for every structure; "boot": from `bootstrap`.
        which : "fixed", or "all" for sds, correlations, sigma and then the fixed effects.
        ddf : of Wald intervals of fixed effects: t quantiles with the degrees of freedom, standard errors
            and estimates of `coef_table`, Satterthwaite's as in `summary`; "normal" as in lme4.
        criterion : of profiles: None or "ml" for the likelihood, whatever criterion the model was fitted by,
            as lme4 does; "reml" for the restricted likelihood, which knows only variance components: fixed
            effects are profiled by maximum likelihood all the same.
        key, n, kind : of the bootstrap: `jax.random` key (key 0 if None), replicates, and "percentile",
            "basic", "normal" or "bca" (see `Bootstrap.conf_int`).
        robust, cluster : of Wald intervals of fixed effects: their covariance, as in `cov_params`.
        level : of the intervals.

        `attrs["boundary"]` of profiles says by name which limits, "lower" or "upper", are ends of a
        parameter's range. Limits of parameters that are known or not identified are NaN, and so are, with a
        warning, those that could not be followed.

        Raises
        ------
        ValueError : profiles where the residual variance is a function of the fitted values, or known beside
            a free matrix of the residuals.
        """
        require_choice("method", method, METHODS)
        require_choice("which", which, ("fixed", "all"))
        require_level(level)
        if method == "wald":
            return wald_limits(self.fitted, level, which, ddf, robust, cluster)
        if robust is not None or cluster is not None:
            raise ValueError(f"robust= and cluster= are for Wald intervals, not method={method!r}")
        names = list(profiles.targets(self.fitted)) if which == "all" else self.fitted.data.x_names
        if method == "profile":
            return profiles.profile_limits(self.fitted, names, level, criterion)
        boot = self.bootstrap(jax.random.key(0) if key is None else key, n)
        from lmmjax.postestimation.diagnostics.influence import leave_out

        without = leave_out(self.fitted, list(boot.original.index)) if kind == "bca" else None
        return boot.conf_int(level, kind, without).loc[names]

    def profile(
        self,
        parameters: str | list[str] | None = None,
        *,
        level: float = 0.99,
        points: int = 21,
        criterion: str | None = None,
    ) -> pd.DataFrame:
        """Profiles for plotting: one row a point, from one end of the interval of `level` to the other.

        Columns parameter, value, zeta (signed root of the rise), deviance, criterion ("ML" or "REML"), then
        every parameter of the model at the constrained optimum.

        Parameters
        ----------
        parameters : names as in `conf_int`; all if None.
        points : per parameter, the estimate in the middle; on either side equally spaced in sds, log σ,
            asin of correlations, coefficients.
        criterion : as for `conf_int`.

        Raises
        ------
        ValueError : an unknown parameter or criterion, fewer than two or more than 1,000 points; models of
            which `conf_int` has no profiles.
        """
        return profiles.profile(self.fitted, parameters, level, points, criterion)

    def contour(
        self,
        first: str,
        second: str,
        *,
        level: float = 0.99,
        points: int = 25,
        criterion: str | None = None,
    ) -> pd.DataFrame:
        """Joint profile of two parameters: rise of the deviance on a grid, values of `first` × of `second`.

        The grid covers the joint confidence region of `level`, on whose border the rise is χ²₂'s quantile.

        Parameters
        ----------
        first, second : names as in `conf_int`. points : on each axis of the grid.
        criterion : as for `conf_int`.

        Raises
        ------
        ValueError : twice the same parameter, an unknown one; all of `profile`.
        """
        return profiles.contour(self.fitted, first, second, level, points, criterion)

    def bootstrap(self, key: Any, n: int = 1000, statistic: Callable | None = None) -> Bootstrap:
        """Parametric bootstrap: n simulated responses refitted as one batch, see `Bootstrap`.

        Parameters
        ----------
        key : `jax.random` key. n : responses that are drawn.
        statistic : of a `BatchFit` with T responses, (T,) or (T, k) values or a frame with T rows; by default
            all parameters.

        Raises
        ------
        ValueError : no key, a number that is none; a statistic that is no function, or returns another shape.
        """
        from lmmjax.results.resample import bootstrap

        return bootstrap(self.model, self.fitted, key, n, statistic)

    def delta(self, fun: Callable, level: float = 0.95) -> pd.DataFrame:
        """Any smooth function of the parameters: columns estimate, se, lower, upper, by the delta method.

        Parameters
        ----------
        fun : takes a dict of all parameters by name, as in `conf_int(which="all")`, and returns a scalar, a
            vector or a dict of scalars. JAX differentiates it: take log and the like from `jax.numpy`.
        level : of the limits.

        Fixed effects and variance components are taken as independent. Values that depend on a variance
        component on the boundary have no standard error.

        Raises
        ------
        ValueError : a parameter that is not there; what fun returns has two axes or more.
        """
        return functions.table(self.fitted, *functions.named(self.fitted.data, fun), level)
