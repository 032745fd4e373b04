"""Candidates against responses as programs, traced: k candidates by T responses, which are on the last axis.

With w = 1/(a + hμ), u = w∘ỹ, and, where columns E are taken out (`partial.py`), u = w∘(ỹ − E'γ), F = L⁻¹Ew,

    b = g̃'u,      c = (g̃²)'w − |Fg̃|²,      ρ² = b²/(ac):

products of matrices in float64, of which pairs are chosen where they were made.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, record, static
from lmmjax.inference.scan.partial import DETERMINED
from lmmjax.inference.scan.spectral import LOST

UNSURE = 1e-9
"""Differences of ρ² that are left to the exact choice among the pairs that were chosen."""

WRITTEN = 4
"""Columns up to which a loop over them is written out."""


@record
class Coordinates:
    """Where candidates and responses have no V, of one design.

    Attributes
    ----------
    x : (p, n) orthonormal; root : (n,) √ of weights, or None; offset : (n,) or None.
    basis : (n, m) B, or None; turn : what has `times` in its place.
    mu : (m,) eigenvalues.
    beside : whether B leaves something; apart : whether all of it has weights of its own.
    """

    x: Array
    root: Array | None
    offset: Array | None
    basis: Array | None
    turn: Any
    mu: Array
    beside: bool = static()
    apart: bool = static()

    def left(self, values: Array, lost: float | None = None) -> Any:
        """What X leaves of columns (n, k), whitened; with a share `lost` which (k,) keep no more."""
        whole = values if self.root is None else values * self.root[:, None]
        left = whole - self.x.T @ (self.x @ whole)
        left = left - self.x.T @ (self.x @ left)
        if lost is None:
            return left
        return left, jnp.sum(left * left, axis=0) <= lost * jnp.sum(whole * whole, axis=0)

    def turned(self, left: Array) -> tuple[Array, Array | None]:
        """B'v (m, k) of such columns, and what B leaves of them (n, k)."""
        if self.basis is None:
            return self.turn.times(left), None
        turned = self.basis.T @ left
        return turned, left - self.basis @ turned if self.beside else None


def candidates(of: Coordinates, g: Array) -> tuple[Array, Array]:
    """Coordinates (K, k) of candidates g (n, k), and which of them X determines (k,)."""
    left, lost = of.left(g, LOST)
    turned, rest = of.turned(left)
    return (turned if rest is None else jnp.concatenate([turned, rest])), lost


def products_of(of: Coordinates, one: Array, two: Array) -> Array:
    """g̃∘h̃ (K', k) of candidates in coordinates: what B leaves as one sum, where it has one weight."""
    both = one * two
    if not of.beside or of.apart:
        return both
    m = of.mu.shape[0]
    return jnp.concatenate([both[:m], jnp.sum(both[m:], axis=0, keepdims=True)])


def responses(of: Coordinates, y: Array, a: Array, h: Array) -> tuple[Array, Array, Array]:
    """u (K, T), w (K', T) and y'Py (T,) of responses y (n, T) with all rows, V ∝ aI + hK."""
    turned, rest = of.turned(of.left(y if of.offset is None else y - of.offset[:, None]))
    w = 1.0 / (a[None, :] + h[None, :] * of.mu[:, None])
    u = w * turned
    squares = jnp.sum(u * turned, axis=0)
    if rest is None:
        return u, w, squares
    one = (1.0 / a)[None, :]
    squares = squares + jnp.sum(rest * rest, axis=0) * one[0]
    return jnp.concatenate([u, rest * one]), jnp.concatenate([w, one]), squares


def moments(g: Array, squares: Array, lost: Array, u: Array, w: Array, f: Array) -> tuple[Array, Array]:
    """b and c (k, T), c NaN of what X or columns F (S, K, T) determine; squares (K', k) of g (K, k)."""
    b, whole = g.T @ u, squares.T @ w
    c = less(whole, g, g, f)
    if f.shape[0]:
        c = jnp.where(c > DETERMINED * whole, c, jnp.nan)
    return b, jnp.where(lost[:, None], jnp.nan, c)


def less(whole: Array, one: Array, two: Array, f: Array) -> Array:
    """g'Ph (k, T): (g̃∘h̃)'w less (Fg̃)'(Fh̃)."""

    def column(j: Any, whole: Array) -> Array:
        left = one.T @ f[j]
        return whole - left * (left if two is one else two.T @ f[j])

    if f.shape[0] > WRITTEN:
        return jax.lax.fori_loop(0, f.shape[0], column, whole)
    for j in range(f.shape[0]):
        whole = column(j, whole)
    return whole


def near(
    b: Array,
    c: Array,
    a: Array,
    share: Array,
    slack: Array,
    real: Array,
    *,
    top: int,
    best: bool,
    above: bool,
) -> Array:
    """Which pairs (k, T) may be kept, as `sweep.Wanted` has it; `real` (T,) are responses, others fill up.

    `share` counts where `above`; `best` is that of these responses.
    """
    rho2 = b * b / (a[None, :] * c)
    fine = jnp.isfinite(rho2) & real[None, :]
    rho2 = jnp.where(fine, rho2, -1.0)
    level = share if above else jnp.full_like(share, jnp.inf)
    if top >= rho2.shape[0]:
        level = jnp.full_like(share, -jnp.inf)
    elif top:
        last = jnp.max(rho2, axis=0) if top == 1 else jax.lax.top_k(rho2.T, top)[0][:, -1]
        level = jnp.minimum(level, 1.0 - (1.0 - last) * slack)
    kept = rho2 >= level[None, :] - UNSURE
    if best:
        needed = 1.0 - (1.0 - jnp.max(rho2, axis=1)) * jnp.max(slack)
        kept = kept | (rho2 >= needed[:, None] - UNSURE)
    return kept & fine


def picked(kept: Array, values: tuple[Array, ...], size: int) -> tuple[Array, Array]:
    """The first `size` of the pairs kept (k, T): places (size,) by rows, and values (V, size)."""
    (at,) = jnp.nonzero(kept.ravel(), size=size, fill_value=0)
    return at.astype(jnp.int32), jnp.stack([value.ravel()[at] for value in values])
