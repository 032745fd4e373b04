"""The Gram of families of a few rows: inverses written out over all of them at once, or over their patterns.

H_f = I + Σ_c d_c V_cf,     log|H| = Σ_f log|H_f|,     WᵀH⁻¹W = Σ_f W_fᵀH_f⁻¹W_f.

Of families that have the same V_c only sums of products enter: with M_st = Σ_f W_fs W_ftᵀ of a pattern u,

    log|H| = Σ_u n_u log|H_u|,   ∂_c = Σ n_u tr(H⁻¹V_c),   ∂_cd = −Σ n_u tr(H⁻¹V_cH⁻¹V_d),
    S = Σ_u ⟨H⁻¹, M⟩,   ∂_cS = −⟨H⁻¹V_cH⁻¹, M⟩,   ∂_cdS = 2⟨H⁻¹V_cH⁻¹V_dH⁻¹, M⟩.

Axes (row, row, family): nothing is LAPACK's, so that responses can be mapped over.
"""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, diagonal, matmul, record, sweep
from lmmjax.gram.base import Gram, GramJet

MOST = 12
"""Rows of a family up to which it is small."""


@record
class SmallResponse:
    """Responses y (s, B, ...) of families, and √w (s, B, ...) of weights of their own, 0 if missing."""

    y: Array
    root: Array | None = None


@record
class PatternResponse:
    """Sums of products of responses by pattern, symmetric in rows.

    Attributes
    ----------
    xy : (p, s, s, U, ...); yy : (s, s, U, ...).
    count, xx : (U, ...), (p, p, s, s, U, ...) in the place of those of the design, of responses with missing
        values; else None.
    """

    xy: Array
    yy: Array
    count: Array | None = None
    xx: Array | None = None


@record
class Small:
    """B families of s rows, zeros where there are fewer: x (p, s, B), v (m, s, s, B) of ∂H/∂d."""

    x: Array
    v: Array

    @property
    def sizes(self) -> tuple[int, int]:
        """Inverses and their size."""
        return self.v.shape[3], self.v.shape[1]

    def gram(self, d: Array, response: SmallResponse) -> Gram:
        w, v = self._rows(response)
        logdet, inverse = _inverse(d, v)
        return Gram.of(jnp.sum(logdet), _sums(w, _applied(inverse, w)))

    def jet(self, d: Array, response: SmallResponse) -> GramJet:
        w, v = self._rows(response)
        logdet, inverse = _inverse(d, v)
        first, second, _ = _traces(inverse, v, 1.0)
        solved = _applied(inverse, w)
        moved = [_applied(own, solved) for own in v]
        turned = [_applied(inverse, own) for own in moved]
        half = jnp.stack([jnp.stack([_sums(a, b) for b in turned]) for a in moved])
        return GramJet(
            Gram.of(jnp.sum(logdet), _sums(w, solved)),
            Gram.of(first, -jnp.stack([_sums(solved, own) for own in moved])),
            Gram.of(second, half + jnp.swapaxes(half, -1, -2)),
        )

    def _rows(self, response: SmallResponse) -> tuple[Array, Array]:
        """[X y] (p + 1, s, B) and V (m, s, s, B), with weights."""
        if response.root is None:
            return jnp.concatenate([self.x, response.y[None]]), self.v
        root = response.root
        both = root[:, None] * root[None, :]
        return jnp.concatenate([self.x * root[None], response.y[None]]), self.v * both[None]


@record
class Patterns:
    """U patterns of families of s rows: v (m, s, s, U), how many have each (U,), sums xx (p, p, s, s, U)."""

    v: Array
    count: Array
    xx: Array

    @property
    def sizes(self) -> tuple[int, int]:
        """Inverses and their size."""
        return self.v.shape[3], self.v.shape[1]

    def gram(self, d: Array, response: PatternResponse) -> Gram:
        count = self.count if response.count is None else response.count
        logdet, inverse = _inverse(d, self.v)
        return Gram.of(jnp.sum(count * logdet), self._weighted([inverse], response)[0])

    def jet(self, d: Array, response: PatternResponse) -> GramJet:
        count = self.count if response.count is None else response.count
        logdet, inverse = _inverse(d, self.v)
        first, second, turned = _traces(inverse, self.v, count)
        once = [matmul(own, inverse) for own in turned]
        m = len(once)
        pairs = [(a, b) for a in range(m) for b in range(a, m)]
        twice = [matmul(turned[a], once[b]) for a, b in pairs]
        sums = self._weighted([inverse, *once, *twice], response)
        place = {pair: 1 + m + k for k, pair in enumerate(pairs)}
        bend = jnp.stack([jnp.stack([sums[place[min(a, b), max(a, b)]] for b in range(m)]) for a in range(m)])
        return GramJet(
            Gram.of(jnp.sum(count * logdet), sums[0]),
            Gram.of(first, -sums[1 : m + 1]),
            Gram.of(second, 2.0 * bend),
        )

    def _weighted(self, weights: list[Array], response: PatternResponse) -> Array:
        """⟨weight, M⟩ (k, p + 1, p + 1) of k weights (s, s, U)."""
        a = jnp.stack(weights).reshape(len(weights), -1)
        own = self.xx if response.xx is None else response.xx
        p = own.shape[0]
        xx = (a @ own.reshape(p * p, -1).T).reshape(-1, p, p)
        xy = a @ response.xy.reshape(p, -1).T
        yy = a @ response.yy.reshape(-1)
        top = jnp.concatenate([xx, xy[..., None]], axis=-1)
        last = jnp.concatenate([xy, yy[:, None]], axis=-1)
        return jnp.concatenate([top, last[:, None]], axis=-2)


def _inverse(d: Array, v: Array) -> tuple[Array, Array]:
    """log|H| (B,) and H⁻¹ (s, s, B)."""
    h = jnp.eye(v.shape[1], dtype=v.dtype)[:, :, None] + jnp.tensordot(d, v, axes=1)
    return sweep(h)


def _traces(inverse: Array, v: Array, count: Array | float) -> tuple[Array, Array, list[Array]]:
    """∂log|H| (m,), ∂²log|H| (m, m), and H⁻¹V_c (s, s, B) of each."""
    turned = [matmul(inverse, own) for own in v]
    first = jnp.stack([jnp.sum(count * jnp.sum(diagonal(own), axis=0)) for own in turned])

    def pair(a: Array, b: Array) -> Array:
        return -jnp.sum(count * jnp.sum(a * jnp.swapaxes(b, 0, 1), axis=(0, 1)))

    second = jnp.stack([jnp.stack([pair(a, b) for b in turned]) for a in turned])
    return first, second, turned


def _applied(matrix: Array, w: Array) -> Array:
    """Matrices (s, s, B) times columns (k, s, B)."""
    out = matrix[None, :, 0] * w[:, None, 0]
    for t in range(1, w.shape[1]):
        out = out + matrix[None, :, t] * w[:, None, t]
    return out


def _sums(a: Array, b: Array) -> Array:
    """Σ over families and rows (k, l) of columns (k, s, B) and (l, s, B)."""
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
