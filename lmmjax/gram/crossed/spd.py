"""Inverses of large positive definite matrices."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.linalg as jsl

from lmmjax.arrays import Array, hold

LEAF = 160
"""Blocks up to this size are inverted by triangular solves; matrix products do the rest."""


def inverse_from_factor(factor: Array) -> Array:
    """(LLᵀ)⁻¹ for a lower triangular L (n, n).

    With L = [[A, 0], [B, C]] and M = BA⁻¹:  L⁻¹ = [[A⁻¹, 0], [−C⁻¹M, C⁻¹]] and

        (LLᵀ)⁻¹ = [[(AAᵀ)⁻¹ + MᵀK M, −MᵀK], [−KM, K]],     K = (CCᵀ)⁻¹.

    Half the operations of triangular solves with the identity, and nearly all of them in products.
    """
    return _halves(factor)[0]


def _halves(factor: Array) -> tuple[Array, Array]:
    """(LLᵀ)⁻¹ and L⁻¹."""
    n = factor.shape[0]
    if n <= LEAF:
        inverse = jsl.solve_triangular(factor, jnp.eye(n, dtype=factor.dtype), lower=True)
        return _turned(inverse) @ inverse, inverse
    h = n // 2
    top, upper = _halves(factor[:h, :h])
    k, lower = _halves(factor[h:, h:])
    m = factor[h:, :h] @ upper
    km = k @ m
    full = jnp.block([[top + _turned(m) @ km, -km.T], [-km, k]])
    return full, jnp.block([[upper, jnp.zeros((h, n - h), factor.dtype)], [-(lower @ m), lower]])


def _turned(a: Array) -> Array:
    """aᵀ as a matrix of its own: a product with a transposed operand takes twice as long on a CPU."""
    return hold(a.T)
