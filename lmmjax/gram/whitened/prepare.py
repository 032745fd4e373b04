"""From rows sorted by group and place to the products of `blocks`: by pattern if these are few, else rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design, ResidualDesign, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.grouped.expansion import expand_nested
from lmmjax.gram.grouped.prepare import bucket
from lmmjax.gram.whitened.blocks import (
    PatternProducts,
    PatternRows,
    StepProducts,
    StepRows,
    WhitenedResponse,
)
from lmmjax.gram.whitened.patterns import Patterns, earlier, steps
from lmmjax.gram.whitened.products import WhitenedProducts

FEW = 8
"""Sizes of groups up to which each is a stack of matrices of its own; more are padded to common sizes."""

DIGITS = 12
"""Distances and covariates that agree to so many digits are one."""


class PreparedSteps:
    """Markov families: products by distinct step if they are few, else rows.

    Parameters
    ----------
    own : the residual design of the rows, sorted by group and place.
    w : (w, n) columns; owner : (n,) group of the random effects; groups : G.
    """

    def __init__(self, own: ResidualDesign, w: Array, owner: np.ndarray, groups: int):
        made = steps(own.codes, own.place, own.covariates)
        self.before, self.groups = earlier(made.first), groups
        self.w, self.w_before = w, namespace(w).take(w, self.before, axis=1)
        gap = np.where(made.first, -1.0, _rounded(made.place - made.before))
        levels = [_rounded(v) for v in (*made.covariates, *made.covariates_before)]
        _, index, kind = np.unique(
            np.column_stack([gap, *levels]), axis=0, return_index=True, return_inverse=True
        )
        kind, self.kinds = kind.ravel(), len(index)
        self.cell = kind * groups + owner
        self.few = 3 * self.kinds * len(w) * groups <= 2 * w.shape[1]
        if not self.few:
            self.products: StepProducts | StepRows = StepRows(made, w, self.w_before, owner, groups)
            return
        count = np.bincount(kind, minlength=self.kinds).astype(float)
        xx = self._pairs(w, w), self._pairs(self.w_before, self.w_before), self._pairs(w, self.w_before)
        xp = namespace(w)
        xx = xp.concatenate([*xx[:2], xx[2] + xp.swapaxes(xx[2], 1, 2)])
        self.products = StepProducts(jax.tree.map(lambda a: a[index], made), count, xx)

    def _cells(self, values: Array) -> Array:
        """Σ of values (n, ...) by kind and group: (K, G, ...)."""
        total = sum_by(values, self.cell, self.kinds * self.groups)
        return total.reshape(self.kinds, self.groups, *values.shape[1:])

    def _pairs(self, one: Array, two: Array) -> Array:
        """Sums of products of columns (K, w, w, G): a cell a product of matrices where those are fewer."""
        xp, cells = namespace(one, two), self.kinds * self.groups
        if cells < len(one) * len(two):
            ends = np.cumsum(np.bincount(self.cell, minlength=cells))[:-1]
            members = np.split(np.argsort(self.cell, kind="stable"), ends)
            made = xp.stack([xp.take(one, m, axis=1) @ xp.take(two, m, axis=1).T for m in members])
            return xp.moveaxis(made.reshape(self.kinds, self.groups, *made.shape[1:]), 1, -1)
        stack = xp.stack
        return stack([stack([self._cells(a * b) for b in two], axis=1) for a in one], axis=1)

    def respond(self, y: Array) -> WhitenedResponse:
        """Products with responses y (n, ...)."""
        xp = namespace(y, self.w)
        late, total = xp.take(y, self.before, axis=0), xp.sum(y * y, axis=0)
        if not self.few:
            return WhitenedResponse(y, late, total)
        lanes = (slice(None),) + (None,) * (y.ndim - 1)

        def product(columns: Array, v: Array) -> Array:
            return xp.stack([self._cells(column[lanes] * v) for column in columns], axis=1)

        cross = product(self.w, late) + product(self.w_before, y)
        xy = xp.concatenate([product(self.w, y), product(self.w_before, late), cross])
        yy = xp.concatenate([self._cells(v) for v in (y * y, late * late, 2.0 * y * late)])
        return WhitenedResponse(xy, yy, total)


class PreparedPatterns:
    """Groups by padded size and pattern: products by pattern if they are few and no term is random.

    Parameters
    ----------
    own, w, owner, groups : as for `PreparedSteps`.
    """

    def __init__(self, own: ResidualDesign, w: Array, owner: np.ndarray, groups: int):
        n = w.shape[1]
        begin = np.flatnonzero(np.concatenate([[True], own.codes[1:] != own.codes[:-1]]))
        size = np.diff(np.concatenate([begin, [n]]))
        # as they are if they are of few sizes
        padded = size if len(np.unique(size)) <= FEW else np.array([bucket(int(s)) for s in size])
        correlation = own.structure.residual.correlation
        stationary = correlation is not None and correlation.reads in ("time", "coordinates")
        self.rows, self.kind, owners, patterns, cells = [], [], [], [], 0
        for t in np.unique(padded):
            chosen = np.flatnonzero(padded == t)
            mask = np.arange(t)[None] < size[chosen][:, None]
            rows = np.where(mask, begin[chosen][:, None] + np.arange(t)[None], n)
            inside = np.minimum(rows, n - 1)
            place = own.place[inside]
            key = place - place[:, :1] if stationary else place
            key = _rounded(np.where(mask.reshape(*mask.shape, *(1,) * (place.ndim - 2)), key, 0))
            levels = [_rounded(np.where(mask, v[inside], 0)) for v in own.covariates]
            table = np.concatenate([a.reshape(len(chosen), -1) for a in (mask, key, *levels)], axis=1)
            _, index, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
            covariates = tuple(v[inside][index] for v in own.covariates)
            patterns.append(Patterns(place[index], covariates, mask[index]))
            self.rows.append(rows)
            self.kind.append(kind.ravel())
            owners.append(owner[begin[chosen]])
            cells += len(index) * int(t) ** 2
        taken = [self._take(w.T, rows) for rows in self.rows]
        self.w, self.few = taken, groups == 1 and cells <= 2 * n
        if not self.few:
            self.products: PatternProducts | PatternRows = PatternRows(
                tuple(patterns), tuple(taken), tuple(self.kind), tuple(owners), groups
            )
            return
        self.counts = [len(p.mask) for p in patterns]
        count = tuple(np.bincount(kind).astype(float) for kind in self.kind)
        xx = tuple(
            self._by_pattern("gaw,gbv->abwv", rows, rows, kind, k)
            for rows, kind, k in zip(taken, self.kind, self.counts, strict=True)
        )
        self.products = PatternProducts(tuple(patterns), count, xx)

    @staticmethod
    def _take(values: Array, rows: np.ndarray) -> Array:
        """Rows (g, t, ...) of values (n, ...), zero where there is none."""
        xp = namespace(values)
        zero = xp.zeros((1, *values.shape[1:]), values.dtype)
        return xp.take(xp.concatenate([values, zero]), rows, axis=0)

    @staticmethod
    def _by_pattern(what: str, one: Array, two: Array, kind: np.ndarray, count: int) -> Array:
        xp = namespace(one, two)
        members = [np.flatnonzero(kind == k) for k in range(count)]
        return xp.stack([xp.einsum(what, one[m], two[m]) for m in members])

    def respond(self, y: Array) -> WhitenedResponse:
        """Products with responses y (n, ...), or their rows by size."""
        xp = namespace(y)
        total, taken = xp.sum(y * y, axis=0), [self._take(y, rows) for rows in self.rows]
        if not self.few:
            return WhitenedResponse((), tuple(taken), total)
        xy, yy = [], []
        for w, v, kind, k in zip(self.w, taken, self.kind, self.counts, strict=True):
            xy.append(self._by_pattern("gaw,gb...->abw...", w, v, kind, k))
            yy.append(self._by_pattern("ga...,gb...->ab...", v, v, kind, k))
        return WhitenedResponse(tuple(xy), tuple(yy), total)


class WhitenedPrepared(Prepared):
    """Rows sorted by group of the random effects, group of the residuals, and place.

    Parameters
    ----------
    design, rows : the design and its standardised rows.
    markov : False for the covariance matrices of groups where rows could be taken one after another.
    """

    def __init__(self, design: Design, rows: Rows, markov: bool = True):
        own = design.residual
        assert own is not None
        plan = expand_nested(design, rows.z) if design.terms else None
        top = np.zeros(design.n, int) if plan is None else np.asarray(plan.codes)
        groups = 1 if plan is None else int(plan.n_groups)
        places = own.place.T if own.place.ndim > 1 else own.place[None]
        self.order = np.lexsort((*places[::-1], own.codes, top))
        xp = namespace(rows.x, *rows.z)
        z = rows.x[:0] if plan is None else plan.expand(rows.z)
        w = xp.take(xp.concatenate([z, rows.x]), self.order, axis=1)
        kind = PreparedSteps if own.structure.markov and markov else PreparedPatterns
        self.blocks = kind(own.take(self.order), w, top[self.order], groups)
        self.shared = WhitenedProducts(
            self.blocks.products,
            rows.logdet_r,
            design.structure,
            z.shape[0],
            () if plan is None else plan.first_columns,
            () if plan is None else plan.members,
        )

    def respond(self, residual: Array, factor: Array) -> WhitenedResponse:
        return self.blocks.respond(residual * factor)


def sum_by(values: Array, codes: np.ndarray, size: int) -> Array:
    """Σ of values (n, ...) by code: (size, ...)."""
    if namespace(values) is jnp:
        return jax.ops.segment_sum(values, codes, size)
    flat = values.reshape(len(values), -1)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(codes[order]) > 0]))
    out = np.zeros((size, flat.shape[1]), values.dtype)
    out[codes[order][starts]] = np.add.reduceat(flat[order], starts, axis=0)
    return out.reshape(size, *values.shape[1:])


def _rounded(values: np.ndarray) -> np.ndarray:
    """Values to `DIGITS` digits of the largest."""
    values = np.asarray(values, dtype=float)
    scale = np.abs(values).max(initial=0.0) or 1.0
    return np.round(values / scale, DIGITS)
