"""`Fit.posterior`: draws from the posterior of all parameters, as a record with names.

NUTS draws the variance parameters from their marginal posterior, β and b integrated out; then β and b are
drawn given them, exactly. Gibbs sampling goes through the conjugate conditionals of all of them. Priors and
their defaults: `lmmjax.prior_names`.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from lmmjax import varcomp
from lmmjax.bayes import gibbs, nuts
from lmmjax.bayes.coordinates import components, natural, scattered
from lmmjax.bayes.draws import beta_draws, perturbations, pulled
from lmmjax.bayes.priors import PriorSet
from lmmjax.bayes.target import densities
from lmmjax.influence import require_estimates
from lmmjax.posterior_predict import log_likelihood, predictive
from lmmjax.prior_names import METHODS, named_priors, response_sd
from lmmjax.prior_sensitivity import Reweighted, reweighted

if TYPE_CHECKING:
    from lmmjax.model import Model
    from lmmjax.results import Fit

LARGEST = 1 << 28
"""Most numbers that the draws of b may take: 2 GiB."""

CHUNK = 1 << 22
"""Numbers in the simulated responses behind one chunk of draws of b."""

RHAT = 1.05
"""R̂ above which a warning is given."""


Drawn = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...] | None, dict[str, np.ndarray]]
"""β, ψ, b and the statistics of a sampler, as in `Posterior`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior of a model.

    Attributes
    ----------
    fit : the fit whose model and response these are.
    method : "nuts" or "gibbs".
    priors : the prior of every parameter, in words by name.
    beta : (chains, draws, p).
    psi : (chains, draws, m + 1) variances and covariances in the order of `varcorr()`, σ² last.
    b : per random term (chains, draws, G, q), or None if they were not asked for.
    stats : by name (chains, draws): what the sampler says of every draw.
    prior_set : the priors as records.
    """

    fit: Fit
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
        return [*self.fit.model.frame.x_names, *varcomp.names(self.fit.model.components)]

    @cached_property
    def values(self) -> np.ndarray:
        """Draws (chains, draws, k) of the parameters in `names`."""
        sds, _ = varcomp.sd_scale(self.psi, self.fit.model.components)
        return np.concatenate([self.beta, sds], axis=-1)

    def frame(self) -> pd.DataFrame:
        """Draws × parameters, rows labelled by chain and draw."""
        chains, draws, k = self.values.shape
        index = pd.MultiIndex.from_product([range(chains), range(draws)], names=["chain", "draw"])
        return pd.DataFrame(self.values.reshape(-1, k), index=index, columns=self.names)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Parameters × mean, sd, median, lower, upper, mcse, r_hat, ess_bulk, ess_tail.

        lower and upper are quantiles with `level` between them, mcse is the Monte Carlo standard error of the
        mean. r_hat is the rank-normalised split R̂ and should be below 1.01; both effective sample sizes
        should be above 100 a chain.

        Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), doi:10.1214/20-BA1221.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level}")
        flat = self.values.reshape(-1, len(self.names))
        tail = 0.5 * (1.0 - level)
        lower, median, upper = np.quantile(flat, [tail, 0.5, 1.0 - tail], axis=0)
        columns = {"mean": flat.mean(0), "sd": flat.std(0, ddof=1), "median": median}
        columns |= {"lower": lower, "upper": upper} | diagnostics(self.values)
        return pd.DataFrame(columns, index=self.names)

    @cached_property
    def idata(self) -> Any:
        """`arviz.InferenceData` with groups posterior, sample_stats and observed_data; see `to_arviz`."""
        return self.to_arviz()

    def to_arviz(self, *, posterior_predictive: Any = None, log_likelihood: bool = False) -> Any:
        """`arviz.InferenceData`.

        `posterior` holds beta (by coefficient), every standard deviation and correlation and sigma under its
        name, and the random effects of every term under its text (levels × columns).

        Parameters
        ----------
        posterior_predictive : `jax.random` key: adds responses drawn for the rows of the fit.
        log_likelihood : adds log p(y_i | β, b, σ) of every row, for `arviz.loo` and `arviz.waic`.
        """
        arviz = require("arviz")
        frame, row = self.fit.model.frame, {"row": list(self.fit.model.frame.index)}
        response = self.fit.response or "y"
        sds = varcomp.sd_scale(self.psi, self.fit.model.components)[0]
        variables: dict[str, np.ndarray] = {"beta": self.beta} if frame.x_names else {}
        variables |= {name: sds[..., k] for k, name in enumerate(self.names[len(frame.x_names) :])}
        coords, dims = {"coefficient": list(frame.x_names)} | row, {"beta": ["coefficient"]}
        for term, b in zip(frame.random, self.b or (), strict=False):
            variables[term.text] = b
            dims[term.text] = [term.group, f"{term.text} columns"]
            coords |= {term.group: list(term.levels), f"{term.text} columns": list(term.names)}
        groups: dict[str, Any] = {"posterior": variables, "sample_stats": self.stats or None}
        groups["observed_data"] = {response: self.fit.y}
        if posterior_predictive is not None:
            drawn = self.posterior_predictive(posterior_predictive)
            groups["posterior_predictive"] = {response: drawn}
        if log_likelihood:
            groups["log_likelihood"] = {response: self.log_likelihood()}
        dims[response] = ["row"]
        return arviz.from_dict(**groups, coords=coords, dims=dims)

    def posterior_predictive(self, key: Any, newdata: Any = None, **options: Any) -> np.ndarray:
        """Responses (chains, draws, n) drawn from the model at every draw of its parameters.

        Parameters
        ----------
        key : `jax.random` key.
        newdata : rows to draw for; those of the fit if None. Levels of a grouping factor that the fit has not
            seen get random effects drawn from N(0, Σ), the same in all rows of a level.
        groups : "same", the levels of the fit keep their random effects; "new", all levels are drawn.
        kind : "response", or "mean" for its expectation given the random effects.
        weights : (n,) prior weights of new rows, 1 if None.
        offset : of new rows, as in `Fit.predict`.
        """
        return predictive(self, key, newdata, **options)

    def log_likelihood(self) -> np.ndarray:
        """log p(y_i | β, b, σ), (chains, draws, n)."""
        return log_likelihood(self)

    def reweight(self, priors: dict[str, Any] | None) -> Reweighted:
        """The posterior under other priors, by importance weights on these draws.

        Parameters
        ----------
        priors : as in `Fit.posterior`; what it leaves out takes the default, not the prior of these draws.
        """
        model, y = self.fit.model, self.fit.y
        return reweighted(self, named_priors(model, y, priors, "nuts"))

    def __repr__(self) -> str:
        chains, draws = self.psi.shape[:2]
        return f"Posterior({self.fit.model.formula!r}, {self.method}, {chains} chains × {draws} draws)"


def posterior(
    fit: Fit,
    key: Any,
    priors: dict[str, Any] | None = None,
    *,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    method: str = "nuts",
    random_effects: bool = True,
    target_accept: float = 0.9,
) -> Posterior:
    """See `Fit.posterior`."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(METHODS)}")
    for name, value in {"draws": draws, "warmup": warmup, "chains": chains}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept must lie between 0 and 1, not {target_accept}")
    for package in ("arviz", "blackjax") if method == "nuts" else ("arviz",):
        require(package)
    require_estimates(fit)
    design = fit.model.design
    if not design.structure.linear or design.residual is not None or design.known is not None:
        raise ValueError(
            "posteriors are for unstructured and diagonal random effects with independent residuals: use "
            "bootstrap for others"
        )
    model = fit.model
    coefficients = sum(term.n_groups * term.q for term in model.design.terms)
    if random_effects and coefficients * chains * draws > LARGEST:
        raise ValueError(
            f"draws of all {coefficients} random coefficients are too many to keep: pass "
            "random_effects=False, or draw less"
        )
    named = named_priors(model, fit.y, priors, method)
    with jax.enable_x64(True):
        key_start, key_run = jax.random.split(key)
        starts = scattered(
            key_start, fit.estimate.psi, floor(model, fit.y), model.design.structure, named.arrays, chains
        )
        run = (fit, key_run, starts, named.arrays, draws, warmup, random_effects)
        beta, psi, b, stats = _gibbs(*run) if method == "gibbs" else _nuts(*run, target_accept)
    drawn = Posterior(fit, method, named.text, beta, psi, b, stats, named.arrays)
    warn_unmixed(drawn)
    return drawn


