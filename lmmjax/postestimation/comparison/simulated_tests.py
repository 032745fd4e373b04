"""(Restricted) likelihood ratio tests of a random term by simulation: exact, or a parametric bootstrap.

The distribution of Crainiceanu & Ruppert is one of a variance beside independent residuals: of a term whose
covariance matrix is this variance times a known one. Where residuals have parameters of their own, or the
term several, these are estimated under the null hypothesis or beyond it, and no distribution is free of them:
then responses are simulated from the fit without the term, and both models fitted to them, as a batch each.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.memory import require_memory
from lmmjax.fitted import (
    Fitted,
    fit_draws,
    fit_one,
    require_choice,
    require_count,
    require_estimates,
    require_key,
)
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.inference.rlrt import dense_spectrum, simulate_null, spectrum
from lmmjax.postestimation.comparison.random_tests import reduced, smaller, which_term
from lmmjax.postestimation.simulation.resample import simulate

METHODS = ("spectrum", "bootstrap")
DRAWS = {"spectrum": 100_000, "bootstrap": 1_000}

LARGEST = 4_000
"""Rows, or coefficients if these are fewer, of the matrix whose eigenvalues are taken."""

FAILED = 0.05
"""Share of draws without a fit from which on there is a warning."""


@dataclasses.dataclass(frozen=True, eq=False)
class RandomTest:
    """A likelihood ratio test of a random term by simulation.

    Attributes
    ----------
    kind : "RLRT" or "LRT".
    term : the random term tested.
    statistic : observed, at least 0.
    p : share of draws above it, (1 + their number)/(1 + n) of a bootstrap; p_se : its simulation error.
    n : draws that count.
    sample : (n,) draws of the null distribution.
    exact : whether that distribution is exact, as it is where no other random terms are in the model.
    method : "spectrum" or "bootstrap".
    """

    kind: str
    term: str
    statistic: float
    p: float
    p_se: float
    n: int
    sample: np.ndarray
    exact: bool
    method: str = "spectrum"

    def __repr__(self) -> str:
        how = "exact" if self.exact else "other random terms left out of the null distribution"
        how = f"parametric bootstrap of {self.n:,} responses" if self.method == "bootstrap" else how
        return (
            f"{self.kind} of ({self.term}): statistic={self.statistic:.6g}, p={self.p:.4g} "
            f"(simulation error {self.p_se:.1g}; {how})"
        )


def simulated_test(
    fitted: Fitted, term: str | None, n: int | None, key: Any, method: str | None = None
) -> RandomTest:
    """See `Fit.rlrt`; on the criterion of the fit."""
    require_estimates(fitted)
    if method is not None:
        require_choice("method", method, METHODS)
    key = jax.random.key(0) if key is None else key
    require_key(key)
    random = fitted.data.frame.random
    at = which_term(random, term)
    why = no_spectrum(fitted, at)
    if method == "spectrum" and why:
        raise ValueError(f"{why}: use method='bootstrap', or ranova()")
    method = method or ("bootstrap" if why else "spectrum")
    n = DRAWS[method] if n is None else require_count("n", n)
    if method == "bootstrap":
        return _bootstrapped(fitted, at, n, key)
    require_memory(f"{n:,} draws", n, 4)
    _, without = reduced(fitted, (*random[:at], *random[at + 1 :]))
    design, own = fitted.data.design, fitted.data.design.terms[at]
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    x, z = design.x * root[:, None], own.z * root[:, None]
    if own.kernel is not None:
        columns = own.expand(z).toarray()
        eigenvalues = dense_spectrum(x, columns, np.zeros(design.n, int), 1)
    elif own.q == 1:
        eigenvalues = spectrum(x, z[:, 0], own.codes, own.n_groups)
    else:
        eigenvalues = dense_spectrum(x, z, own.codes, own.n_groups)
    known = design.known is not None
    sample = simulate_null(*eigenvalues, design.n, design.p, key, n, fitted.reml, known)
    statistic = max(without - fitted.deviance, 0.0)
    p = float(np.mean(sample > statistic)) if statistic > 0 else 1.0
    return _result(fitted, at, statistic, p, sample, len(random) == 1, "spectrum")


def no_spectrum(fitted: Fitted, at: int) -> str:
    """Why term `at` has no null distribution without parameters; empty where it has one."""
    design, text = fitted.data.design, fitted.data.frame.random[at].label
    own = design.terms[at]
    if design.residual is not None:
        return "the null distribution is of independent residuals, and these have estimated parameters"
    if own.family.n_params(own.q) != 1:
        count = own.family.n_params(own.q)
        return f"({text}) has {count} covariance parameters, and the null distribution is of one variance"
    wide = own.q > 1 or own.kernel is not None
    if wide and min(design.n, own.n_effects * own.q) > LARGEST:
        return f"({text}) has {own.n_effects * own.q:,} coefficients, too many for an eigendecomposition"
    return ""


def _bootstrapped(fitted: Fitted, at: int, n: int, key: Any) -> RandomTest:
    """Both models fitted to responses from the one without the term (Davison & Hinkley 1997, section 4.2)."""
    data, random = fitted.data, fitted.data.frame.random
    if by_mean(data):
        raise ValueError(
            "the residual variance is a function of the fitted values, which differ from draw to draw: "
            "take a covariate of the data, or ranova()"
        )
    null = smaller(data, (*random[:at], *random[at + 1 :]))
    without = fit_one(null, fitted.y, fitted.reml)
    require_estimates(without)
    draws = simulate(null, key, without.population, without.estimate.psi, n)
    small, large = (fit_draws(own, draws, fitted.reml, "draw") for own in (null, data))
    sample = np.asarray(small.estimate.deviance) - np.asarray(large.estimate.deviance)
    kept = np.isfinite(sample)
    if not kept.any():
        raise ValueError(f"none of {n} simulated responses could be fitted by both models: use ranova()")
    if np.mean(~kept) > FAILED:
        warnings.warn(
            f"{int(np.sum(~kept))} of {n} simulated responses could not be fitted by both models and are "
            "left out: the p-value may be off",
            stacklevel=stack_level(),
        )
    sample = np.maximum(sample[kept], 0.0)
    statistic = max(without.deviance - fitted.deviance, 0.0)
    p = float((1 + np.sum(sample >= statistic)) / (1 + len(sample)))
    return _result(fitted, at, statistic, p, sample, False, "bootstrap")


def _result(
    fitted: Fitted, at: int, statistic: float, p: float, sample: np.ndarray, exact: bool, method: str
) -> RandomTest:
    kind, n = "RLRT" if fitted.reml else "LRT", len(sample)
    se = float(np.sqrt(p * (1.0 - p) / n))
    return RandomTest(kind, fitted.data.frame.random[at].label, statistic, p, se, n, sample, exact, method)
