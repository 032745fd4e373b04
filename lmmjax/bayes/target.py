"""The posterior of the variance parameters, β and b integrated out, from log|H| and WᵀH⁻¹W alone.

With S = [X y]ᵀH⁻¹[X y], β ~ N(m, P⁻¹), P diagonal and zero where the prior is flat, F = Sxx/σ² and A = F + P,

    −2 log p(y | σ, D) = n log 2πσ² + log|H| + log|A/2π| − log|P/2π|₊ + r²/σ² + (β̂ − m)ᵀ F A⁻¹ P (β̂ − m),
    β | y, σ, D ~ N(A⁻¹(Fβ̂ + Pm), A⁻¹),

|·|₊ being the product of the positive entries. With P = 0 it is the restricted likelihood.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, ldl, quick_jit, record, sweep
from lmmjax.bayes.coordinates import PriorSet, components, log_prior, natural
from lmmjax.bayes.priors import BetaPrior
from lmmjax.core import Problem
from lmmjax.core.likelihood import profile
from lmmjax.core.problem import internal_parameters, log_x_factor
from lmmjax.design import solve_upper


@record
class Coefficients:
    """Posterior of β̃ in internal coordinates, β = β₀ + sR⁻¹β̃: mean (p,) and precision A (p, p)."""

    mean: Array
    precision: Array


# a sampler evaluates it in many places: jit, so that it is traced once
@jax.jit
def log_posterior(u: Array, problem: Problem, priors: PriorSet) -> Array:
    """log p(y | u) + log p(u) for u (k,) as in `coordinates`; constant terms kept where priors are proper."""
    parts, jacobian = components(u, problem.structure, priors)
    value = log_marginal(problem, natural(parts, problem.structure), priors.beta)
    return value + log_prior(parts, priors) + jacobian


@quick_jit
def densities(u: Array, problem: Problem, priors: PriorSet) -> tuple[Array, Array]:
    """`log_posterior` (N,) of u (N, k), and its gradients (N, k)."""
    return jax.lax.map(lambda row: jax.value_and_grad(log_posterior)(row, problem, priors), u)


def log_marginal(problem: Problem, psi: Array, beta: BetaPrior) -> Array:
    """log p(y | ψ), β and b integrated out; ψ (m + 1,) in the order of `varcorr()`, σ² last."""
    return marginal(problem, psi, beta)[0]


def marginal(problem: Problem, psi: Array, beta: BetaPrior) -> tuple[Array, Coefficients]:
    """log p(y | ψ), and the posterior of β given ψ."""
    basis, scale = problem.basis, problem.origin.scale
    gram = problem.shared.gram(internal_parameters(problem, psi), problem.response)
    fit, sigma2 = profile(gram), psi[-1] / scale**2
    p = gram.xx.shape[0]
    constants = problem.n * jnp.log(2.0 * jnp.pi * sigma2) + gram.logdet + fit.r2 / sigma2
    # from density of ỹ to that of y
    jacobian = -problem.n * jnp.log(scale)
    if p == 0:
        return jacobian - 0.5 * constants, Coefficients(gram.xy, gram.xx)
    # prior in internal coordinates: precision s² R⁻ᵀPR⁻¹, mean R(m − β₀)/s
    back = solve_upper(basis.x_factor, jnp.eye(p, dtype=psi.dtype)) * scale
    prior = back.T @ (beta.precision[:, None] * back)
    mean = basis.x_factor @ (beta.mean - problem.origin.beta) / scale
    information = gram.xx / sigma2
    precision = information + prior
    logdet, inverse = sweep(precision)
    away = fit.beta - mean
    shrunk = prior @ away
    quadratic = (information @ away) @ (inverse @ shrunk)
    flat = beta.precision <= 0
    log_prior = jnp.sum(jnp.where(flat, 0.0, jnp.log(jnp.where(flat, 1.0, beta.precision) / (2.0 * np.pi))))
    value = constants + logdet - p * np.log(2.0 * np.pi) - log_prior + quadratic
    jacobian = jacobian + p * jnp.log(scale) - log_x_factor(basis)
    # β̂ less its way to the prior mean
    return jacobian - 0.5 * value, Coefficients(fit.beta - inverse @ shrunk, precision)


def draw_beta(key: Array, problem: Problem, psi: Array, beta: BetaPrior) -> Array:
    """An exact draw of β (p,) given ψ (m + 1,) and y, b integrated out."""
    _, given = marginal(problem, psi, beta)
    if given.mean.shape[0] == 0:
        return given.mean
    l_inv, pivots = ldl(given.precision)
    inner = given.mean + l_inv.T @ (jax.random.normal(key, pivots.shape, pivots.dtype) / jnp.sqrt(pivots))
    return problem.origin.beta + problem.origin.scale * solve_upper(problem.basis.x_factor, inner)