def floor(model: Model, y: np.ndarray) -> np.ndarray:
    """Variances (m + 1,) from which chains start at the least: a hundredth of the squared default scales."""
    s2 = 0.01 * response_sd(model, y) ** 2
    matrices = [np.diag(s2 / np.mean(np.asarray(term.z) ** 2, axis=0)) for term in model.design.terms]
    return np.append(model.design.structure.natural(tuple(matrices), float), s2)


def _nuts(
    fit: Fit,
    key: Any,
    starts: np.ndarray,
    priors: PriorSet,
    draws: int,
    warmup: int,
    random_effects: bool,
    target_accept: float,
) -> Drawn:
    problem = fit.model.problem(fit.y, fit.reml)
    key_chains, key_beta, key_b = jax.random.split(key, 3)
    at_start = densities(jnp.asarray(starts), problem, priors)
    if not np.all(np.isfinite(at_start)):
        raise ValueError("the posterior density is not finite near the estimates: check the priors' scales")
    chains = nuts.sample(
        key_chains,
        jnp.asarray(starts),
        problem,
        priors,
        warmup=warmup,
        draws=draws,
        target_accept=target_accept,
    )
    flat = chains.psi.reshape(-1, chains.psi.shape[-1])
    beta = beta_draws(key_beta, problem, flat, priors.beta)
    b = effect_draws(fit, key_b, flat, beta) if random_effects else None
    shape = chains.psi.shape[:2]
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
        np.asarray(beta).reshape(*shape, -1),
        np.asarray(chains.psi),
        kept,
        {name: np.asarray(value) for name, value in stats.items()},
    )


