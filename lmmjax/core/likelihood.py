"""The likelihood, given log|H| and S = [X y]ᵀH⁻¹[X y]. Nothing here knows where they come from.

    β̂ = Sxx⁻¹ sxy,    r² = syy − sxyᵀβ̂,    ν = n − κp,    σ̂² = r²/ν,
    f = log|H| + κ log|Sxx| + ν(1 + log(2π r²/ν)),

with κ = 0 for maximum likelihood (f = −2ℓ) and κ = 1 for REML (f = −2ℓᴿ).
"""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, record, sweep
from lmmjax.gram import Gram


@record
class Profile:
    """The likelihood maximised over β: β̂ (p,), r², log|Sxx|, Sxx⁻¹ (p, p)."""

    beta: Array
    r2: Array
    logdet_xx: Array
    xx_inv: Array


def profile(gram: Gram) -> Profile:
    """Generalised least squares from the Gram."""
    if gram.xx.shape[0] == 0:
        return Profile(gram.xy, gram.yy, jnp.zeros_like(gram.yy), gram.xx)
    logdet_xx, xx_inv = sweep(gram.xx)
    beta = xx_inv @ gram.xy
    return Profile(beta, gram.yy - gram.xy @ beta, logdet_xx, xx_inv)


def profiled_deviance(gram: Gram, n: Array, reml: Array, known: Array | None = None) -> Array:
    """f with β, and σ² unless it is `known`, profiled out; `n` observations, `reml` is κ (0 or 1)."""
    fit = profile(gram)
    nu = n - reml * gram.xx.shape[0]
    logdet = gram.logdet + reml * fit.logdet_xx
    if known is not None:
        return logdet + nu * jnp.log(2.0 * jnp.pi * known) + fit.r2 / known
    return logdet + nu * (1.0 + jnp.log(2.0 * jnp.pi * fit.r2 / nu))


def deviance(gram: Gram, beta: Array, sigma2: Array, n: Array) -> Array:
    """−2ℓ(β, σ², θ) = n log 2πσ² + log|H| + (syy − 2βᵀsxy + βᵀSxxβ)/σ²."""
    quadratic = gram.yy - 2.0 * beta @ gram.xy + beta @ gram.xx @ beta
    return n * jnp.log(2.0 * jnp.pi * sigma2) + gram.logdet + quadratic / sigma2


def restricted_deviance(gram: Gram, sigma2: Array, n: Array) -> Array:
    """−2ℓᴿ(σ², θ) = (n − p) log 2πσ² + log|H| + log|Sxx| + r²/σ²."""
    fit = profile(gram)
    nu = n - gram.xx.shape[0]
    return nu * jnp.log(2.0 * jnp.pi * sigma2) + gram.logdet + fit.logdet_xx + fit.r2 / sigma2
