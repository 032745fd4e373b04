"""Several descents from different starts: which are worth it, the best, how many optima."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.core.estimate import Estimate, estimate_jit
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.core.spectral.fit import is_spectral, spectral_estimates
from lmmjax.optimize import Status

MANY = 50
"""Groups of a factor from which on one descent is made: several optima are a matter of few groups."""

SCALES = (0.01, 0.0, 10.0)
"""Relative variances of the further starts: near zero, zero, large."""

APART, RELATIVE = 1e-5, 1e-9
"""Criteria of optima that differ by more than both are those of different ones."""

TIED = 1e-8
"""Criteria of two descents to one optimum differ by less: the first is kept, whatever the last bits say."""


BELOW = 1e-2
"""How far below an optimum a descent without a certificate must have come to put it in doubt: where
covariances are nearly singular, criteria are rounded.

480 fits of eight designs of `benchmarks/workloads/random.py`, each descended from six more starts: none was
called local, none had a certified descent below it (1e-5), none one without a certificate (1e-2)."""


def few_groups(maker: ProblemMaker, many: int = MANY) -> bool:
    """Whether a factor has fewer than `many` groups."""
    return min((term.n_groups for term in maker.design.terms), default=many) < many


def further_points(maker: ProblemMaker, scales: tuple[float, ...] = SCALES) -> list[np.ndarray]:
    """d (m,) in internal coordinates to descend from, beside the moment start.

    The further starts of families and of parameters of the residuals, uncorrelated residuals, and relative
    variances `scales`.
    """
    structure, points = maker.design.structure, []
    if not structure.n_params:
        return []
    chosen = structure.components
    prior = np.array([p.starts[0] for p in structure.parameters])
    own = () if structure.residual is None else structure.residual.parameters
    pairs = zip(structure.terms, structure.slices(), strict=True)
    bent = [(term.starts, at) for term, at in pairs if not term.family.linear]
    count = max((len(k) for k in (*(starts for starts, _ in bent), *(p.starts for p in own))), default=1)
    for k in range(1, count):
        d = prior.copy()
        for starts, at in bent:
            d[at] = starts[min(k, len(starts) - 1)]
        d[structure.tail] = [p.starts[min(k, len(p.starts) - 1)] for p in own]
        points.append(d)
    if len(chosen):
        # beside random effects a correlation of residuals may be none, or take their place
        spans = np.array([p.kind == "interval" and p.lower < 0.0 < p.upper for p in structure.parameters])
        rest = np.setdiff1d(np.arange(structure.n_params), chosen)
        points += [np.where(spans, 0.0, prior)] if spans[rest].any() else []
        points += [np.where(np.isin(np.arange(len(prior)), chosen), scale * prior, prior) for scale in scales]
    return points


def further_starts(maker: ProblemMaker, scales: tuple[float, ...] = SCALES) -> list[np.ndarray]:
    """θ (m,) in the user's coordinates of `further_points`."""
    structure = maker.design.structure
    outward = np.asarray(structure.entry_map(maker.basis.outward))
    return [np.asarray(structure.encode(outward @ d)) for d in further_points(maker, scales)]


def best_of(
    problem: Problem, starts: list[np.ndarray], *, method: str = "newton", max_iter: int = 100
) -> Estimate:
    """The best of the descents from several starts θ (m,), NaN for the moment start; concrete, in float64.

    A converged one before one that is not, then the lower criterion; its status is `LOCAL` where one that is
    not is lower. Arrays of the `Estimate` are NumPy's.
    """
    return descents(problem, starts, method=method, max_iter=max_iter)[0]


def descents(
    problem: Problem, starts: list[np.ndarray], *, method: str = "newton", max_iter: int = 100
) -> tuple[Estimate, int]:
    """`best_of`, and how many different optima were found."""
    if (
        is_spectral(problem)
        and method == "newton"
        and max_iter > 0
        and any(np.isnan(s).any() for s in starts)
    ):
        found, optima = spectral_estimates(jax.tree.map(np.asarray, problem))
        return found, int(optima[0])
    with jax.enable_x64(True):
        found = [estimate_jit(problem, start, method=method, max_iter=max_iter) for start in starts]
        results = [jax.tree.map(np.asarray, result) for result in found]
        ends = np.array([[optimum_of(r)] for r in results], float)
        best = results[0]
        for other in results[1:]:
            best = other if better(other, best) else best
        best = surpassed(best, np.min([uncertified(result) for result in results], axis=0))
        return best, int(count_optima(ends, best.status == Status.CONVERGED)[0])


def better(new: Estimate, old: Estimate) -> np.ndarray:
    """Whether fits are better: certified ones before others, then those with the lower criterion."""
    certified, before = np.asarray(new.status == Status.CONVERGED), np.asarray(old.status == Status.CONVERGED)
    found, known = (np.nan_to_num(np.asarray(e.deviance, float), nan=np.inf) for e in (new, old))
    with np.errstate(invalid="ignore"):
        lower = known - found > TIED + 1e-12 * np.abs(found)
    return (certified & ~before) | ((certified == before) & lower)


def uncertified(result: Estimate) -> np.ndarray:
    """Criteria (...) where a descent stopped short of an optimum, else ∞."""
    short = np.isin(result.status, (Status.STALLED, Status.ITERATION_LIMIT))
    return np.where(short, np.nan_to_num(np.asarray(result.deviance, float), nan=np.inf), np.inf)


def surpassed(best: Estimate, lowest: np.ndarray) -> Estimate:
    """The fits with `Status.LOCAL` for optima above the lowest criterion (...) that has no certificate."""
    status = np.asarray(best.status)
    with np.errstate(invalid="ignore"):
        doubt = (status == Status.CONVERGED) & (lowest < np.asarray(best.deviance, float) - BELOW)
    return dataclasses.replace(best, status=np.where(doubt, np.int32(Status.LOCAL), status))


def optimum_of(result: Estimate) -> np.ndarray:
    """Criteria (...) where a descent has ended at an optimum, else NaN; axes of responses trail.

    Where parameters are open, as correlations are beside variances of zero, it is no optimum of its own:
    with other correlations there may be a way down.
    """
    closed = (np.asarray(result.status) == Status.CONVERGED) & ~np.any(result.moves != 0, axis=(0, 1))
    return np.where(closed, np.asarray(result.deviance, float), np.nan)


def count_optima(ends: np.ndarray, found: np.ndarray | bool = False) -> np.ndarray:
    """How many different criteria there are at ends (k, T) of descents; NaN where one is not an optimum.

    At least one where an optimum is `found` (T,).
    """
    ends = np.sort(ends, axis=0)
    with np.errstate(invalid="ignore"):
        new = np.diff(ends, axis=0) > APART + RELATIVE * np.abs(ends[1:])
    return np.maximum(new.sum(axis=0) + np.isfinite(ends[0]), found)
