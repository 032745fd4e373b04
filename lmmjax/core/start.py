"""Where a descent begins: variance components by moments, from one evaluation at unit relative variances."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, sweep
from lmmjax.core.criterion import CriterionParts, Jet, evaluate
from lmmjax.core.problem import Problem

START_FLOOR = 0.01
"""Largest lower bound of a starting variance, relative to σ², for columns of unit mean square."""


def prior(problem: Problem) -> Array:
    """d (m,) of the prior for the moment start: unit relative variances."""
    return problem.structure.prior(problem.n.dtype)


def moment_start(problem: Problem) -> tuple[Array, tuple[Array, ...]]:
    """Starting θ and coordinates: what the first evaluation of `estimate` gives."""
    split = evaluate(problem.shared, prior(problem), problem.response, problem.reml)
    return moment_point(problem, split)


def moment_point(problem: Problem, split: CriterionParts) -> tuple[Array, tuple[Array, ...]]:
    """Starting θ and coordinates from the parts at the prior: moments of what H is linear in.

    Of a free covariance matrix of residuals in complete groups these are the sample covariances.
    """
    d0, chosen, known = prior(problem), problem.structure.by_moments, problem.known_inside
    some = components(split, chosen)
    if known is None:
        # σ² may be the variance of one visit among many
        own = problem.structure.residual
        found = moments(some, problem.nu, d0[chosen], 1e-14 if own is not None and own.frames else 1e-3)
    else:
        found = moments_beside(some, known, d0[chosen])
    d = d0.at[chosen].set(found.astype(d0.dtype)) if len(chosen) < len(d0) else found
    return problem.structure.start(d, start_floor(split, problem))


def components(split: CriterionParts, chosen: np.ndarray) -> CriterionParts:
    """The parts as functions of some of d only."""
    if len(chosen) == split.logdet.first.shape[0]:
        return split
    some = [
        Jet(jet.value, jet.first[chosen], jet.second[chosen][:, chosen]) for jet in (split.logdet, split.r2)
    ]
    return CriterionParts(some[0], some[1], split.fit)


def start_floor(split: CriterionParts, problem: Problem) -> Array:
    """Least starting variances (m,): half of σ² over the rows of a group, at most `START_FLOOR`.

    At unit relative variances tr(PV) is about the number of groups.
    """
    share = 0.5 * split.logdet.first / problem.n
    return jnp.clip(share, 1e-6, START_FLOOR)


def moments(split: CriterionParts, nu: Array, d0: Array, least: float = 1e-3) -> Array:
    """Relative components d (m,) by MIVQUE at d0; they need not be positive definite.

    Parameters
    ----------
    least : of σ², relative to the mean square at d0.
    """
    sigma2, components = mivque(split, nu, d0)
    return components / jnp.maximum(sigma2, least * split.r2.value / nu)


def moments_beside(split: CriterionParts, s: Array, d0: Array) -> Array:
    """Relative components d (m,) by the equations of `mivque` where σ² = s is known."""
    if not len(d0):
        return d0
    t, m_ab = split.logdet.first, -split.logdet.second
    _, inverse = sweep(m_ab, 1e-10)
    return inverse @ (-split.r2.first / s - t + m_ab @ d0)


def mivque(split: CriterionParts, nu: Array, d0: Array) -> tuple[Array, Array]:
    """Minimum-norm quadratic unbiased estimates at the prior d0 (m,): σ² and the components Σ (m,).

    Under normality they have minimum variance if d0 is right (MIVQUE).

    With P the GLS residual operator at d0, t_a = tr(PV_a) and M_ab = tr(PV_aPV_b), they solve
    (Rao 1971, doi:10.1016/0047-259X(71)90001-7)

        −∂_a r² = σ²(t_a − Σ_c d0_c M_ac) + Σ_c Σ_c M_ac,     r² = σ²(ν − Σ_c d0_c t_c) + Σ_c Σ_c t_c.
    """
    t, m_ab = split.logdet.first, -split.logdet.second
    md = m_ab @ d0
    corner = nu - 2.0 * (d0 @ t) + d0 @ md
    q = -split.r2.first
    # symmetric form: the residual equation less d⁰ times the others
    matrix = jnp.block([[corner[None, None], (t - md)[None, :]], [(t - md)[:, None], m_ab]])
    rhs = jnp.concatenate([(split.r2.value - d0 @ q)[None], q])
    _, inverse = sweep(matrix, 1e-10)
    solution = inverse @ rhs
    return solution[0], solution[1:]
