"""Derivatives for terms of many columns: the units E of D pick entries, and no product with them is formed.

With E_c = w_c(e_ieⱼᵀ + eⱼe_iᵀ), w_c = ½ where i = j, and E_d likewise at (k, l), sums over groups are

    ΣTᵀE_cT = w_c(ΣT_iT_jᵀ + ΣT_jT_iᵀ),
    Σtr(E_cUE_dQ) = w_cw_d ΣU_jkQ_li,    ΣTᵀE_cUE_dT = w_cw_d ΣT_iU_jkT_lᵀ,

the last two over both orders of (i, j) and of (k, l).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array

MANY = 5
"""Columns of a group from which on this is sooner compiled and done than products with every unit."""


@dataclasses.dataclass(frozen=True)
class Places:
    """(i, j, w), each (m,), of units E (m, q, q) with one entry or two."""

    i: np.ndarray
    j: np.ndarray
    w: np.ndarray

    @property
    def orders(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return (self.i, self.j), (self.j, self.i)

    def weights(self, like: Array) -> Array:
        """w_cw_d (m, m)."""
        return jnp.asarray(np.outer(self.w, self.w), like.dtype)


def places(units: np.ndarray) -> Places:
    """Where units (m, q, q) have their entries."""
    i, j = (np.array([np.argwhere(unit)[-1][axis] for unit in units], int) for axis in (0, 1))
    return Places(i, j, np.where(i == j, 0.5, 1.0))


def congruences(j: Array, at: Places) -> Array:
    """JᵀE_cJ (m, r, r, G) for J (q, r, G)."""
    one = j[at.i][:, :, None] * j[at.j][:, None]
    return (one + jnp.swapaxes(one, 1, 2)) * jnp.asarray(at.w, j.dtype)[:, None, None, None]


def pair_sums(u: Array, q: Array, at: Places) -> Array:
    """Σtr(E_cUE_dQ) (m, m) for symmetric U and Q (q, q, G)."""
    size = u.shape[0]
    flat, other = u.reshape(size * size, -1), q.reshape(size * size, -1)
    # U_ab Q_cd
    both = (flat @ other.T).reshape(size, size, size, size)
    both = both + jnp.swapaxes(both, 0, 3)
    both = both + jnp.swapaxes(both, 1, 2)
    picked = both[at.j[:, None], at.i[None], at.j[None], at.i[:, None]]
    return picked * at.weights(u)


def first_products(t: Array, at: Places) -> Array:
    """ΣTᵀE_cT (m, k, k) for T (q, k, G)."""
    q, k = t.shape[:2]
    flat = t.reshape(q * k, -1)
    tt = jnp.swapaxes((flat @ flat.T).reshape(q, k, q, k), 1, 2)[at.i, at.j]
    return (tt + jnp.swapaxes(tt, 1, 2)) * jnp.asarray(at.w, t.dtype)[:, None, None]


def second_products(u: Array, t: Array, at: Places) -> Array:
    """ΣTᵀE_cUE_dT (m, m, k, k) for symmetric U (q, q, G) and T (q, k, G)."""
    q, k = t.shape[:2]
    flat = t.reshape(q * k, -1)
    rows, columns = np.tril_indices(q)
    # T_iU_abT_lᵀ by (a ≥ b), i, l
    products = jax.lax.map(lambda own: (flat * own[None]) @ flat.T, u[rows, columns])
    products = jnp.swapaxes(products.reshape(len(rows), q, k, q, k), 2, 3)
    place = np.zeros((q, q), int)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    terms = [
        products[place[j[:, None], k[None]], i[:, None], l[None]] for i, j in at.orders for k, l in at.orders
    ]
    return sum(terms[1:], start=terms[0]) * at.weights(u)[:, :, None, None]
