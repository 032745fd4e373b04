"""Priors of patterned terms and of residual structures by name, and their defaults.

Keys are the names of parameters in `Fit.tidy`: "rho|g", "Phi", "range", "power(v)". With s the standard
deviation of the response, s_v that of a visit, and m_z as in `priors`, the defaults are

    τ ~ half-t(3, s/m_z), of a common variance with m_z² = mean Σ_j z_j²;
    correlations, shares: uniform over their range; autocorrelations, and coefficients of an autoregression,
    uniform over those that are possible together;
    ranges ~ log-normal with median twice the typical distance of neighbours, sd 1.5 of the logarithm;
    ratios of standard deviations ~ log-normal(1, 1), whichever is the reference;
    exponents: N(0, 1) of a power, N(0, 1/sd(v)²) of exp(δv);
    loadings ~ N(0, (s/m_z)²), those on the diagonal ~ half-t(3, s/m_z);
    visits: τ_v ~ half-t(3, s_v), R ~ LKJ(1), with keys "sd|Residual", "cor|Residual", or "cov|Residual".

Uniform priors are of the design's parameter: of a correlation at the typical distance of neighbours, whatever
the unit of time. A prior that is given is a density of the value as reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.bayes import LKJ, Beta, HalfT, InverseWishart, LogDensity, LogNormal, Normal
from lmmjax.bayes.coordinates import Place, TermPrior, places
from lmmjax.bayes.patterns import PatternPrior, ShapePrior
from lmmjax.bayes.priors import BlockPrior, Known, LogLine, ScalarPrior, SeparatePrior
from lmmjax.covariance import Parameter
from lmmjax.covariance.lowrank import LowRank
from lmmjax.fitted import ModelData, component_names
from lmmjax.residual import VarExp

VISITS = {"sd|Residual": ScalarPrior, "cor|Residual": LKJ, "cov|Residual": InverseWishart}


def pattern_kinds(data: ModelData) -> dict[str, Any]:
    """Keys of priors of patterns and residuals, and the classes that each takes."""
    out, structure = {}, data.design.structure
    names = component_names(data.components)
    for place in places(structure):
        if place.q and place.residual:
            out |= {k: v for k, v in VISITS.items() if k == "cor|Residual" or not place.correlations}
        elif not place.q:
            pairs = zip(names[place.at], structure.parameters[place.at], strict=True)
            out |= {name: _classes(p) for name, p in pairs}
    return out


def _classes(p: Parameter) -> Any:
    if p.kind in ("variance", "positive") or _leads(p):
        return ScalarPrior
    return (Beta, Normal, LogDensity) if p.kind == "interval" else (Normal, LogDensity)


def _leads(p: Parameter) -> bool:
    """Whether it is a loading on the diagonal, which is positive."""
    return p.name.startswith("loading") and len(set(p.name.removeprefix("loading").split("."))) == 1


def pattern_prior(
    data: ModelData, given: dict[str, Any], place: Place, group: str, scales: np.ndarray, whole: float
) -> tuple[TermPrior, dict[str, str]]:
    """The prior of a patterned term, and in words.

    Parameters
    ----------
    scales : (q,) s/m_z of every column; whole : that of a variance that all share.
    """
    structure, names = data.design.structure, component_names(data.components)
    k = places(structure).index(place)
    family, q, words = structure.terms[k].family, structure.terms[k].q, {}
    sds, shape = [], []
    rows = family._positions(q)[0] if isinstance(family, LowRank) else np.zeros(0, int)
    for j, (name, p) in enumerate(zip(names[place.at], structure.parameters[place.at], strict=True)):
        if p.kind == "variance":
            scale = whole if p.place is None else float(scales[p.place])
            sds.append(given.get(name, given.get(f"sd|{group}", given.get("sd", HalfT(3.0, scale)))))
            words[name] = str(sds[-1])
            continue
        default = None
        if p.kind == "real":
            scale = float(scales[rows[j - len(sds)]])
            default = HalfT(3.0, scale) if _leads(p) else Normal(0.0, scale)
            p = Parameter(p.name, "positive") if _leads(p) else p
        shape.append(ShapePrior(given.get(name, default), p, 1.0))
        words[name] = _words(shape[-1], place)
    return PatternPrior(tuple(sds), tuple(shape), place.lags), words


def _words(prior: ShapePrior, place: Place) -> str:
    together = (
        prior.prior is None and prior.parameter.kind == "interval" and (place.lags or any(place.orders))
    )
    return "uniform, of those that are possible together" if together else str(prior)


def residual_priors(
    data: ModelData, y: np.ndarray, given: dict[str, Any], scale: float
) -> tuple[tuple[TermPrior, ...], ScalarPrior | Known, dict[str, str]]:
    """Priors of the blocks of the residual structure and of σ, and in words; `scale` is s."""
    design, names = data.design, component_names(data.components)
    out, words, structure = [], {}, design.structure
    sigma = Known(float(np.sqrt(design.known))) if design.known is not None else None
    level = -1
    for place in places(structure)[len(design.terms) :]:
        if not place.q:
            shape = [
                ShapePrior(
                    given.get(name, _default(data, k)), structure.parameters[k], data.components[k].unit
                )
                for k, name in zip(range(place.at.start, place.at.stop), names[place.at], strict=True)
            ]
            words |= {name: _words(prior, place) for name, prior in zip(names[place.at], shape, strict=True)}
            out.append(PatternPrior((), tuple(shape), place.lags, place.orders))
            continue
        level += 1
        cov, cor = given.get("cov|Residual"), given.get("cor|Residual", LKJ(1.0))
        if cov is not None:
            _require_whole(given, cov, place.q)
            out.append(BlockPrior(cov))
            words["cov|Residual"] = str(cov)
            sigma = LogLine() if place.anchored and sigma is None else sigma
            continue
        scales = [] if place.correlations else list(visit_sds(data, y, level, scale)[place.known :])
        sds = tuple(given.get("sd|Residual", HalfT(3.0, float(own))) for own in scales)
        words |= {name: str(sd) for name, sd in zip(names[place.at], sds, strict=False)}
        words["cor|Residual"] = str(cor)
        out.append(SeparatePrior(sds, cor))
        if place.anchored and sigma is None:
            scale = float(visit_sds(data, y, 0, scale)[0])
    if sigma is None:
        sigma = given.get("sigma", HalfT(3.0, scale))
    words["sigma"] = "that of cov|Residual" if isinstance(sigma, LogLine) else str(sigma)
    if isinstance(sigma, Known):
        words["sigma"] = "known"
    return tuple(out), sigma, words


def _require_whole(given: dict[str, Any], cov: InverseWishart, q: int) -> None:
    """ValueError unless a prior of the whole matrix of visits is the only one, and of its shape."""
    both = [key for key in ("sd|Residual", "cor|Residual", "sigma") if key in given]
    if both:
        raise ValueError(f"priors {both[0]!r} and 'cov|Residual' are of the same parameters: drop one")
    if np.shape(cov.scale) != (q, q):
        raise ValueError(
            f"the InverseWishart of 'cov|Residual' has shape {np.shape(cov.scale)}: it is {q} × {q}"
        )


def _default(data: ModelData, k: int) -> Any:
    """The default prior of parameter k of ψ, one of the residuals; None: uniform."""
    structure, row = data.design.structure, data.components[k]
    p, own = structure.parameters[k], structure.residual
    assert own is not None
    assert data.design.residual is not None
    if p.kind == "interval":
        return None
    if p.kind == "positive":
        return LogNormal(2.0 * row.unit, 1.5) if p.scale == "length" else LogNormal(1.0, 1.0)
    at = k - structure.tail.start
    part = next(block.part for block in own.blocks if block.at.start <= at < block.at.stop)
    if isinstance(own.residual.parts[part], VarExp):
        column = part - len(own.residual.parts) + len(own.residual.variances)
        spread = float(np.std(data.design.residual.covariates[column]))
        return Normal(0.0, 1.0 / spread if spread > 0 else 1.0)
    return Normal(0.0, 1.0)


def visit_sds(data: ModelData, y: np.ndarray, level: int, scale: float) -> np.ndarray:
    """Standard deviations (q,) of the response by visit, of one level of `by`; s where there are few rows."""
    design, own = data.design, data.design.residual
    assert own is not None
    free = y if design.offset is None else y - np.asarray(design.offset)
    levels = own.structure.group_level(own.covariates)
    there = np.ones(len(y), bool) if levels is None else levels == level
    out = []
    for visit in range(own.structure.space.size):
        values = free[there & (own.place == visit)]
        sd = np.std(values, ddof=1) if len(values) > 2 else 0.0
        out.append(sd if sd > 0 else scale)
    return np.array(out)
