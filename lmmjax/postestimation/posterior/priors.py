"""Priors by name: what `Fit.posterior(priors=)` takes, the defaults, and warnings about improper ones.

Names of parameters are those of `Fit.tidy`. A key picks, the most specific first,

    "sd_Days|Subject", "sd|Subject", "sd"     standard deviations of random coefficients,
    "cor|Subject", "cor"                      correlations of a term (`LKJ`),
    "cov|Subject", "cov"                      whole blocks (`InverseWishart`), in place of both,
    "sigma"                                   the residual standard deviation,
    "Days", "beta"                            fixed effects (`Normal`; None is flat).

With s the standard deviation of the response and m_z = √mean(z²) of a column of Z, the defaults are

    τ ~ half-t(3, s/m_z),    σ ~ half-t(3, s),    R ~ LKJ(1),    β flat;

for Gibbs sampling a correlated block has Σ ~ InverseWishart(q + 1, diag(s²/m_z²)). Those of patterned terms
and of residual structures are in `structure_priors`.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.bayes import LKJ, HalfT, InverseGamma, InverseWishart, Normal
from lmmjax.bayes.coordinates import PriorSet, TermPrior, places
from lmmjax.bayes.gibbs import conjugate
from lmmjax.bayes.priors import BetaPrior, BlockPrior, ScalarPrior, SeparatePrior
from lmmjax.fitted import ModelData
from lmmjax.formula import nearest
from lmmjax.postestimation.posterior.structure_priors import pattern_kinds, pattern_prior, residual_priors

METHODS = ("nuts", "gibbs")
FAMILIES = {"us": True, "diag": False}
"""Covariance families that priors are defined for, and whether they have correlations."""


@dataclasses.dataclass(frozen=True, eq=False)
class NamedPriors:
    """Priors of all parameters: as arrays, and in words by name."""

    arrays: PriorSet
    text: dict[str, str]


def named_priors(data: ModelData, y: np.ndarray, priors: dict[str, Any] | None, method: str) -> NamedPriors:
    """The priors of a model for y (n,): those given, defaults for the rest.

    Raises
    ------
    ValueError : names the key or the parameter of a prior that is wrong, and the remedy.
    """
    given = _checked(data, priors or {})
    scale = response_sd(data, y)
    terms, text = [], {}
    pairs = zip(data.design.terms, data.frame.random, places(data.design.structure), strict=False)
    for design, term, place in pairs:
        scales = scale / np.sqrt(np.mean(np.asarray(design.z) ** 2, axis=0))
        if place.q:
            correlated = FAMILIES[design.family.name] and design.q > 1
            prior, words = _term(given, term.group, term.names, scales, correlated, method)
        else:
            whole = scale / np.sqrt(np.mean(np.sum(np.asarray(design.z) ** 2, axis=1)))
            prior, words = pattern_prior(data, given, place, term.group, scales, whole)
        terms.append(prior)
        text |= words
    residual, sigma, words = residual_priors(data, y, given, scale)
    text |= words
    text["sigma"] = str(sigma)
    normals = {name: given.get(name, given.get("beta")) or Normal(0.0, np.inf) for name in data.frame.x_names}
    text |= {name: str(normal) for name, normal in normals.items()}
    beta = BetaPrior(
        np.array([float(v.mean) for v in normals.values()]),
        np.array([float(v.sd) ** -2.0 for v in normals.values()]),
    )
    arrays = PriorSet(tuple(terms), sigma, beta, residual)
    arrays = jax.tree.map(lambda a: np.asarray(a, dtype=float), arrays)
    if method == "gibbs" and not conjugate(arrays):
        raise ValueError(
            "the Gibbs sampler needs conditionals that can be drawn: HalfT or InverseGamma for standard "
            "deviations, InverseWishart (key 'cov|group') for correlated blocks, and no other parameters of "
            "terms or residuals; or use method='nuts'"
        )
    warn_improper(data, arrays)
    return NamedPriors(arrays, text)


def response_sd(data: ModelData, y: np.ndarray) -> float:
    """s: the (weighted) standard deviation of y less its offset."""
    design = data.design
    free = y if design.offset is None else y - np.asarray(design.offset)
    weights = np.ones(len(y)) if design.weights is None else np.asarray(design.weights)
    mean = np.average(free, weights=weights)
    sd = float(np.sqrt(np.sum(weights * (free - mean) ** 2) / (len(y) - 1)))
    if not sd > 0:
        raise ValueError("the response is constant: there is nothing to sample")
    return sd


def _term(
    given: dict[str, Any],
    group: str,
    names: tuple[str, ...],
    scales: np.ndarray,
    correlated: bool,
    method: str,
) -> tuple[TermPrior, dict[str, str]]:
    """The prior of one term, and in words."""
    own = [f"sd_{name}|{group}" for name in names]
    separate = [key for key in (*own, f"sd|{group}", f"cor|{group}") if key in given]
    block = given.get(f"cov|{group}")
    if block is None and not separate and correlated:
        block = given.get("cov")
        if block is None and method == "gibbs" and not {"sd", "cor"} & set(given):
            block = InverseWishart(len(names) + 1.0, np.diag(scales**2))
    if block is not None:
        if separate:
            raise ValueError(f"priors {separate[0]!r} and 'cov|{group}' are of the same parameters: drop one")
        shape = np.shape(block.scale)
        if not (correlated or len(names) == 1) or shape != (len(names),) * 2:
            kind = "uncorrelated" if not correlated and len(names) > 1 else f"{len(names)} × {len(names)}"
            raise ValueError(
                f"an InverseWishart of shape {shape} is for the block of {group!r}: it is {kind}"
            )
        return BlockPrior(block), {f"cov|{group}": str(block)}
    sds = [
        given.get(key, given.get(f"sd|{group}", given.get("sd", HalfT(3.0, scale))))
        for key, scale in zip(own, scales, strict=True)
    ]
    words = {key: str(sd) for key, sd in zip(own, sds, strict=True)}
    correlation = None
    if correlated:
        correlation = given.get(f"cor|{group}", given.get("cor", LKJ(1.0)))
        words[f"cor|{group}"] = str(correlation)
    return SeparatePrior(tuple(sds), correlation), words


def _checked(data: ModelData, priors: dict[str, Any]) -> dict[str, Any]:
    """The priors given; ValueError if a key, a kind or a parameter is wrong."""
    random = data.frame.random
    kinds: dict[str, Any] = {"sd": ScalarPrior, "cor": LKJ, "cov": InverseWishart}
    for term in random:
        free = term.structure in FAMILIES
        kinds |= {f"sd_{name}|{term.group}": ScalarPrior for name in term.names if free}
        kinds |= {f"{key}|{term.group}": kinds[key] for key in (("sd", "cor", "cov") if free else ("sd",))}
    kinds |= pattern_kinds(data)
    if data.design.known is None:
        kinds["sigma"] = ScalarPrior
    fixed = {"beta", *data.frame.x_names} - set(kinds)
    if not isinstance(priors, dict):
        raise ValueError(f"priors are a dict of priors by name, not {priors!r}: there are {', '.join(kinds)}")
    for key, prior in priors.items():
        if key not in kinds and key not in fixed:
            raise ValueError(f"no prior is called {key!r}: {nearest(str(key), [*kinds, *sorted(fixed)])}")
        if key in fixed and prior is None:
            continue
        kind = Normal if key in fixed else kinds[key]
        if not isinstance(prior, kind):
            what = "a prior of a standard deviation (HalfT, Exponential, ...)"
            some = kind if isinstance(kind, tuple) else (kind,)
            wanted = what if kind is ScalarPrior else " or ".join(one.__name__ for one in some)
            raise ValueError(f"the prior of {key!r} must be {wanted}, not {prior!r:.40}")
        _check_parameters(key, prior, key in fixed)
    return {key: prior for key, prior in priors.items() if prior is not None}


def _check_parameters(key: str, prior: Any, fixed: bool) -> None:
    """Numbers finite, and positive where they have to be; a normal prior of fixed effects may be flat."""
    parameters = prior.parameters() if isinstance(prior, ScalarPrior) else vars(prior)
    allowed = {"df", "scale"} if isinstance(prior, InverseWishart) else {"mean"}
    allowed |= set(getattr(prior, "zero_allowed", ()))
    for name, value in parameters.items():
        value = np.asarray(value, dtype=float)
        flat = fixed and name == "sd" and np.isposinf(value)
        if name == "mean":
            good = np.isfinite(value).all()
        elif isinstance(prior, InverseWishart) and name == "scale":
            good = value.ndim == 2 and np.array_equal(value, value.T) and np.linalg.eigvalsh(value)[0] >= 0
        else:
            good = (value.ndim == 0 and np.isfinite(value) and value >= 0) or flat
        if not good or (name not in allowed and np.any(value <= 0)):
            need = "at least 0" if name in allowed else "positive"
            raise ValueError(
                f"the prior of {key!r} has {name}={value.tolist()}: it has to be finite and {need}"
            )


def warn_improper(data: ModelData, priors: PriorSet) -> None:
    """Warn where a prior makes the posterior improper at zero variance of a random effect."""
    for term, prior in zip(data.frame.random, priors.terms, strict=True):
        if isinstance(prior, BlockPrior):
            bad = not np.linalg.eigvalsh(prior.block.scale)[0] > 0
        else:
            bad = any(isinstance(sd, InverseGamma) and not sd.scale > 0 for sd in prior.sds)
        if bad:
            warnings.warn(
                f"the prior of the variance of ({term.text}) does not integrate near zero, where the "
                "likelihood is positive: there is no posterior, and draws drift towards zero variance "
                "however long the chain. Use a proper prior, such as the default HalfT",
                stacklevel=stack_level(),
            )
