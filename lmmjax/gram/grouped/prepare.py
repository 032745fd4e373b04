"""From rows to the products of the grouped backend: per-group orthogonalisation and pattern compression."""

from __future__ import annotations

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Basis, Design, Origin, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.grouped.expansion import expand_nested
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse
from lmmjax.gram.grouped.settle import settle, within_fit

RANK_TOL = 1e-10
"""A column whose part orthogonal to the earlier ones is below this, relative, adds nothing in its group."""

CANCELLATION = 1e-3
"""Squares within groups below this share of the total are summed from the rows, not by difference."""

PATTERN_DIGITS = 1e11
"""Groups whose R agree to this relative accuracy are one pattern."""

FEW_PATTERNS = 4
"""Patterns up to which the products of traced responses with each are written out."""

PADDED = 8
"""Times as many places as rows at most, where rows of groups are put side by side."""

SAMPLE = 2000
"""Groups by which a design is judged to be made of patterns or not."""


class GroupedPrepared(Prepared):
    """Rows sorted by pattern and group, with an orthonormal basis of Z within every group.

    Parameters
    ----------
    design, rows : the design and its standardised rows.
    compress : True, False or None: whenever it makes the products of a response smaller.
    coarse_first : whether columns of coarse factors are orthogonalised before those of fine ones.
    """

    shared: GroupedProducts

    def __init__(self, design: Design, rows: Rows, compress: bool | None = None, coarse_first: bool = False):
        plan = expand_nested(design, rows.z, coarse_first)
        z = plan.expand(rows.z)
        xp = namespace(z, rows.x)
        codes, groups = plan.codes, int(plan.n_groups)
        p = rows.x.shape[0]
        self.order = np.argsort(codes, kind="stable")
        self.segments = Segments(codes[self.order], groups)
        basis, r = orthogonalise(xp, xp.take(z, self.order, axis=1), self.segments)
        # a parent's column often lies in those of its children: then no group needs it in the basis
        tied = xp is np and any(len(places) > 1 for places in plan.first_columns)
        kept = [j for j in range(len(z)) if not tied or np.any(r[j])]
        q, r = len(kept), r[np.array(kept)]
        pattern, first, k = np.arange(groups), np.arange(groups), groups
        concrete = xp is np
        if concrete and (compress or (compress is None and _repetitive(r))):
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
            basis, _ = orthogonalise(xp, xp.take(z, self.order, axis=1), self.segments)
            r = r[:, :, first]
            self.bounds = np.searchsorted(pattern[by_pattern], np.arange(k + 1))
            count = np.diff(self.bounds).astype(float)
        else:
            k, count = groups, np.ones(groups)
        self.padding = bucket(k) - k
        self.q, self.k = q, k
        x = xp.take(rows.x, self.order, axis=1)
        self.columns = [self.segments.column(basis[j]) for j in kept]
        self.c_x = xp.stack([column.sum(x.T).T for column in self.columns])
        self.x_within = x - self.between(xp.swapaxes(self.c_x, 1, 2)).T
        self.rows_left = self._rows_left(design, r, count) if concrete else 1
        self.shared = GroupedProducts(
            self.pad(xp.swapaxes(r, 0, 1), 2),
            self.pad(xp.asarray(count, dtype=x.dtype), 0),
            self.x_within @ self.x_within.T,
            self.pad(self._square(self.c_x), 1) if self.compressed else self.pad(self.c_x, 2),
            rows.logdet_r,
            design.structure,
            self.compressed,
            plan.first_columns,
            () if self.compressed else plan.members,
        )

    def _rows_left(self, design: Design, r: np.ndarray, count: np.ndarray) -> int:
        """Dimensions of responses that X and Z leave unexplained; 0 where σ² is known, and none need be."""
        if design.known is not None:
            return 0
        columns = int(np.any(r != 0, axis=1).sum(axis=0) @ count)
        xx = self.x_within @ self.x_within.T
        zero = np.zeros((len(xx), 1))
        rank = within_fit(xx[..., None], zero, zero[:1].sum(axis=0))[2][0]
        return design.observations - columns - int(rank)

    def settle(
        self, rows: Rows, basis: Basis, residual: Array, origin: Origin, factor: Array
    ) -> tuple[Array, Origin, Array]:
        if self.rows_left <= 0:
            return residual, origin, factor
        xp = namespace(residual, self.c_x)
        inside = residual - self.between(xp.stack([column.sum(residual) for column in self.columns]))
        return settle(inside, self.x_within, rows, basis, residual, origin, factor)

    def respond(self, residual: Array, factor: Array) -> GroupedResponse:
        xp = namespace(residual, self.c_x)
        c_y = xp.stack([column.sum(residual) for column in self.columns])
        within_xy, within_yy = self._within(xp, residual, c_y)
        if not self.compressed:
            between_xy, between_yy = self.pad(c_y, 1), xp.zeros((0, *within_yy.shape), c_y.dtype)
        else:
            between_xy, between_yy = (self.pad(a, 1) for a in self._square_response(xp, c_y))
        square = factor * factor
        return GroupedResponse(
            within_xy * factor, within_yy * square, between_xy * factor, between_yy * square
        )

    def _within(self, xp, residual: Array, c_y: Array) -> tuple[Array, Array]:
        """Products within groups, with X (p, ...) and squares: what is far smaller than residuals from rows.

        A column of X that lies in Z is rounding within groups, and so must be what it is multiplied by.
        """
        total = xp.einsum("n...,n...->...", residual, residual)
        if xp is jnp:
            within = residual - self.between(c_y)
            return xp.tensordot(self.x_within, within, axes=1), xp.einsum("n...,n...->...", within, within)
        xy = np.tensordot(self.x_within, residual, axes=1)
        yy = total - np.einsum("qg...,qg...->...", c_y, c_y)
        close = yy < CANCELLATION * total
        if np.any(close):
            within = residual[:, close] if close.ndim else residual
            within = within - self.between(c_y[..., close] if close.ndim else c_y)
            exact = self.x_within @ within, np.einsum("n...,n...->...", within, within)
            if not close.ndim:
                return exact
            xy[:, close], yy[close] = exact
        return xy, yy

    def between(self, c: Array) -> Array:
        """The part (n, ...) of the rows that lies in the columns of Z, from c (q, G, ...)."""
        return sum(column.spread(c[a]) for a, column in enumerate(self.columns))

    def _square_response(self, xp, c_y: Array) -> tuple[Array, Array]:
        if xp is jnp and self.k > FEW_PATTERNS and c_y.ndim == 3:
            return self._square_by_matrix(c_y)
        between_xy, between_yy = [], []
        for a in range(self.q):
            for b in range(a, self.q):
                xy = [xp.tensordot(self.c_x[a][:, s], c_y[b][s], axes=1) for s in self._pattern_slices()]
                yy = [xp.einsum("g...,g...->...", c_y[a][s], c_y[b][s]) for s in self._pattern_slices()]
                if a != b:
                    other = [
                        xp.tensordot(self.c_x[b][:, s], c_y[a][s], axes=1) for s in self._pattern_slices()
                    ]
                    xy = [u + v for u, v in zip(xy, other, strict=True)]
                    yy = [2.0 * v for v in yy]
                between_xy.append(xp.stack(xy))
                between_yy.append(xp.stack(yy))
        return xp.stack(between_xy), xp.stack(between_yy)

    def _square_by_matrix(self, c_y: Array) -> tuple[Array, Array]:
        """`_square_response` of many responses (q, G, T): a product each, however many patterns there are."""
        pattern = np.repeat(np.arange(self.k), np.diff(self.bounds))
        one = np.asarray(pattern == np.arange(self.k)[:, None], c_y.dtype)
        # (K, p, G): sums of products of a column with C_x of the groups of a pattern
        maps = [(one[:, None] * c[None]).reshape(-1, len(pattern)) for c in self.c_x]
        xy, yy = [], []
        for a in range(self.q):
            for b in range(a, self.q):
                cross = maps[a] @ c_y[b] if a == b else maps[a] @ c_y[b] + maps[b] @ c_y[a]
                xy.append(cross.reshape(self.k, -1, c_y.shape[-1]))
                yy.append(one @ (c_y[a] * c_y[b]) * (1.0 if a == b else 2.0))
        return jnp.stack(xy), jnp.stack(yy)

    def _square(self, c: Array) -> Array:
        blocks = []
        for a in range(self.q):
            for b in range(a, self.q):
                block = np.stack([c[a][:, s] @ c[b][:, s].T for s in self._pattern_slices()])
                blocks.append(block if a == b else block + np.swapaxes(block, 1, 2))
        return np.stack(blocks)

    def _pattern_slices(self) -> list[slice]:
        return [slice(int(a), int(b)) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]

    def pad(self, a: Array, axis: int) -> Array:
        """Zeros for the patterns that only fill up a bucket."""
        if self.padding == 0:
            return a
        widths = [(0, 0)] * a.ndim
        widths[axis] = (0, self.padding)
        return namespace(a).pad(a, widths)


