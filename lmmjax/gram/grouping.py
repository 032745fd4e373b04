"""From rows to the products of the grouped backend: per-group orthogonalisation and pattern compression."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax._types import Array, namespace
from lmmjax.basis import Rows
from lmmjax.design import Design
from lmmjax.gram.base import Prepared
from lmmjax.gram.grouped import GroupedProducts, GroupedResponse

RANK_TOL = 1e-10
"""A column whose part orthogonal to the earlier ones is below this, relative, adds nothing in its group."""

PATTERN_DIGITS = 1e11
"""Groups whose R agree to this relative accuracy are one pattern."""


class GroupedPrepared(Prepared):
    """Rows sorted by pattern and group, with an orthonormal basis of Z within every group.

    Parameters
    ----------
    design, rows : the design and its standardised rows.
    compress : True, False or None: whenever it makes the products of a response smaller.
    """

    def __init__(self, design: Design, rows: Rows, compress: bool | None = None):
        z = jnp.concatenate(rows.z) if namespace(*rows.z) is jnp else np.concatenate(rows.z)
        xp = namespace(z, rows.x)
        codes, groups = design.terms[0].codes, design.terms[0].n_groups
        q, p = z.shape[0], rows.x.shape[0]
        self.order = np.argsort(codes, kind="stable")
        self.segments = Segments(codes[self.order], groups)
        basis, r = _orthogonalise(xp, xp.take(z, self.order, axis=1), self.segments)
        pattern, first, k = np.arange(groups), np.arange(groups), groups
        concrete = xp is np
        if concrete and compress is not False:
            pattern, first, k = _patterns(r)
        self.compressed = concrete and (
            k * (q * (q + 1) // 2) * (p + 1) < groups * q if compress is None else compress
        )
        if self.compressed:
            by_pattern = np.argsort(pattern, kind="stable")
            rank = np.empty_like(by_pattern)
            rank[by_pattern] = np.arange(groups)
            self.order = np.argsort(rank[codes], kind="stable")
            self.segments = Segments(rank[codes][self.order], groups)
            basis, _ = _orthogonalise(xp, xp.take(z, self.order, axis=1), self.segments)
            r = r[:, :, first]
            self.bounds = np.searchsorted(pattern[by_pattern], np.arange(k + 1))
            count = np.diff(self.bounds).astype(float)
        else:
            k, count = groups, np.ones(groups)
        self.padding = bucket(k) - k
        self.basis, self.q, self.k = basis, q, k
        x = xp.take(rows.x, self.order, axis=1)
        self.c_x = xp.stack([self.segments.sum(column * x) for column in basis])
        self.x_within = x - self._between(self.c_x)
        self.shared = GroupedProducts(
            self._pad(xp.swapaxes(r, 0, 1)),
            self._pad(xp.asarray(count, dtype=x.dtype)),
            self.x_within @ self.x_within.T,
            self._pad(self._square(self.c_x) if self.compressed else self.c_x, -1 - 2 * self.compressed),
            rows.logdet_r,
            design.structure,
            self.compressed,
        )

    def respond(self, y: Array) -> GroupedResponse:
        """Products of standardised responses y (..., n)."""
        xp = namespace(y, self.c_x)
        y = xp.take(y, self.order, axis=-1)
        c_y = xp.stack([self.segments.sum(column * y) for column in self.basis], axis=-2)
        within = y
        for a, column in enumerate(self.basis):
            within = within - column * self.segments.spread(c_y[..., a, :])
        within_xy = within @ self.x_within.T
        within_yy = xp.sum(within * within, axis=-1)
        if not self.compressed:
            return GroupedResponse(
                within_xy, within_yy, self._pad(c_y), xp.zeros((*y.shape[:-1], 0), y.dtype)
            )
        between_xy, between_yy = [], []
        for a in range(self.q):
            for b in range(a, self.q):
                xy = self._per_pattern(c_y[..., b, :], self.c_x[a])
                yy = self._per_pattern_squares(c_y[..., a, :], c_y[..., b, :])
                if a != b:
                    xy = xy + self._per_pattern(c_y[..., a, :], self.c_x[b])
                    yy = 2 * yy
                between_xy.append(xy)
                between_yy.append(yy)
        return GroupedResponse(
            within_xy,
            within_yy,
            self._pad(xp.stack(between_xy, axis=-3), -2),
            self._pad(xp.stack(between_yy, axis=-2)),
        )

    def _between(self, c: Array) -> Array:
        """The part of the rows that lies in the columns of Z."""
        return sum(column * self.segments.spread(c[a]) for a, column in enumerate(self.basis))

    def _square(self, c: Array) -> Array:
        blocks = []
        for a in range(self.q):
            for b in range(a, self.q):
                block = np.stack([c[a][:, s] @ c[b][:, s].T for s in self._pattern_slices()])
                blocks.append(block if a == b else block + np.swapaxes(block, 1, 2))
        return np.stack(blocks)

    def _per_pattern(self, c_y: Array, c_x: Array) -> Array:
        xp = namespace(c_y)
        return xp.stack([c_y[..., s] @ c_x[:, s].T for s in self._pattern_slices()], axis=-2)

    def _per_pattern_squares(self, left: Array, right: Array) -> Array:
        xp = namespace(left)
        return xp.stack([xp.sum(left[..., s] * right[..., s], -1) for s in self._pattern_slices()], axis=-1)

    def _pattern_slices(self) -> list[slice]:
        return [slice(int(a), int(b)) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]

    def _pad(self, a: Array, axis: int = -1) -> Array:
        if self.padding == 0:
            return a
        widths = [(0, 0)] * a.ndim
        widths[axis] = (0, self.padding)
        return namespace(a).pad(a, widths)


class Segments:
    """Sums over consecutive groups of rows, and the way back, for arrays (..., n)."""

    def __init__(self, codes: np.ndarray, groups: int):
        self.codes, self.groups = codes, groups
        counts = np.bincount(codes, minlength=groups)
        self.filled = np.flatnonzero(counts)
        self.starts = (np.cumsum(counts) - counts)[self.filled]
        self.full = len(self.filled) == groups

    def sum(self, v: Array) -> Array:
        """Σ over the rows of each group: (..., n) → (..., G)."""
        if namespace(v) is jnp:
            rows_first = jnp.moveaxis(v, -1, 0)
            total = jax.ops.segment_sum(rows_first, self.codes, self.groups, indices_are_sorted=True)
            return jnp.moveaxis(total, 0, -1)
        sums = np.add.reduceat(v, self.starts, axis=-1)
        if self.full:
            return sums
        out = np.zeros((*v.shape[:-1], self.groups), v.dtype)
        out[..., self.filled] = sums
        return out

    def spread(self, c: Array) -> Array:
        """The value of each row's group: (..., G) → (..., n)."""
        return namespace(c).take(c, self.codes, axis=-1)


