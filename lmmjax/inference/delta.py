"""The delta method: standard errors of smooth functions of the parameters, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from lmmjax.arrays import Array
from lmmjax.inference.open_directions import moving


def delta(
    fun: Callable, beta: Array, psi: Array, cov_beta: Array, unit: Array, cov_psi: Array, moves: Array
) -> tuple[Array, Array]:
    """Values (k,) of fun(beta, psi) and their covariance matrix (k, k): J diag(Φ, cov ψ̂) Jᵀ.

    β̂ and ψ̂ are taken as independent, which they are in the limit. Missing rows of cov_psi spoil the errors of
    values that depend on them, and no others. Pure: works under `jit` and `vmap`.

    Parameters
    ----------
    fun : of β (p,) and ψ (m + 1,), returns a scalar or a vector (k,).
    unit : (m + 1,) of ψ, in which cov_psi (m + 1, m + 1) is.
    moves : (m + 1, m) directions of ψ/unit that the data leave open, as columns. A value that changes along
        one is missing; of one that does not, any generalised inverse of the information gives the variance.
    """

    def flat(beta, psi):
        return jnp.ravel(jnp.asarray(fun(beta, psi), psi.dtype))

    by_beta, by_psi = jax.jacfwd(flat, argnums=(0, 1))(beta, psi)
    by_psi = by_psi * unit[None, :]
    known = ~jnp.isnan(jnp.diagonal(cov_psi))
    both = known[:, None] & known[None, :]
    cov = by_beta @ cov_beta @ by_beta.T + by_psi @ jnp.where(both, cov_psi, 0.0) @ by_psi.T
    # a derivative that is not finite, such as that of an sd at zero, spoils its value as well
    chance = jnp.any(moving(by_psi @ moves, jnp.abs(by_psi) @ jnp.abs(moves)), axis=1)
    lost = chance | jnp.any((by_psi != 0.0) & ~known[None, :], axis=1)
    value = jnp.where(chance, jnp.nan, flat(beta, psi))
    return value, jnp.where(lost[:, None] | lost[None, :], jnp.nan, cov)


def t_quantile(df: np.ndarray, level: float) -> np.ndarray:
    """The quantile of t that leaves (1 − level)/2 above, of the normal where df is infinite."""
    infinite = np.isinf(df)
    t = stdtrit(np.where(infinite, 1.0, df), 0.5 + level / 2)
    return np.where(infinite, ndtri(0.5 + level / 2), t)


def wald_limits(estimate: np.ndarray, se: np.ndarray, level: float, scale: str = "identity"):
    """Limits t ± z·se, on the logit scale for shares with scale="logit"; elementwise."""
    z = ndtri(0.5 + level / 2)
    if scale == "identity":
        return estimate - z * se, estimate + z * se
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, half = logit(estimate), z * se / (estimate * (1.0 - estimate))
    return expit(centre - half), expit(centre + half)