class Segments:
    """Sums over consecutive groups of rows, and the way back, for arrays (n, ...)."""

    def __init__(self, codes: np.ndarray, groups: int):
        self.codes, self.groups = codes, groups
        counts = np.bincount(codes, minlength=groups)
        self.filled = np.flatnonzero(counts)
        self.starts = (np.cumsum(counts) - counts)[self.filled]

    def sum(self, v: Array) -> Array:
        """Σ over the rows of each group: (n, ...) → (G, ...)."""
        if namespace(v) is jnp:
            if v.ndim == 1 or self.places is None:
                return self._scattered(v)
            # elsewhere threads would add in an order that changes from call to call
            return jax.lax.platform_dependent(v, cpu=self._scattered, default=self._gathered)
        sums = np.add.reduceat(v, self.starts, axis=0)
        if len(self.filled) == self.groups:
            return sums
        out = np.zeros((self.groups, *v.shape[1:]), v.dtype)
        out[self.filled] = sums
        return out

    def _scattered(self, v: Array) -> Array:
        return jax.ops.segment_sum(v, self.codes, self.groups, indices_are_sorted=True)

    def _gathered(self, v: Array) -> Array:
        """`sum`, the rows of every group side by side."""
        assert self.places is not None
        zero = jnp.zeros((1, *v.shape[1:]), v.dtype)
        return jnp.sum(jnp.take(jnp.concatenate([v, zero]), self.places, axis=0), axis=1)

    @cached_property
    def places(self) -> np.ndarray | None:
        """The rows (G, L) of each group, n where it has fewer than L; None where most would be n."""
        n, counts = len(self.codes), np.bincount(self.codes, minlength=self.groups)
        longest = int(counts.max(initial=0))
        if longest * self.groups > PADDED * n:
            return None
        rows = (np.cumsum(counts) - counts)[:, None] + np.arange(longest)
        return np.where(np.arange(longest) < counts[:, None], rows, n)

    def spread(self, c: Array) -> Array:
        """The value of each row's group: (G, ...) → (n, ...)."""
        return namespace(c).take(c, self.codes, axis=0)

    def column(self, values: Array) -> Column:
        """A column (n,) of the orthonormal basis; one that is constant within groups is summed faster."""
        if namespace(values) is np:
            first = np.zeros(self.groups, values.dtype)
            first[self.filled] = values[self.starts]
            if np.array_equal(first[self.codes], values):
                return Column(self, first, True)
        return Column(self, values, False)


