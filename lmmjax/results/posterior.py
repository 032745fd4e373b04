"""`Posterior`: draws from the posterior of a fit, with methods that name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmjax.bayes.coordinates import PriorSet
from lmmjax.fitted import Fitted, require_switch
from lmmjax.postestimation.posterior.draws import Draws, posterior_draws
from lmmjax.postestimation.posterior.predict import log_likelihood, predictive
from lmmjax.postestimation.posterior.prior_sensitivity import Reweighted, reweighted
from lmmjax.postestimation.posterior.tables import draws_frame, draws_summary, inference_data
from lmmjax.reports.table import prints_whole


class HasFitted(Protocol):
    """What a posterior shows as its fit: for users, who get back what they fitted."""

    @property
    def fitted(self) -> Fitted:
        """The fit as a record."""
        ...


@prints_whole
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """Draws from the posterior of a model.

    Attributes
    ----------
    fit : the fit whose model and response these are.
    draws : the record of the draws, which has all that follows.
    method : "nuts" or "gibbs".
    priors : the prior of every parameter, in words by name.
    beta : (chains, draws, p).
    psi : (chains, draws, m + 1) variances and covariances in the order of `varcorr()`, σ² last.
    b : per random term (chains, draws, G, q), or None if they were not asked for.
    stats : by name (chains, draws): what the sampler says of every draw.
    prior_set : the priors as records.
    """

    fit: HasFitted
    draws: Draws

    @property
    def method(self) -> str:
        return self.draws.method

    @property
    def priors(self) -> dict[str, str]:
        return self.draws.priors

    @property
    def beta(self) -> np.ndarray:
        return self.draws.beta

    @property
    def psi(self) -> np.ndarray:
        return self.draws.psi

    @property
    def b(self) -> tuple[np.ndarray, ...] | None:
        return self.draws.b

    @property
    def stats(self) -> dict[str, np.ndarray]:
        return self.draws.stats

    @property
    def prior_set(self) -> PriorSet:
        return self.draws.prior_set

    @property
    def names(self) -> list[str]:
        """Fixed effects, standard deviations and correlations, sigma: as in `Fit.tidy`."""
        return self.draws.names

    @property
    def values(self) -> np.ndarray:
        """Draws (chains, draws, k) of the parameters in `names`."""
        return self.draws.values

    def frame(self) -> pd.DataFrame:
        """Draws × parameters, rows labelled by chain and draw."""
        return draws_frame(self.draws)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Parameters × mean, sd, median, lower, upper, mcse, r_hat, ess_bulk, ess_tail.

        lower and upper are quantiles with `level` between them, mcse is the Monte Carlo standard error of the
        mean. r_hat is the rank-normalised split R̂ and should be below 1.01; both effective sample sizes
        should be above 100 a chain.

        Parameters
        ----------
        level : between lower and upper.

        Raises
        ------
        ValueError : a level outside of (0, 1).

        Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), doi:10.1214/20-BA1221.
        """
        return draws_summary(self.draws, level)

    @cached_property
    def idata(self) -> Any:
        """Groups posterior, sample_stats and observed_data for ArviZ; see `to_arviz`."""
        return self.to_arviz()

    def to_arviz(self, *, posterior_predictive: Any = None, log_likelihood: bool = False) -> Any:
        """`arviz.InferenceData`, or `xarray.DataTree` with ArviZ 1.

        `posterior` holds beta (by coefficient), every standard deviation and correlation and sigma under its
        name, and the random effects of every term under its text (levels × columns).

        Parameters
        ----------
        posterior_predictive : `jax.random` key: adds responses drawn for the rows of the fit.
        log_likelihood : adds log p(y_i | β, b, σ) of every row, for `arviz.loo`.
        """
        return inference_data(self.draws, posterior_predictive, log_likelihood)

    def posterior_predictive(self, key: Any, newdata: Any = None, **options: Any) -> np.ndarray:
        """Responses (chains, draws, n) drawn from the model at every draw of its parameters.

        Residuals that correlate are drawn together: those of the rows of the fit, or of new rows by group.

        Parameters
        ----------
        key : `jax.random` key.
        newdata : rows to draw for; those of the fit if None. Levels of a grouping factor that the fit has not
            seen get random effects drawn from N(0, Σ), the same in all rows of a level.
        groups : "same", the levels of the fit keep their random effects; "new", all levels are drawn.
        kind : "response", or "mean" for its expectation given the random effects.
        weights : prior weights of new rows, in place of the model's, which are evaluated on them: an array
            (n,), a column's name or an expression. They have to be given if the model's were an array.
        offset : of new rows, as in `Fit.predict`.
        """
        return predictive(self.draws, key, newdata, **options)

    def log_likelihood(self) -> np.ndarray:
        """log p(y_i | β, b, σ), (chains, draws, n); of correlated residuals given the others of the group.

        Source: Bürkner, Gabry & Vehtari (2021), doi:10.1007/s00180-020-01045-4.
        """
        return log_likelihood(self.draws)

    def plot(
        self,
        parameters: str | Sequence[str] | None = None,
        ax: Any = None,
        *,
        prior: bool = True,
        level: float = 0.95,
    ) -> Any:
        """Histograms of the draws, a panel a parameter, with interval and median, and the prior as a line.

        Parameters
        ----------
        parameters : as in `names`; the first 24 if None.
        ax : matplotlib's Axes, as many as there are parameters; None makes a figure.
        prior : whether to draw prior densities. Flat and improper ones have none, and those of correlations
            without a closed form are left out (`lmmjax.postestimation.posterior.prior_density.marginals`).
        level : of the interval between quantiles.

        Returns
        -------
        Axes, an array (k,) if there are several parameters. ImportError without matplotlib.
        """
        from lmmjax.plot import plot_posterior
        from lmmjax.plot.posterior import chosen, prior_curves

        names = chosen(self.names, parameters)
        curves = prior_curves(self.draws, names) if require_switch("prior", prior) else None
        return plot_posterior(self.frame(), ax, prior=curves, parameters=names, level=level)

    def reweight(self, priors: dict[str, Any] | None, *, level: float = 0.95) -> Reweighted:
        """The posterior under other priors, by importance weights on these draws.

        Parameters
        ----------
        priors : as in `Fit.posterior`; what it leaves out takes the default, not the prior of these draws.
        level : between the quantiles `lower` and `upper`.

        Raises
        ------
        ValueError : a prior of a parameter that is not there; priors that exclude every draw.
        """
        return reweighted(self.draws, priors, level)

    def __repr__(self) -> str:
        chains, draws = self.psi.shape[:2]
        formula = self.draws.fitted.data.formula
        return f"Posterior({formula!r}, {self.method}, {chains} chains × {draws} draws)"


def posterior(fit: HasFitted, key: Any, priors: dict[str, Any] | None = None, **options: Any) -> Posterior:
    """See `Fit.posterior`."""
    return Posterior(fit, posterior_draws(fit.fitted, key, priors, **options))
