"""The products of `ownweights` by Gram–Schmidt on √w X, for responses whose sums would lose digits."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from lmmjax.arrays import Array, namespace
from lmmjax.design import solve_upper
from lmmjax.gram.grouped.settle import ROUNDING, SHARE, within_fit

DEPENDENT = 1e-10
"""A column of √w X whose part orthogonal to the others is below this, relative, cannot be estimated."""


@dataclasses.dataclass(frozen=True, eq=False)
class Raw:
    """X as p rows (n,), sums over groups as a matrix (G, n), the group (n,) of every row, G, is σ² known."""

    x: np.ndarray
    by_group: sp.csr_array
    codes: np.ndarray
    groups: int
    known: bool


def exact(
    raw: Raw, y: np.ndarray, root: np.ndarray, n: np.ndarray, q_rows: list[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Products of y (n, T) less its offset, with √w (n, T), n (T,) observations and Q as q rows (n, T).

    Returns
    -------
    within_xx, c_x, within_xy, within_yy, c_y, beta, scale, x_factor, and whether X keeps its rank (T,).
    """
    x, x_factor, independent = _fixed(raw.x, root)
    v = root * y
    total = dots(v, v)
    projection = np.array([dots(column, v) for column in x]).reshape(len(x), len(n))
    e = v - sum(column * b for column, b in zip(x, projection, strict=True))
    left = dots(e, e)

    def within(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c = np.stack([raw.by_group @ (q * a) for q in q_rows])
        return c, a - sum(q * own[raw.codes] for q, own in zip(q_rows, c, strict=True))

    parts = [within(column) for column in x]
    c_x = np.stack([c for c, _ in parts], axis=1) if parts else np.zeros((len(q_rows), 0, raw.groups, len(n)))
    x_within = [inside for _, inside in parts]
    within_xx = np.array([[dots(a, b) for b in x_within] for a in x_within]).reshape(len(x), len(x), len(n))
    c_y, inside = within(e)

    def products() -> tuple[np.ndarray, np.ndarray]:
        return np.array([dots(a, inside) for a in x_within]).reshape(len(x), len(n)), dots(inside, inside)

    within_xy, within_yy = products()
    beta, rest, rank = within_fit(within_xx, within_xy, within_yy)
    occupied = sum((raw.by_group @ (q * q) > 0.5).sum(axis=0) for q in q_rows)
    room = (n > rank + occupied) & (not raw.known) & (left > ROUNDING * total)
    settled = room & (rest <= SHARE * within_yy)
    if settled.any():
        for _ in range(2):
            beta = np.where(settled, within_fit(within_xx, products()[0], within_yy)[0], 0.0)
            projection, total = projection + beta, total + dots(beta, beta)
            e = e - sum(column * b for column, b in zip(x, beta, strict=True))
            inside = inside - sum(column * b for column, b in zip(x_within, beta, strict=True))
        c_y = np.stack([raw.by_group @ (q * e) for q in q_rows])
        within_xy, within_yy = products()
        left = np.where(settled, dots(e, e), left)
    still = (left <= ROUNDING * total) | (room & (within_yy <= ROUNDING * (total + left)))
    scale = np.where(still, 1.0, np.sqrt(left / np.maximum(n, 1.0)))
    factor = np.where(still, 0.0, 1.0 / scale)
    done = within_xx, c_x, within_xy * factor, within_yy * factor**2, c_y * factor
    return *done, solve_upper(x_factor, projection), scale, x_factor, independent


def _fixed(x: np.ndarray, root: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """X̃ as p rows (n, T), R (p, p, T), and whether all columns are independent (T,)."""
    p, lanes = len(x), root.shape[1]
    columns: list[np.ndarray] = []
    factor = np.zeros((p, p, lanes))
    independent = np.ones(lanes, bool)
    for j in range(p):
        v = root * x[j][:, None]
        size = dots(v, v)
        for _ in range(2):
            for i, column in enumerate(columns):
                c = dots(column, v)
                v = v - column * c
                factor[i, j] += c
        rest = dots(v, v)
        good = rest > DEPENDENT**2 * size
        independent &= good
        length = np.sqrt(np.where(good, rest, 1.0))
        factor[j, j] = length
        columns.append(v * np.where(good, 1.0 / length, 0.0))
    return columns, factor, independent


def dots(a: Array, b: Array) -> Array:
    """Σ ab over the first axis, (n, T) → (T,)."""
    return np.einsum("nt,nt->t", a, b) if namespace(a, b) is np else jnp.sum(a * b, axis=0)