def bucket(k: int) -> int:
    """The padded number of patterns: near sizes share one compiled program."""
    if k <= 2:
        return k
    power = 1 << (k - 1).bit_length()
    return 3 * power // 4 if k <= 3 * power // 4 else power


def _orthogonalise(xp, z: Array, segments: Segments) -> tuple[list[Array], Array]:
    """Gram–Schmidt, done twice, within every group: Z_i = Q_iR_i with R (q, q, G) upper triangular.

    A column that depends on the earlier ones within its group gets a zero column in Q and a zero row in R.
    """
    q = z.shape[0]
    columns: list[Array] = []
    zero = xp.zeros(segments.groups, z.dtype)
    r = [[zero] * q for _ in range(q)]
    for j in range(q):
        v = z[j]
        size = segments.sum(v * v)
        for _ in range(2):
            for i, column in enumerate(columns):
                c = segments.sum(column * v)
                v = v - column * segments.spread(c)
                r[i][j] = r[i][j] + c
        rest = segments.sum(v * v)
        good = rest > RANK_TOL**2 * size
        length = xp.sqrt(xp.where(good, rest, 1.0))
        r[j][j] = xp.where(good, length, 0.0)
        columns.append(v * segments.spread(xp.where(good, 1.0 / length, 0.0)))
    return columns, xp.stack([xp.stack(row) for row in r])


def _patterns(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Pattern of each group (G,), a group of each pattern (K,), and K."""
    q, groups = r.shape[0], r.shape[-1]
    rows, cols = np.triu_indices(q)
    key = r[rows, cols]
    scale = np.abs(key).max(axis=1, keepdims=True)
    rounded = np.round(key / np.where(scale > 0, scale, 1.0) * PATTERN_DIGITS).astype(np.int64)
    _, first, pattern = np.unique(rounded, axis=1, return_index=True, return_inverse=True)
    return pattern.reshape(groups), first, len(first)
