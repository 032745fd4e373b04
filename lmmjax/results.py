"""`Fit`: a fitted model. Methods pick and label; the numbers come from functions on arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax import reports, varcomp
from lmmjax.core import Estimate, Modes
from lmmjax.core.residuals import variances, whitened
from lmmjax.fit_intervals import Intervals
from lmmjax.fit_random_tests import RandomTests
from lmmjax.fit_tests import FixedTests
from lmmjax.optimize import Status
from lmmjax.predictions import predict_new
from lmmjax.ranef import fitted_modes
from lmmjax.summary import Summary, summarise

if TYPE_CHECKING:
    from lmmjax.influence import Influence
    from lmmjax.model import Model
    from lmmjax.posterior import Posterior
    from lmmjax.resample import Bootstrap, Permutation
    from lmmjax.sensitivity import Sensitivity


class Fit(FixedTests, Intervals, RandomTests):
    """A linear mixed model fitted to one response.

    Attributes
    ----------
    model : the `Model`.
    estimate : the record of arrays that `lmmjax.estimate` returned.
    y : (n,) the response.
    reml : whether the criterion was REML.
    """

    def __init__(self, model: Model, y: np.ndarray, estimate: Estimate, reml: bool, name: str | None = None):
        self.model, self.y, self.estimate, self.reml = model, y, estimate, reml
        self.response = model.frame.response if name is None else name

    # --- fixed effects -------------------------------------------------------------------------------

    def _series(self, values: Any, name: str) -> pd.Series:
        return pd.Series(np.asarray(values), index=list(self.model.frame.x_names), name=name)

    @property
    def params(self) -> pd.Series:
        """Estimates of the fixed effects β."""
        return self._series(self.estimate.beta, "estimate")

    @property
    def bse(self) -> pd.Series:
        """Standard errors of the fixed effects."""
        return self._series(np.sqrt(np.diagonal(self.estimate.cov_beta)), "se")

    @property
    def tvalues(self) -> pd.Series:
        """Estimate over standard error."""
        return self._series(self.params / self.bse, "t")

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix Φ = (XᵀV⁻¹X)⁻¹ of the fixed effects."""
        names = list(self.model.frame.x_names)
        return pd.DataFrame(self.estimate.cov_beta, index=names, columns=names)

    # --- criterion -----------------------------------------------------------------------------------

    @property
    def deviance(self) -> float:
        """The minimised criterion: REML criterion, or −2 log-likelihood under ML."""
        return float(self.estimate.deviance)

    @property
    def llf(self) -> float:
        """(Restricted) log-likelihood."""
        return -0.5 * self.deviance

    @property
    def nobs(self) -> int:
        """Number of observations used."""
        return self.model.design.n

    @property
    def n_params(self) -> int:
        """Fixed effects, covariance parameters and, unless it is known, σ²."""
        design = self.model.design
        return design.p + design.structure.n_params + (design.known is None)

    @property
    def aic(self) -> float:
        """Akaike's criterion, on the criterion that was fitted, as lme4 does."""
        return self.deviance + 2.0 * self.n_params

    @property
    def bic(self) -> float:
        """Bayesian information criterion with log(n), as lme4 does."""
        return self.deviance + np.log(self.nobs) * self.n_params

    @property
    def aicc(self) -> float:
        """AIC with the small-sample correction of Hurvich & Tsai (1989, doi:10.1093/biomet/76.2.297)."""
        k = self.n_params
        left = self.nobs - k - 1
        return self.aic + 2.0 * k * (k + 1) / left if left > 0 else np.inf

    @property
    def scale(self) -> float:
        """σ², the residual variance."""
        return float(self.estimate.sigma2)

    @property
    def sigma(self) -> float:
        """σ, the residual standard deviation."""
        return float(np.sqrt(self.estimate.sigma2))

    @property
    def theta(self) -> np.ndarray:
        """Entries of the relative Cholesky factors, as lme4's `getME(., "theta")`."""
        return self.estimate.theta

    @property
    def status(self) -> str:
        """How the optimisation ended, and what to do about it."""
        return Status(int(self.estimate.status)).advice

    @property
    def converged(self) -> bool:
        """Gradient and Newton decrement are below tolerance at the reported point."""
        return int(self.estimate.status) == Status.CONVERGED

    @property
    def is_singular(self) -> bool:
        """A variance is estimated as 0 or a correlation as ±1."""
        return bool(self.estimate.singular)

    @property
    def grad_norm(self) -> float:
        """Largest derivative of the criterion, for columns of X and Z of unit scale."""
        return float(self.estimate.grad_norm)

    @property
    def n_iter(self) -> int:
        """Evaluations of the criterion with its derivatives."""
        return int(self.estimate.n_iter)

    # --- random effects ------------------------------------------------------------------------------

    def varcorr(self) -> pd.DataFrame:
        """Variance components: group, term1, term2, vcov, sdcor, se (of vcov); the last row is Residual."""
        return varcomp.varcorr_table(self.model.components, self.estimate.psi, self.estimate.cov_psi)

    @cached_property
    def _modes(self) -> tuple[Modes, ...]:
        return fitted_modes(self.model, self.y, self.estimate, self.reml)

    @property
    def random_effects(self) -> dict[str, pd.DataFrame]:
        """Conditional modes (BLUPs): for each grouping factor a frame of levels × terms."""
        return self._by_group([modes.b for modes in self._modes])

    def ranef(self, cond_var: bool = True) -> pd.DataFrame:
        """Conditional modes in long form: group, level, term, value, and with cond_var also

        cond_sd (given y, parameters known) and pred_se (√MSPE: with the uncertainty of β̂).
        """
        pieces = []
        for term, modes in zip(self.model.frame.random, self._modes, strict=True):
            for j, name in enumerate(term.names):
                piece = {
                    "group": term.group,
                    "level": list(term.levels),
                    "term": name,
                    "value": modes.b[:, j],
                }
                if cond_var:
                    piece["cond_sd"] = np.sqrt(np.maximum(modes.cond_var[:, j, j], 0.0))
                    piece["pred_se"] = np.sqrt(np.maximum(modes.mspe[:, j, j], 0.0))
                pieces.append(pd.DataFrame(piece))
        return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame()

    def cond_var(self, mspe: bool = False) -> dict[str, np.ndarray]:
        """Per random term, as written, (G, q, q) conditional or prediction error covariance matrices."""
        terms = zip(self.model.frame.random, self._modes, strict=True)
        return {term.text: modes.mspe if mspe else modes.cond_var for term, modes in terms}

    def coef(self) -> dict[str, pd.DataFrame]:
        """Fixed plus random coefficients of every level: for each grouping factor levels × coefficients."""
        out = {}
        for group, effects in self.random_effects.items():
            effects = effects.rename(columns={"(Intercept)": "Intercept"})
            names = [*self.params.index, *(c for c in effects.columns if c not in self.params.index)]
            fixed = self.params.reindex(names).fillna(0.0)
            out[group] = effects.reindex(columns=names).fillna(0.0) + fixed
        return out

    def _by_group(self, values: list[np.ndarray]) -> dict[str, pd.DataFrame]:
        frames: dict[str, pd.DataFrame] = {}
        for term, b in zip(self.model.frame.random, values, strict=True):
            frame = pd.DataFrame(b, index=pd.Index(term.levels, name=term.group), columns=list(term.names))
            known = frames.get(term.group)
            frames[term.group] = frame if known is None else pd.concat([known, frame], axis=1)
        return frames

    # --- fitted values -------------------------------------------------------------------------------

    @cached_property
    def _population(self) -> np.ndarray:
        frame = self.model.frame
        return frame.x @ self.estimate.beta + (0.0 if frame.offset is None else frame.offset)

    @property
    def fittedvalues(self) -> pd.Series:
        """Xβ̂ + Zb̂ + offset."""
        values = self._population.copy()
        for term, modes in zip(self.model.frame.random, self._modes, strict=True):
            values += np.sum(term.z * modes.b[term.codes], axis=1)
        return pd.Series(values, index=self.model.frame.index, name="fitted")

    @property
    def resid(self) -> pd.Series:
        """Response less fitted values."""
        values = self.y - self.fittedvalues.to_numpy()
        return pd.Series(values, index=self.model.frame.index, name="resid")

    @property
    def scaled_resid(self) -> pd.Series:
        """Pearson residuals: (y − ŷ) over the standard deviation of the residual."""
        return (self.resid / np.sqrt(variances(self.model.design, self.estimate.psi))).rename("scaled_resid")

    @property
    def normalized_resid(self) -> pd.Series:
        """Residuals y − ŷ decorrelated by the Cholesky factor of their covariance, of unit variance."""
        values = whitened(self.model.design, self.estimate.psi, self.resid.to_numpy()[:, None])[:, 0]
        return pd.Series(values, index=self.model.frame.index, name="normalized_resid")

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
            given the residuals of the same group.
        """
        return predict_new(self, newdata, re, new_levels, offset, kriging)

    # --- refitting -----------------------------------------------------------------------------------

    def refit(self, y: Any = None, *, reml: bool | None = None) -> Fit:
        """The same model fitted to another response (n,); same criterion unless `reml` is given."""
        reml = self.reml if reml is None else reml
        return self.model.fit_response(self.y if y is None else y, reml)

    def simulate(self, key: Any, n: int = 1) -> pd.DataFrame:
        """n responses drawn from the fitted model: a frame of rows × draws, as `fit_batch` takes it.

        Parameters
        ----------
        key : `jax.random` key.
        """
        draws = self.model.simulate(key, self._population, self.estimate.psi, n)
        return pd.DataFrame(draws, index=self.model.frame.index)

    def bootstrap(self, key: Any, n: int = 1000, statistic: Callable | None = None) -> Bootstrap:
        """Parametric bootstrap: n simulated responses refitted as one batch; see `lmmjax.resample`."""
        from lmmjax.resample import bootstrap

        return bootstrap(self, key, n, statistic)

    def influence(self, group: str | None = None) -> Influence:
        """Refits without each level of a grouping factor: estimates, Cook's distance, DFBETAS."""
        from lmmjax.influence import influence

        return influence(self, group)

    def sensitivity(self, fun: Callable | None = None) -> Sensitivity:
        """Derivatives of the estimates in every response, weight and group; infinitesimal-jackknife errors.

        Parameters
        ----------
        fun : of which parameters, as in `delta`; by default all of them.
        """
        from lmmjax.sensitivity import sensitivity

        return sensitivity(self, fun)

    def permutation(self, key: Any, term: str, n: int = 1000) -> Permutation:
        """Permutation test of a fixed term (Freedman-Lane on whitened residuals)."""
        from lmmjax.resample import permutation

        return permutation(self, key, term, n)

    def posterior(self, key: Any, priors: dict[str, Any] | None = None, **options: Any) -> Posterior:
        """Draws from the posterior of all parameters and random effects; needs `pip install 'lmmjax[bayes]'`.

        Parameters
        ----------
        key : `jax.random` key.
        priors : by name, see `lmmjax.prior_names`; by default half-t(3) on standard deviations with the scale
            of the response, LKJ(1) on correlations, and flat fixed effects.
        draws, warmup, chains : 1000 draws are kept of each of 4 chains, after 1000 of warm-up.
        method : "nuts" on the marginal posterior of the variance parameters, β and b drawn given them, or
            "gibbs" through the conjugate conditionals.
        random_effects : whether to draw b.
        target_accept : acceptance probability that NUTS adapts its step to, 0.9.

        Raises
        ------
        ValueError : names the prior or the option that is wrong. ImportError : a package is missing.
        """
        from lmmjax.posterior import posterior

        return posterior(self, key, priors, **options)

    # --- reports -------------------------------------------------------------------------------------

    def summary(self, ddf: str = "satterthwaite") -> Summary:
        """What lmerTest prints; shown as a table in a notebook. `ddf` as in `coef_table`."""
        return summarise(self, ddf)

    def tidy(self) -> pd.DataFrame:
        """One row a coefficient or variance component (sds and correlations), with estimate and se."""
        return reports.tidy(self)

    def glance(self) -> pd.DataFrame:
        """One row about the fit."""
        return reports.glance(self)

    def augment(self) -> pd.DataFrame:
        """One row an observation: response, fitted, population-level fitted, residuals."""
        return reports.augment(self)

    def __repr__(self) -> str:
        kind = "REML" if self.reml else "ML"
        return (
            f"Fit({self.model.formula!r}, {kind}, deviance={self.deviance:.6g}, {self.status.split(':')[0]})"
        )
