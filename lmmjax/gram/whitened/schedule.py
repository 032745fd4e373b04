"""Groups that keep to a schedule: products by pattern of occasions, and the algebra of their derivatives.

The distinct rows of the residual structure are its occasions (visits of a trial), R is their covariance
(U, U), and a group of rows sees some of them: its pattern p, with c_p = R_p⁻¹ in the places of p, else zero.
An orthogonal transformation among the groups of a pattern leaves the likelihood as it is; it gathers X in
few of them (`compress`). With z = c_pw for the rows w (U, p + 1) of those, Y_p = Σ yyᵀ of the others, and a
direction E of R,

    S = Σ wᵀz + Σ c_p·Y_p,     ∂S = −Σ zᵀEz − Σ c_pEc_p·Y_p,     ∂log|R| = Σ n_p tr(c_pE),
    uᵀ∂²S u = 2Σ tr(E c_p E′F_p),   ∂²log|R| = −Σ n_p tr(E c_p E′c_p),   F_p = Σ zu(zu)ᵀ + u_y² c_pY_pc_p.

Nothing here sees the groups. Levels of factors that are constant within groups are sheets, with an R each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace, record, value_and_slopes
from lmmjax.gram.whitened.blocks import Blocks, Products, Tangent, WhitenedResponse, covariance_of
from lmmjax.gram.whitened.patterns import SWEPT, Patterns, inverse
from lmmjax.residual import ResidualStructure

LARGEST = 4_000_000
"""Most numbers of U⁴ a sheet."""


@record
class Solved:
    """At one R: log|R|, c (L, K, U, U), z (L, N, U, p + 1) = cw, and S = WᵀR⁻¹W (p + 1, p + 1)."""

    logdet: Array
    c: Array
    z: Array
    s: Array


@record
class ScheduleProducts(Products):
    """L sheets of K patterns of U occasions, and N rows of X; what is padded counts nothing.

    Attributes
    ----------
    occasions : of every sheet: place (L, U) and so on.
    mask : (L, K, U) which occasions are seen; count : (L, K) groups.
    x : (L, N, U, p) rows of X; pattern : (L, N) of each.
    """

    occasions: Patterns
    mask: Array
    count: Array
    x: Array
    pattern: Array

    @property
    def direct(self) -> bool:
        return self.mask.shape[-1] <= SWEPT

    def covariance(self, structure: ResidualStructure | Tangent, r: Array) -> Array:
        """R (L, U, U)."""
        return covariance_of(self.occasions, structure, r)

    def with_slopes(self, structure: ResidualStructure | Tangent, r: Array) -> tuple[Array, Array]:
        """R (L, U, U) and ∂R (k, L, U, U) in r (k,)."""
        value, first = value_and_slopes(lambda r: self.covariance(structure, r), r)
        return value, jnp.moveaxis(first, -1, 0)

    def solve(self, matrix: Array, response: WhitenedResponse) -> Solved:
        """Everything at R (L, U, U)."""
        both = jnp.asarray(self.mask[..., :, None] & self.mask[..., None, :])
        size = matrix.shape[-1]
        own = jnp.where(both, matrix[:, None], jnp.eye(size, dtype=matrix.dtype)[None, None])
        logdet, c = inverse(own.reshape(-1, size, size))
        c = jnp.where(both, c.reshape(both.shape), 0.0)
        w = jnp.concatenate([jnp.asarray(self.x), response.xy[..., None]], axis=-1)
        z = of_rows(c, self.pattern) @ w
        s = w.reshape(-1, w.shape[-1]).T @ z.reshape(-1, z.shape[-1])
        total = jnp.sum(self.count * logdet.reshape(self.count.shape))
        return Solved(total, c, z, s.at[-1, -1].add(jnp.sum(c * response.yy)))

    def operations(self, k: int) -> float:
        """Of an evaluation with the derivatives of the criterion in k parameters."""
        sheets, count, size = self.mask.shape
        return operations(k, self.x.shape[-1] + 1, sheets, sheets * count, size, sheets * self.x.shape[1])

    def blocks(self, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse) -> Blocks:
        there = self.solve(self.covariance(structure, r), response)
        s = there.s[..., None]
        return Blocks(there.logdet, s[:-1, :-1], s[:-1, -1], s[-1, -1])


def operations(k: int, width: int, sheets: int, patterns: int, size: int, rows: int) -> float:
    """Of an evaluation with derivatives in k parameters, `width` columns of [X y], `rows` in all."""
    solved = 2.0 * patterns * size**3 + 2.0 * rows * width * size**2
    if k <= width:
        first = 2.0 * k * rows * width * (size**2 + size * width)
    else:
        first = 2.0 * (rows + k * sheets) * (size * width) ** 2
    by_directions = 4.0 * k * patterns * size**3
    entries = float(patterns + k) * size**4 if size**4 <= LARGEST else np.inf
    return solved + first + min(by_directions, 2.0 * entries)


def of_rows(by_pattern: Array, pattern: Array) -> Array:
    """(L, N, ...) of each row from (L, K, ...)."""
    return by_pattern[np.arange(len(pattern), dtype=np.int32)[:, None], pattern]


def by_pattern(left: Array, right: Array, pattern: Array, count: int) -> Array:
    """Σ left rightᵀ (L, K, U, U) over the rows (L, N, U, a) of a pattern."""
    xp = namespace(left, right)
    rows = left @ xp.swapaxes(right, -1, -2)
    place = (pattern + count * np.arange(len(pattern), dtype=np.int32)[:, None]).ravel()
    flat, total = rows.reshape(-1, *rows.shape[2:]), len(pattern) * count
    if xp is jnp:
        out = jax.ops.segment_sum(flat, place, total)
    else:
        out = np.zeros((total, *rows.shape[2:]))
        np.add.at(out, place, flat)
    return out.reshape(len(pattern), count, *rows.shape[2:])


def between(e: Array, z: Array) -> Array:
    """Σ zᵀEz (k, a, a) over rows z (L, N, U, a), for directions E (k, L, U, U)."""
    k, sheets, size, _ = e.shape
    width = z.shape[-1]
    if k <= width:
        flat = z.reshape(-1, width)
        return jax.lax.map(lambda one: flat.T @ (one[:, None] @ z).reshape(-1, width), e)
    rows = z.reshape(sheets, -1, size * width)
    pairs = (jnp.swapaxes(rows, 1, 2) @ rows).reshape(sheets, size, width, size, width)
    pairs = jnp.swapaxes(pairs, 2, 3).reshape(-1, width * width)
    return (e.reshape(k, -1) @ pairs).reshape(k, width, width)


def twice(e: Array, c: Array, f: Array) -> Array:
    """Σ tr(E c E′F) (k, k) over patterns c, F (L, K, U, U), for directions E, E′ (k, L, U, U)."""
    xp = namespace(e, c, f)
    k, sheets, size, _ = e.shape
    count = c.shape[1]
    by_entries, by_directions = (count + k) * size**4, 2 * k * count * size**3 + k * k * count * size**2
    if by_directions < by_entries or size**4 > LARGEST:
        left, right = e[:, :, None] @ c[None], e[:, :, None] @ f[None]
        return left.reshape(k, -1) @ xp.swapaxes(right, -1, -2).reshape(k, -1).T
    # Σ c_kl F_mj by (kl, mj), then by (jk, lm)
    table = xp.swapaxes(c.reshape(sheets, count, -1), 1, 2) @ f.reshape(sheets, count, -1)
    table = xp.transpose(table.reshape(sheets, size, size, size, size), (0, 4, 1, 2, 3))
    flat = xp.swapaxes(e.reshape(k, sheets, -1), 0, 1)
    half = flat @ table.reshape(sheets, size * size, -1)
    return xp.sum(half @ xp.swapaxes(flat, 1, 2), axis=0)


def twice_between(e: Array, c: Array, z: Array, pattern: Array) -> Array:
    """Σ zᵀ(E c E′ + E′c E)z (k, k, a, a) over rows z (L, N, U, a) of patterns c (L, K, U, U)."""
    k, width = len(e), z.shape[-1]
    moved = e[:, :, None] @ z[None]
    solved = of_rows(c, pattern)[None] @ moved

    def flat(a: Array) -> Array:
        return jnp.moveaxis(a, 0, -2).reshape(-1, k * width)

    # a product of columns (direction, column)
    one = (flat(moved).T @ flat(solved)).reshape(k, width, k, width)
    one = jnp.swapaxes(one, 1, 2)
    return one + jnp.swapaxes(one, 0, 1)