def effect_draws(fit: Fit, key: Any, psi: Any, beta: Any) -> tuple[np.ndarray, ...]:
    """b per term (N, G, q) given ψ (N, m + 1) and β (N, p), a chunk of draws at a time."""
    design, total = fit.model.design, len(psi)
    size = min(total, max(16, CHUNK // design.n))
    root = np.ones(design.n) if design.weights is None else np.sqrt(np.asarray(design.weights))
    pieces = []
    for k, begin in enumerate(range(0, total, size)):
        # the last chunk is filled up, so that all have one shape
        at = np.minimum(np.arange(begin, begin + size), total - 1)
        prior, noise = perturbations(
            jax.random.fold_in(key, k),
            psi[at],
            tuple(jnp.asarray(term.z) for term in design.terms),
            tuple(jnp.asarray(term.codes) for term in design.terms),
            jnp.asarray(root),
            design.structure,
            tuple(term.n_groups for term in design.terms),
        )
        means = pulled(fit.model.expanded(fit.y - np.asarray(noise), fit.reml), psi[at], beta[at])
        pieces.append(
            [
                np.asarray(own + mean[:, : own.shape[1]])[: total - begin]
                for own, mean in zip(prior, means, strict=True)
            ]
        )
    return tuple(np.concatenate(term) for term in zip(*pieces, strict=True))


def _gibbs(
    fit: Fit,
    key: Any,
    starts: np.ndarray,
    priors: PriorSet,
    draws: int,
    warmup: int,
    random_effects: bool,
) -> Drawn:
    design = fit.model.design
    psi = jnp.stack(
        [natural(components(jnp.asarray(u), design.structure, priors)[0], design.structure) for u in starts]
    )
    drawn = gibbs.run_chains(
        jax.random.split(key, len(starts)),
        psi,
        gibbs.rows(design, fit.y),
        priors,
        design.structure,
        tuple(term.n_groups for term in design.terms),
        warmup,
        draws,
    )
    drawn = jax.tree.map(np.asarray, drawn)
    return drawn.beta, drawn.psi, drawn.b if random_effects else None, {}


def diagnostics(values: np.ndarray) -> dict[str, np.ndarray]:
    """mcse, r_hat, ess_bulk and ess_tail of draws (chains, draws, k), each (k,)."""
    arviz = require("arviz")
    data = arviz.convert_to_dataset({"x": values})
    return {
        "mcse": arviz.mcse(data)["x"].to_numpy(),
        "r_hat": arviz.rhat(data)["x"].to_numpy(),
        "ess_bulk": arviz.ess(data, method="bulk")["x"].to_numpy(),
        "ess_tail": arviz.ess(data, method="tail")["x"].to_numpy(),
    }


def warn_unmixed(drawn: Posterior) -> None:
    """One warning where trajectories diverged or chains disagree."""
    diverged = int(np.sum(drawn.stats.get("diverging", 0)))
    found = [f"{diverged} draws ended a divergent trajectory (raise target_accept)"] if diverged else []
    if drawn.values.shape[0] > 1 and drawn.values.shape[1] >= 4:
        worst = diagnostics(drawn.values)["r_hat"]
        if np.any(worst > RHAT):
            k = int(np.nanargmax(worst))
            found.append(f"R̂ of {drawn.names[k]} is {worst[k]:.2f}, chains disagree (raise warmup and draws)")
    if found:
        warnings.warn("; ".join(found), stacklevel=4)


def require(package: str) -> ModuleType:
    """The package, or ImportError that says how to install it."""
    try:
        with warnings.catch_warnings():
            # arviz announces its next version when it is imported
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"fit.posterior needs the package {package}, which is not installed: pip install 'lmmjax[bayes]'"
        ) from error
