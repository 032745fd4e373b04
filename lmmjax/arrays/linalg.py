"""Unrolled algebra for small symmetric blocks.

A block of size q is an array of shape (q, q, ...): the small axes lead, so that every elementary
operation is one vector operation along the trailing axes (groups, patterns). Nothing here calls
LAPACK: batched LAPACK calls inside a mapped loop are slow and can hang on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays.once import traced_once
from lmmjax.arrays.types import Array, namespace

UNROLL = 12
"""Largest block whose elimination is written out; larger ones loop over columns or such blocks."""

BRIEF = 4
"""The same where a loop is as fast as what is written out: in programs that are not mapped over responses."""


def _pivot_step(a: Array, j: Array | int, good: Array, pivot: Array) -> Array:
    """Sweep column j of a (q, q, ...) where its pivot is `good`; it becomes zero there where not."""
    q, xp = a.shape[0], namespace(a)
    # of a column that is known, a constant: nothing to trace
    hot = ((np if isinstance(j, int) else xp).arange(q) == j).reshape((q,) + (1,) * (a.ndim - 2))
    row = a[j]
    inverse = xp.where(good, 1.0 / xp.where(good, pivot, 1.0), 0.0).astype(a.dtype)
    inverse = xp.expand_dims(inverse, 0)
    scaled = row * inverse
    cleared = a - xp.expand_dims(scaled, 1) * xp.expand_dims(row, 0)
    edge = xp.where(hot, -inverse, scaled)
    inner = xp.where(hot[None, :], xp.expand_dims(edge, 1), cleared)
    return xp.where(hot[:, None], xp.expand_dims(edge, 0), inner)


def sweep(a: Array, rtol: float = 0.0, unroll: int = UNROLL) -> tuple[Array, Array]:
    """log|A| and A⁻¹ of symmetric positive definite blocks by Gauss–Jordan sweeps.

    Parameters
    ----------
    a : (q, q, ...) blocks.
    rtol : pivots not above `rtol` times their diagonal entry are skipped, which gives a
        generalised inverse and the log of the product of the other pivots.
    unroll : largest q that is written out.

    Returns
    -------
    logdet : (...), inverse : (q, q, ...).

    Source: Goodnight (1979), doi:10.1080/00031305.1979.10482685.
    """
    return _sweep(a, rtol=rtol, unroll=unroll, limit=UNROLL)


@traced_once("rtol", "unroll", "limit")
def _sweep(a: Array, *, rtol: float, unroll: int, limit: int) -> tuple[Array, Array]:
    q, xp = a.shape[0], namespace(a)
    if q > limit and a.ndim == 2 and rtol == 0.0:
        found = _inverse_np(a) if isinstance(a, np.ndarray) else inverse_by_products(a, BRIEF)
        if found is not None:
            return found
    floor = rtol * diagonal(a)

    def step(j, a):
        pivot = a[j, j] if isinstance(j, int) else a[j][j]
        good = pivot > floor[j]
        return _pivot_step(a, j, good, pivot), xp.where(good, pivot, 1.0)

    if q <= unroll or xp is np:
        logdet = xp.zeros_like(a[0, 0])
        for j in range(q):
            a, pivot = step(j, a)
            logdet = logdet + xp.log(pivot)
        return logdet, -a

    def body(j, carry):
        a, logdet = carry
        a, pivot = step(j, a)
        return a, logdet + jnp.log(pivot)

    a, logdet = jax.lax.fori_loop(0, q, body, (a, jnp.zeros_like(a[0, 0])))
    return logdet, -a


def _inverse_np(a: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """log|A| and A⁻¹; None if A is not positive definite."""
    try:
        factor = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return None
    half = np.linalg.inv(factor)
    return 2.0 * np.log(np.diagonal(factor)).sum(), half.T @ half


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def inverse_by_products(a: Array, unroll: int = UNROLL) -> tuple[Array, Array]:
    """log|A| and A⁻¹ for a positive definite A (n, n), without LAPACK, which is not for mapped loops.

    The sweep of `sweep` by blocks of at most `UNROLL` columns: with the pivot block P = A_kk,

        A ← A − A_·kP⁻¹A_k·,   then   A_k· ← P⁻¹A_k·,   A_·k ← its transpose,   A_kk ← −P⁻¹.

    Blocks above `unroll` loop over their columns.
    """
    n = a.shape[0]
    if n <= UNROLL:
        return sweep(a, 0.0, unroll)
    a, blocks, b = _padded(a)

    def eliminate(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, logdet = carry
        first, zero = k * b, jnp.zeros_like(k)
        rows = jax.lax.dynamic_slice_in_dim(a, first, b)
        own, inverse = sweep(jax.lax.dynamic_slice_in_dim(rows, first, b, 1), 0.0, unroll)
        scaled = inverse @ rows
        a = a - rows.T @ scaled
        for part, at in ((scaled, (first, zero)), (scaled.T, (zero, first)), (-inverse, (first, first))):
            a = jax.lax.dynamic_update_slice(a, part, at)
        return a, logdet + own

    a, logdet = jax.lax.fori_loop(0, blocks, eliminate, (a, jnp.zeros((), a.dtype)))
    return logdet, -a[:n, :n]


@inverse_by_products.defjvp
def _inverse_jvp(unroll: int, primals: tuple, tangents: tuple) -> tuple:
    """∂log|A| = tr(A⁻¹∂A), ∂A⁻¹ = −A⁻¹∂A A⁻¹, whose programs are short, forward and backward."""
    logdet, inverse = inverse_by_products(*primals, unroll)
    moved = inverse @ tangents[0]
    return (logdet, inverse), (jnp.trace(moved), -(moved @ inverse))


def eliminate(a: Array, least: Array) -> tuple[Array, Array]:
    """The tableau (m, m) and pivots (m,) of a symmetric A (m, m), any signature, swept where |pivot| > least.

    With S the swept columns and K the others the tableau has −A_SS⁻¹ and A_SS⁻¹A_SK: e_k − A_SS⁻¹A_Sk is a
    null vector of A for k in K. `least` is (m,).
    """
    m = a.shape[0]

    def step(j, a):
        pivot = a[j][j]
        good = jnp.abs(pivot) > least[j]
        # a column that is skipped keeps its entries in those that are not
        return jnp.where(good, _pivot_step(a, j, good, pivot), a), pivot

    if m <= UNROLL:
        pivots = []
        for j in range(m):
            a, pivot = step(j, a)
            pivots.append(pivot)
        return a, jnp.stack(pivots)

    def body(j, carry):
        a, pivots = carry
        a, pivot = step(j, a)
        return a, jnp.where(jnp.arange(m) == j, pivot, pivots)

    return jax.lax.fori_loop(0, m, body, (a, jnp.zeros_like(a[0])))


def hold(a: Array) -> Array:
    """a, marked as worth keeping: unrolled code computes it once rather than for each of its users."""
    return a if isinstance(a, np.ndarray) else jax.lax.optimization_barrier(a)


def matmul(a: Array, b: Array) -> Array:
    """Product of blocks (q, r, ...) and (r, s, ...), written out in the order of r where r is small."""
    if a.shape[1] > UNROLL:
        return namespace(a, b).einsum("qr...,rs...->qs...", a, b)
    xp = namespace(a, b)
    out = xp.expand_dims(a[:, 0], 1) * xp.expand_dims(b[0], 0)
    for k in range(1, a.shape[1]):
        out = out + xp.expand_dims(a[:, k], 1) * xp.expand_dims(b[k], 0)
    return out


def side_by_side(a: Array, others: list[Array]) -> list[Array]:
    """Products of a (n, r) with matrices (r, s) of one shape, as one: small ones cost a call each."""
    if not others:
        return []
    product, s = a @ jnp.concatenate(others, axis=1), others[0].shape[1]
    return [product[:, k * s : (k + 1) * s] for k in range(len(others))]


def transpose(a: Array) -> Array:
    """Transpose of blocks (q, r, ...)."""
    return namespace(a).swapaxes(a, 0, 1)


def ldl(a: Array) -> tuple[Array, Array]:
    """Inverse unit factor and pivots of A = L diag(d) Lᵀ, any signature.

    Pivots within rounding of zero are replaced by a tiny positive number, so that a direction
    without curvature stays usable.

    Parameters
    ----------
    a : (m, m) symmetric.

    Returns
    -------
    l_inv : (m, m) unit lower triangular, d : (m,).
    """
    return _factored(a, limit=UNROLL)


@traced_once("limit")
def _factored(a: Array, *, limit: int) -> tuple[Array, Array]:
    scale = jnp.max(jnp.abs(diagonal(a)))
    tiny = jnp.maximum(scale * 8 * jnp.finfo(a.dtype).eps, jnp.finfo(a.dtype).tiny * 1e8)
    return _ldl(a, tiny) if a.shape[0] <= limit else _ldl_by_blocks(a, tiny)


def _ldl(a: Array, tiny: Array) -> tuple[Array, Array]:
    m = a.shape[0]
    l_inv = jnp.eye(m, dtype=a.dtype)
    pivots = []
    for j in range(m):
        pivot = jnp.where(jnp.abs(a[j, j]) < tiny, tiny, a[j, j])
        pivots.append(pivot)
        below = (np.arange(m) > j).astype(a.dtype)
        column = jnp.expand_dims(below * a[:, j] / pivot, 1)
        a = a - column * jnp.expand_dims(a[j], 0)
        l_inv = l_inv - column * jnp.expand_dims(l_inv[j], 0)
    return l_inv, jnp.stack(pivots)


def _ldl_by_blocks(a: Array, tiny: Array) -> tuple[Array, Array]:
    """`_ldl` by blocks: with A_kk = LDLᵀ the rows below lose (A_·kL⁻ᵀD⁻¹)(L⁻¹A_k·), and of L⁻¹ likewise."""
    m = a.shape[0]
    a, blocks, b = _padded(a)
    places = np.arange(len(a))

    def eliminate(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        a, l_inv, pivots = carry
        first = k * b
        rows = jax.lax.dynamic_slice_in_dim(a, first, b)
        inner, own = _ldl(jax.lax.dynamic_slice_in_dim(rows, first, b, 1), tiny)
        half = inner @ rows
        share = jnp.where((places >= first + b)[None], half / own[:, None], 0.0).T
        mine = inner @ jax.lax.dynamic_slice_in_dim(l_inv, first, b)
        l_inv = jax.lax.dynamic_update_slice_in_dim(l_inv, mine, first, 0) - share @ mine
        return a - share @ half, l_inv, jax.lax.dynamic_update_slice_in_dim(pivots, own, first, 0)

    start = a, jnp.eye(len(a), dtype=a.dtype), jnp.ones(len(a), a.dtype)
    _, l_inv, pivots = jax.lax.fori_loop(0, blocks, eliminate, start)
    return l_inv[:m, :m], pivots[:m]


def _padded(a: Array) -> tuple[Array, int, int]:
    """A (n, n) filled up with an identity of its own, to a number of blocks of b ≤ `UNROLL` columns."""
    n = a.shape[0]
    blocks = -(-n // UNROLL)
    b = -(-n // blocks)
    extra = blocks * b - n
    return jnp.pad(a, (0, extra)) + jnp.diag(jnp.asarray(np.arange(n + extra) >= n, a.dtype)), blocks, b


def psd_cholesky(a: Array, rtol: float, unroll: int = UNROLL) -> Array:
    """Lower factor (q, q) of a positive semi-definite a; pivots not above rtol·a_jj are set to zero."""
    return _psd_cholesky(a, rtol=rtol, unroll=unroll)


@traced_once("rtol", "unroll")
def _psd_cholesky(a: Array, *, rtol: float, unroll: int) -> Array:
    q, xp = a.shape[0], namespace(a)
    floor = rtol * diagonal(a) if q > unroll else [rtol * a[j, j] for j in range(q)]

    def step(j, a):
        good = a[j, j] > floor[j]
        root = xp.sqrt(xp.where(good, a[j, j], 1.0))
        places = np.arange(q) if isinstance(j, int) else jnp.arange(q)
        keep = xp.asarray(places >= j, dtype=a.dtype)
        column = xp.where(good, keep * a[:, j] / root, 0.0).astype(a.dtype)
        return column, a - column[:, None] * column[None, :]

    if q > unroll and xp is not np:
        return _columns(step, a)
    columns = []
    for j in range(q):
        column, a = step(j, a)
        columns.append(column)
    return xp.stack(columns, axis=1)


def _columns(step: Callable[[Array, Array], tuple[Array, Array]], a: Array) -> Array:
    """The columns (q, q) of a factorisation whose step j gives one and what is left, in a loop."""
    q = a.shape[0]

    def body(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        column, left = step(j, carry[1])
        return jax.lax.dynamic_update_slice_in_dim(carry[0], column[None], j, 0), left

    return jax.lax.fori_loop(0, q, body, (jnp.zeros_like(a), a))[0].T


def block_diagonal(blocks: list[Array]) -> Array:
    """Square blocks along the diagonal of a matrix of zeros."""
    xp, total = namespace(*blocks), sum(len(block) for block in blocks)
    rows, first = [], 0
    for block in blocks:
        rows.append(xp.pad(block, ((0, 0), (first, total - first - len(block)))))
        first += len(block)
    return xp.concatenate(rows)


def diagonal(a: Array) -> Array:
    """The diagonal (q, ...) of blocks (q, q, ...)."""
    xp = namespace(a)
    if a.shape[0] > UNROLL:
        return xp.moveaxis(xp.diagonal(a, axis1=0, axis2=1), -1, 0)
    return xp.stack([a[j, j] for j in range(a.shape[0])]) if a.shape[0] else a.reshape(0)


def pivot_order(a: Array) -> Array:
    """Permutation t (q, q) for which tᵀat has its pivots in decreasing order."""
    q = a.shape[0]

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        a, done = carry
        left = jnp.where(done > 0, -jnp.inf, diagonal(a))
        hot = (jnp.arange(q) == jnp.argmax(left)).astype(a.dtype)
        column = a @ hot
        pivot = column @ hot
        return (a - column[:, None] * column[None, :] / jnp.where(pivot > 0, pivot, 1.0), done + hot), hot

    carry = a, jnp.zeros(q, a.dtype)
    if q > UNROLL:
        return jax.lax.scan(step, carry, None, length=q)[1].T
    columns = []
    for _ in range(q):
        carry, hot = step(carry, None)
        columns.append(hot)
    return jnp.stack(columns, axis=1)