class Column:
    """One column of the basis of Z: its products with rows (n, ...) by group, and the way back."""

    def __init__(self, segments: Segments, values: Array, constant: bool):
        self.segments, self.values, self.constant = segments, values, constant

    def sum(self, v: Array) -> Array:
        """Σ over the rows of each group of column × v: (n, ...) → (G, ...)."""
        values = self.values[(...,) + (None,) * (v.ndim - 1)]
        return values * self.segments.sum(v) if self.constant else self.segments.sum(values * v)

    def rows(self) -> Array:
        """The column (n,) itself."""
        return self.segments.spread(self.values) if self.constant else self.values

    def spread(self, c: Array) -> Array:
        """column × the value of each row's group: (G, ...) → (n, ...)."""
        values = self.values[(...,) + (None,) * (c.ndim - 1)]
        return self.segments.spread(values * c) if self.constant else values * self.segments.spread(c)


def bucket(k: int) -> int:
    """The padded number of patterns: near sizes share one compiled program.

    Two steps an octave up to 32, eight beyond, where padding costs more than a compilation.
    """
    if k <= 2:
        return k
    step = 1 << max((k - 1).bit_length() - (2 if k <= 32 else 4), 0)
    return -(-k // step) * step


def orthogonalise(xp, z: Array, segments: Segments) -> tuple[list[Array], Array]:
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


def _repetitive(r: np.ndarray) -> bool:
    """Whether it is worth looking for patterns: of some groups, fewer than half have one of their own."""
    sample = r[:, :, :: max(1, r.shape[-1] // SAMPLE)]
    return _patterns(sample)[2] <= max(sample.shape[-1] // 2, 2)


def _patterns(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Pattern of each group (G,), a group of each pattern (K,), and K."""
    groups = r.shape[-1]
    key = r.reshape(-1, groups)
    key = key[np.any(key, axis=1)]
    scale = np.abs(key).max(axis=1, keepdims=True)
    rounded = np.round(key / np.where(scale > 0, scale, 1.0) * PATTERN_DIGITS).astype(np.int64)
    first, pattern = np.zeros(1, int), np.zeros(groups, int)
    for row in rounded:
        # a row at a time: sorting columns as records takes ten times as long as sorting numbers
        values, code = np.unique(row, return_inverse=True)
        _, first, pattern = np.unique(pattern * len(values) + code, return_index=True, return_inverse=True)
    return pattern, first, len(first)
