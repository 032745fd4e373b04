"""The posterior under other priors, by importance weights on the draws that are there.

The likelihood cancels: w ∝ p*(τ, ρ, σ, β)/p(τ, ρ, σ, β), the new prior over the old. Weights are smoothed
by a Pareto distribution fitted to their tail, whose shape k̂ says whether they can be trusted.

Source: Vehtari, Simpson, Gelman, Yao & Gabry (2024), JMLR 25(72).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.bayes.coordinates import log_priors
from lmmjax.fitted import require_level
from lmmjax.postestimation.posterior.arviz_bridge import smoothed
from lmmjax.postestimation.posterior.draws import Draws
from lmmjax.postestimation.posterior.priors import named_priors

RELIABLE = 0.7
"""k̂ up to which weighted means are trusted."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reweighted:
    """A posterior under other priors.

    Attributes
    ----------
    table : parameters × mean, sd, median, lower, upper under the other priors, and shift, the change of the
        mean in standard deviations of the posterior as drawn.
    weights : (chains, draws), sum 1.
    ess : 1/Σw², the draws that are left; k : Pareto k̂ of the weights, −inf where they are all equal.
    priors : in words by name.
    """

    table: pd.DataFrame
    weights: np.ndarray
    ess: float
    k: float
    priors: dict[str, str]

    @property
    def reliable(self) -> bool:
        """k̂ is at most 0.7."""
        return self.k <= RELIABLE

    def __repr__(self) -> str:
        verdict = "" if self.reliable else ": not reliable, draw again with these priors"
        return f"Reweighted(ess={self.ess:.0f} of {self.weights.size}, k={self.k:.2f}{verdict})\n{self.table}"


def reweighted(draws: Draws, priors: dict[str, Any] | None, level: float) -> Reweighted:
    """See `Posterior.reweight`."""
    data = draws.fitted.data
    named = named_priors(data, draws.fitted.y, priors, "nuts")
    with jax.enable_x64(True):
        psi = draws.psi.reshape(-1, draws.psi.shape[-1])
        beta = draws.beta.reshape(len(psi), -1)
        sets = named.arrays, draws.prior_set
        new, old = (log_priors(psi, beta, own, data.design.structure) for own in sets)
        log_weights = np.asarray(new) - np.asarray(old)
    weights, k = smooth(log_weights)
    flat = draws.values.reshape(len(psi), -1)
    return Reweighted(
        weighted_table(flat, weights, draws.names, require_level(level)),
        weights.reshape(draws.psi.shape[:2]),
        float(1.0 / np.sum(weights**2)),
        k,
        named.text,
    )


def smooth(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed weights (N,) with sum 1, and k̂."""
    if not np.any(np.isfinite(log_weights)):
        raise ValueError("the other priors exclude every draw")
    if np.ptp(log_weights) < 1e-10:
        return np.full(len(log_weights), 1.0 / len(log_weights)), -np.inf
    log, k = smoothed(log_weights - np.max(log_weights))
    weights = np.exp(log)
    return weights / weights.sum(), k


def weighted_table(values: np.ndarray, weights: np.ndarray, names: list[str], level: float) -> pd.DataFrame:
    """Weighted mean, sd and quantiles of draws (N, k), and the shift of the mean."""
    mean = weights @ values
    sd = np.sqrt(weights @ (values - mean) ** 2)
    tail = 0.5 * (1.0 - level)
    quantiles = {"median": 0.5, "lower": tail, "upper": 1.0 - tail}
    columns = {"mean": mean, "sd": sd}
    order = np.argsort(values, axis=0)
    for name, at in quantiles.items():
        reached = np.argmax(np.cumsum(weights[order], axis=0) >= at - 1e-12, axis=0)
        columns[name] = np.take_along_axis(values, order[reached, np.arange(len(names))][None], axis=0)[0]
    columns["shift"] = (mean - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    return pd.DataFrame(columns, index=names)
