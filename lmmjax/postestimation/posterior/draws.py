"""Draws from the posterior of all parameters of a fit, as a record with names.

NUTS draws the variance parameters from their marginal posterior, β and b integrated out; then β and b are
drawn given them, exactly. Gibbs sampling goes through the conjugate conditionals of all of them. Priors and
their defaults: `lmmjax.postestimation.posterior.priors`.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from functools import cached_property
from typing import Any

import jax
import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.memory import require_memory
from lmmjax.arrays.other_arguments import answered
from lmmjax.bayes import gibbs, nuts
from lmmjax.bayes.coordinates import PriorSet, natural_of, scattered
from lmmjax.bayes.draws import beta_draws, perturbations, pulled
from lmmjax.bayes.random import chunk_keys, keys_of, standard_normal
from lmmjax.bayes.target import densities
from lmmjax.core.residual_draws import coloured_each
from lmmjax.fitted import (
    Fitted,
    ModelData,
    component_names,
    require_choice,
    require_count,
    require_estimates,
    require_key,
    require_switch,
    sd_scale,
)
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.postestimation.posterior.arviz_bridge import diagnostics, require
from lmmjax.postestimation.posterior.priors import METHODS, named_priors, response_sd

LARGEST = 1 << 28
"""Most numbers that draws may take: 2 GiB."""

CHUNK = 1 << 22
"""Numbers in the simulated responses behind one chunk of draws of b."""

RHAT = 1.05
"""R̂ above which a warning is given."""

Drawn = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...] | None, dict[str, np.ndarray]]
"""β, ψ, b and the statistics of a sampler, as in `Draws`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Draws from the posterior of a model.

    Attributes
    ----------
    fitted : the fit whose model and response these are.
    method : "nuts" or "gibbs".
    priors : the prior of every parameter, in words by name.
    beta : (chains, draws, p).
    psi : (chains, draws, m + 1) variances, covariances and other parameters in the order of `varcorr()`, σ²
        last.
    b : per random term (chains, draws, G, q), or None if they were not asked for.
    stats : by name (chains, draws): what the sampler says of every draw.
    prior_set : the priors as records.
    """

    fitted: Fitted
    method: str
    priors: dict[str, str]
    beta: np.ndarray
    psi: np.ndarray
    b: tuple[np.ndarray, ...] | None
    stats: dict[str, np.ndarray]
    prior_set: PriorSet

    @cached_property
    def names(self) -> list[str]:
        """Fixed effects, standard deviations and correlations, sigma: as in `Fit.tidy`."""
        data = self.fitted.data
        return [*data.x_names, *component_names(data.components)]

    @cached_property
    def values(self) -> np.ndarray:
        """Draws (chains, draws, k) of the parameters in `names`."""
        sds, _ = sd_scale(self.psi, self.fitted.data.components)
        return np.concatenate([self.beta, sds], axis=-1)


@functools.partial(answered, name="posterior")
def posterior_draws(
    fitted: Fitted,
    key: Any,
    priors: dict[str, Any] | None = None,
    *,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    method: str = "nuts",
    random_effects: bool = True,
    target_accept: float = 0.9,
) -> Draws:
    """See `Fit.posterior`."""
    require_choice("method", method, METHODS)
    require_key(key)
    require_switch("random_effects", random_effects)
    draws, warmup, chains = (
        require_count(name, value)
        for name, value in {"draws": draws, "warmup": warmup, "chains": chains}.items()
    )
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept must lie between 0 and 1, not {target_accept}")
    for package in ("arviz", "blackjax") if method == "nuts" else ("arviz",):
        require(package)
    require_estimates(fitted)
    data, y = fitted.data, fitted.y
    design = data.design
    if by_mean(data):
        raise ValueError(
            "the residual variance is a function of the fitted values, so that there is no likelihood of the "
            "variance parameters alone: take a covariate of the data, or bootstrap"
        )
    if not len(fitted.estimate.psi) - (design.known is not None):
        raise ValueError("the model has no variance parameters to sample: all of its variances are known")
    coefficients = sum(term.n_groups * term.q for term in design.terms)
    each = len(fitted.estimate.psi) + design.p + 4 + (coefficients if random_effects else 0)
    require_memory(f"{chains * draws:,} draws of {each:,} numbers", chains * draws, each)
    if random_effects and coefficients * chains * draws > LARGEST:
        raise ValueError(
            f"draws of all {coefficients} random coefficients are too many to keep: pass "
            "random_effects=False, or draw less"
        )
    named = named_priors(data, y, priors, method)
    with jax.enable_x64(True):
        key_start, key_run = keys_of(key, 2)
        starts = scattered(
            key_start, fitted.estimate.psi, floor(data, y), design.structure, named.arrays, chains
        )
        run = (fitted, key_run, starts, named.arrays, draws, warmup, random_effects)
        beta, psi, b, stats = _gibbs(*run) if method == "gibbs" else _nuts(*run, target_accept)
    drawn = Draws(fitted, method, named.text, beta, psi, b, stats, named.arrays)
    warn_unmixed(drawn)
    return drawn


def floor(data: ModelData, y: np.ndarray) -> np.ndarray:
    """Variances (m + 1,) from which chains start at the least: a hundredth of the squared default scales."""
    structure, s2 = data.design.structure, 0.01 * response_sd(data, y) ** 2
    out = np.zeros(structure.n_params + 1)
    out[-1] = s2
    for term, own, at in zip(data.design.terms, structure.terms, structure.slices(), strict=True):
        squares = np.mean(np.asarray(term.z) ** 2, axis=0)
        matrix = np.diag(s2 / squares)
        if own.family.linear:
            out[at] = own.family.natural(matrix)
            continue
        least = [squares.sum() if p.place is None else squares[p.place] for p in own.parameters]
        variance = np.array([p.kind == "variance" for p in own.parameters])
        out[at] = np.where(variance, s2 / np.array(least), 0.0)
    return out


def _nuts(
    fitted: Fitted,
    key: Any,
    starts: np.ndarray,
    priors: PriorSet,
    draws: int,
    warmup: int,
    random_effects: bool,
    target_accept: float,
) -> Drawn:
    problem = fitted.data.problem(fitted.y, fitted.reml)
    key_chains, key_beta, key_b = keys_of(key, 3)
    at_start, slopes = jax.tree.map(np.asarray, densities(starts, problem, priors))
    if not np.all(np.isfinite(at_start)):
        raise ValueError("the posterior density is not finite near the estimates: check the priors' scales")
    chains = nuts.sample(
        key_chains,
        (starts, at_start, slopes),
        problem,
        priors,
        warmup=warmup,
        draws=draws,
        target_accept=target_accept,
    )
    psi = np.asarray(chains.psi)
    flat = psi.reshape(-1, psi.shape[-1])
    beta = np.asarray(beta_draws(key_beta, problem, flat, priors.beta))
    b = effect_draws(fitted, key_b, flat, beta) if random_effects else None
    shape = psi.shape[:2]
    stats = {
        "lp": chains.log_density,
        "diverging": chains.divergent,
        "tree_depth": chains.depth,
        "n_steps": chains.steps,
        "acceptance_rate": chains.acceptance,
        "energy": chains.energy,
    }
    kept = None if b is None else tuple(a.reshape(*shape, *a.shape[1:]) for a in b)
    return (
        beta.reshape(*shape, -1),
        psi,
        kept,
        {name: np.asarray(value) for name, value in stats.items()},
    )


def effect_draws(fitted: Fitted, key: Any, psi: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, ...]:
    """b per term (N, G, q) given ψ (N, m + 1) and β (N, p), a chunk of draws at a time."""
    design, total = fitted.data.design, len(psi)
    size = min(total, max(16, CHUNK // design.n))
    root = np.ones(design.n) if design.weights is None else np.sqrt(np.asarray(design.weights))
    pieces = []
    for k, begin in enumerate(range(0, total, size)):
        # the last chunk is filled up, so that all have one shape
        at = np.minimum(np.arange(begin, begin + size), total - 1)
        key_noise, key_effects = chunk_keys(key, np.uint32(k))
        white = standard_normal(key_noise, (size, design.n))
        prior, noise = perturbations(
            key_effects,
            psi[at],
            tuple(np.asarray(term.z) for term in design.terms),
            tuple(np.asarray(term.codes) for term in design.terms),
            coloured_each(design.structure, design.residual, psi[at], root, white),
            design.structure,
            tuple(term.n_effects for term in design.terms),
            tuple(None if t.kernel is None else t.kernel.root for t in design.terms),
        )
        means = pulled(fitted.data.expanded(fitted.y - np.asarray(noise), fitted.reml), psi[at], beta[at])
        pieces.append(
            [
                (np.asarray(own) + np.asarray(mean)[:, : own.shape[1]])[: total - begin]
                for own, mean in zip(prior, means, strict=True)
            ]
        )
    return tuple(np.concatenate(term) for term in zip(*pieces, strict=True))


def _gibbs(
    fitted: Fitted,
    key: Any,
    starts: np.ndarray,
    priors: PriorSet,
    draws: int,
    warmup: int,
    random_effects: bool,
) -> Drawn:
    design = fitted.data.design
    psi = natural_of(starts, priors, design.structure)
    drawn = gibbs.run_chains(
        jax.random.split(key, len(starts)),
        psi,
        gibbs.rows(design, fitted.y),
        priors,
        design.structure,
        tuple(term.n_groups for term in design.terms),
        warmup,
        draws,
    )
    drawn = jax.tree.map(np.asarray, drawn)
    return drawn.beta, drawn.psi, drawn.b if random_effects else None, {}


def warn_unmixed(drawn: Draws) -> None:
    """One warning where trajectories diverged or chains disagree."""
    diverged = int(np.sum(drawn.stats.get("diverging", 0)))
    found = [f"{diverged} draws ended a divergent trajectory (raise target_accept)"] if diverged else []
    if drawn.values.shape[0] > 1 and drawn.values.shape[1] >= 4:
        worst = diagnostics(drawn.values)["r_hat"]
        if np.any(worst > RHAT):
            k = int(np.nanargmax(worst))
            found.append(f"R̂ of {drawn.names[k]} is {worst[k]:.2f}, chains disagree (raise warmup and draws)")
    if found:
        warnings.warn("; ".join(found), stacklevel=stack_level())
