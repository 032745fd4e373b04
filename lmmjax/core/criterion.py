"""The profiled criterion with its gradient and Hessian, from the derivatives of the Gram.

With residual direction u = [−β̂; 1], indices a, b for derivatives in d, and v_a = ∂_a sxy − ∂_aSxx β̂:

    ∂_a r²  = uᵀ(∂_aS)u,             ∂_ab r² = uᵀ(∂_abS)u − 2 v_aᵀSxx⁻¹v_b,
    ∂_a log|Sxx| = tr(Sxx⁻¹∂_aSxx),   ∂_ab log|Sxx| = tr(Sxx⁻¹∂_abSxx) − tr(Sxx⁻¹∂_aSxx Sxx⁻¹∂_bSxx).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, derivatives, hold, record, traced_once
from lmmjax.core.likelihood import Profile, profile
from lmmjax.gram import CrossProducts, GramJet, ResponseProducts


@record
class Jet:
    """A scalar with its gradient (m,) and Hessian (m, m)."""

    value: Array
    first: Array
    second: Array


@record
class CriterionParts:
    """log|H| + κ log|Sxx| and r² as functions of d, and the generalised least squares at d."""

    logdet: Jet
    r2: Jet
    fit: Profile


def no_parts(m: int, p: int, dtype: Any) -> CriterionParts:
    """Parts that say nothing, for m parameters and p fixed effects."""
    scalar = jnp.zeros((), dtype)
    jet = Jet(scalar, jnp.zeros(m, dtype), jnp.zeros((m, m), dtype))
    return CriterionParts(jet, jet, Profile(jnp.zeros(p, dtype), scalar, scalar, jnp.zeros((p, p), dtype)))


SHORTCUTS: dict[type, Callable] = {}
"""Per type of cross-products, a shorter way to the parts than by its jet; None where it does not apply."""

SMOOTH: dict[type, Callable] = {}
"""The same, where it can be differentiated."""


CUBE = 128
"""Parameters up to which the second derivatives (m, m, m) of d in θ are formed."""


def evaluate(shared: CrossProducts, d: Array, response: ResponseProducts, reml: Array) -> CriterionParts:
    """The parts of the criterion at d (m,), by a registered shortcut or from the backend's jet."""
    shortcut = SHORTCUTS.get(type(shared))
    own = shortcut(shared, d, response, reml) if shortcut else None
    return smooth(shared, d, response, reml) if own is None else own


def smooth(
    shared: CrossProducts, d: Array, response: ResponseProducts, reml: Array, *, keep_all: bool = True
) -> CriterionParts:
    """`evaluate` by what can be differentiated."""
    shortcut = SMOOTH.get(type(shared))
    own = shortcut(shared, d, response, reml) if shortcut else None
    return parts(shared.jet(d, response), reml, keep_all=keep_all) if own is None else own


@traced_once("keep_all")
def parts(jet: GramJet, reml: Array, *, keep_all: bool = True) -> CriterionParts:
    """The two parts of the criterion with their derivatives in d.

    `keep_all` keeps all of the jet, for unrolled code; without it the compiler drops what nobody uses.
    """
    keep = jax.lax.optimization_barrier if keep_all else lambda tree: tree
    jet = keep(jet)
    fit = keep(profile(jet.value))
    beta, inverse, dtype = fit.beta, fit.xx_inv, fit.r2.dtype
    first, second = jet.first, jet.second
    xb = first.xx @ beta
    v = first.xy - xb
    r2_first = first.yy - 2.0 * (first.xy @ beta) + xb @ beta
    r2_second = second.yy - 2.0 * (second.xy @ beta) + (second.xx @ beta) @ beta - 2.0 * v @ inverse @ v.T
    solved = inverse @ first.xx
    trace_first = jnp.sum(inverse[None] * first.xx, axis=(-2, -1))
    trace_second = jnp.sum(inverse[None, None] * second.xx, axis=(-2, -1))
    cross = jnp.sum(solved[:, None] * jnp.swapaxes(solved, -1, -2)[None], axis=(-2, -1))
    kappa = jnp.asarray(reml, dtype)
    logdet = Jet(
        jet.value.logdet + kappa * fit.logdet_xx,
        first.logdet + kappa * trace_first,
        second.logdet + kappa * (trace_second - cross),
    )
    return CriterionParts(logdet, Jet(fit.r2, r2_first, r2_second), fit)


@traced_once()
def criterion(split: CriterionParts, nu: Array, known: Array | None = None) -> Jet:
    """f with its derivatives in d: σ² profiled out, or `known`.

    f = log|H| + κ log|Sxx| + ν(1 + log(2π r²/ν)), or log|H| + κ log|Sxx| + ν log(2πσ²) + r²/σ².
    """
    r2, ld = split.r2, split.logdet
    if known is not None:
        value = ld.value + nu * jnp.log(2.0 * jnp.pi * known) + r2.value / known
        return Jet(value, ld.first + r2.first / known, ld.second + r2.second / known)
    slope = r2.first / r2.value
    value = ld.value + nu * (1.0 + jnp.log(2.0 * jnp.pi * r2.value / nu))
    second = ld.second + nu * (r2.second / r2.value - slope[:, None] * slope[None, :])
    return Jet(value, ld.first + nu * slope, second)


def chain(jet: Jet, entries: Callable[[Array], Array], theta: Array) -> Jet:
    """Derivatives in θ from those in d, through d = entries(θ)."""
    jet = jax.lax.optimization_barrier(jet)
    if len(theta) > CUBE:
        jacobian, bend = jax.jacfwd(entries)(theta), weighted_bend(entries, theta, jet.first)
    else:
        _, jacobian, bend = derivatives(entries, theta)
        bend = jnp.tensordot(jet.first, bend, axes=1)
    jacobian = hold(jacobian)
    return Jet(jet.value, jet.first @ jacobian, jacobian.T @ jet.second @ jacobian + bend)


def weighted_bend(entries: Callable[[Array], Array], theta: Array, weights: Array) -> Array:
    """Σ w_c ∂²d_c (m, m) in θ without the second derivatives of every d."""
    return jax.jacfwd(jax.grad(lambda t: weights @ entries(t)))(theta)
