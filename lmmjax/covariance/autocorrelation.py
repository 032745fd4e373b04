"""Autocorrelations and partial autocorrelations: any partial ones in (−1, 1) are valid.

Source: Barndorff-Nielsen & Schou (1973), doi:10.1016/0047-259X(73)90030-4, by the recursion of Durbin (1960),
doi:10.2307/1401322.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import UNROLL, Array, namespace


def from_partial(partial: Array) -> tuple[Array, Array]:
    """Autocorrelations at lags 1 … k, and autoregressive coefficients (k,), of partial ones (k,)."""
    if len(partial) > UNROLL and not isinstance(partial, np.ndarray):
        return _recursion(partial, False)
    phi: list = []
    rho: list = []
    left = 1.0
    for k in range(partial.shape[0]):
        p = partial[k]
        rho.append(p * left + sum(phi[j] * rho[k - 1 - j] for j in range(k)))
        phi = [phi[j] - p * phi[k - 1 - j] for j in range(k)] + [p]
        left = left * (1.0 - p * p)
    xp = namespace(partial)
    return (xp.stack(rho), xp.stack(phi)) if phi else (partial, partial)


def to_partial(rho: Array) -> Array:
    """Partial autocorrelations (k,) of autocorrelations at lags 1 … k."""
    if len(rho) > UNROLL and not isinstance(rho, np.ndarray):
        return _recursion(rho, True)[0]
    phi: list = []
    out: list = []
    left = 1.0
    for k in range(rho.shape[0]):
        p = (rho[k] - sum(phi[j] * rho[k - 1 - j] for j in range(k))) / left
        out.append(p)
        phi = [phi[j] - p * phi[k - 1 - j] for j in range(k)] + [p]
        left = left * (1.0 - p * p)
    return namespace(rho).stack(out) if out else rho


def partial_of_coefficients(phi: Array) -> Array:
    """Partial autocorrelations (k,) of autoregressive coefficients (k,): the recursion backwards."""
    current = [phi[j] for j in range(phi.shape[0])]
    out: list = []
    while current:
        p = current[-1]
        out.insert(0, p)
        k = len(current) - 1
        current = [(current[j] + p * current[k - 1 - j]) / (1.0 - p * p) for j in range(k)]
    return namespace(phi).stack(out) if out else phi


def _recursion(given: Array, inverse: bool) -> tuple[Array, Array]:
    """`from_partial`, or the partial ones by `to_partial`, with the coefficients: as a loop over lags."""
    size = given.shape[0]

    def step(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        out, phi, left = carry
        # φ_{k−1−j} and ρ_{k−1−j} by j; φ_j = 0 from j = k on
        turned = jnp.roll(phi[::-1], k)
        rho = given if inverse else out
        known = phi @ jnp.roll(rho[::-1], k)
        p = (given[k] - known) / left if inverse else given[k]
        out = out.at[k].set(p if inverse else p * left + known)
        return out, (phi - p * turned).at[k].set(p), left * (1.0 - p * p)

    start = jnp.zeros_like(given), jnp.zeros_like(given), jnp.ones((), given.dtype)
    out, phi, _ = jax.lax.fori_loop(0, size, step, start)
    return out, phi
