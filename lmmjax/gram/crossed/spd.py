"""Inverses of large positive definite matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np

from lmmjax.arrays import Array, hold, sweep

LEAF = 160
"""Blocks up to this size are inverted by triangular solves; matrix products do the rest."""


SWEPT = 12
"""Columns swept at a time; matrix products do the rest."""


def inverse_by_products(a: Array) -> tuple[Array, Array]:
    """log|A| and A⁻¹ for a positive definite A (n, n), without LAPACK, which is not for mapped loops.

    The sweep of `sweep` by blocks: with the pivot block P = A_kk,

        A ← A − A_·kP⁻¹A_k·,   then   A_k· ← P⁻¹A_k·,   A_·k ← its transpose,   A_kk ← −P⁻¹.
    """
    n = a.shape[0]
    blocks = -(-n // SWEPT)
    if blocks <= 1:
        return sweep(a)
    b = -(-n // blocks)
    # what is added to fill the last block is an identity of its own
    extra = blocks * b - n
    a = jnp.pad(a, (0, extra)) + jnp.diag(jnp.asarray(np.arange(n + extra) >= n, a.dtype))

    def eliminate(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, logdet = carry
        first, zero = k * b, jnp.zeros_like(k)
        rows = jax.lax.dynamic_slice_in_dim(a, first, b)
        own, inverse = sweep(jax.lax.dynamic_slice_in_dim(rows, first, b, 1))
        scaled = inverse @ rows
        a = a - rows.T @ scaled
        for part, at in ((scaled, (first, zero)), (scaled.T, (zero, first)), (-inverse, (first, first))):
            a = jax.lax.dynamic_update_slice(a, part, at)
        return a, logdet + own

    a, logdet = jax.lax.fori_loop(0, blocks, eliminate, (a, jnp.zeros((), a.dtype)))
    return logdet, -a[:n, :n]


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
