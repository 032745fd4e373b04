"""From rows sorted by group and place to the products of `blocks`: by step or on a schedule, else rows."""

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
    PatternRows,
    StepProducts,
    StepRows,
    WhitenedResponse,
)
from lmmjax.gram.whitened.compress import PreparedSchedule, schedule_of
from lmmjax.gram.whitened.patterns import Patterns, earlier, rounded, stationary, steps
from lmmjax.gram.whitened.products import WhitenedProducts

FEW = 8
"""Sizes of groups up to which each is a stack of matrices of its own; more are padded to common sizes."""


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
        gap = np.where(made.first, -1.0, rounded(made.place - made.before))
        levels = [rounded(v) for v in (*made.covariates, *made.covariates_before)]
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
    """Groups by padded size and pattern of covariances, with their rows.

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
        shifts = stationary(own.structure)
        self.rows, kinds, owners, patterns = [], [], [], []
        for t in np.unique(padded):
            chosen = np.flatnonzero(padded == t)
            mask = np.arange(t)[None] < size[chosen][:, None]
            rows = np.where(mask, begin[chosen][:, None] + np.arange(t)[None], n)
            inside = np.minimum(rows, n - 1)
            place = own.place[inside]
            key = place - place[:, :1] if shifts else place
            key = rounded(np.where(mask.reshape(*mask.shape, *(1,) * (place.ndim - 2)), key, 0))
            levels = [rounded(np.where(mask, v[inside], 0)) for v in own.covariates]
            table = np.concatenate([a.reshape(len(chosen), -1) for a in (mask, key, *levels)], axis=1)
            _, index, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
            covariates = tuple(v[inside][index] for v in own.covariates)
            patterns.append(Patterns(place[index], covariates, mask[index]))
            self.rows.append(rows)
            kinds.append(kind.ravel())
            owners.append(owner[begin[chosen]])
        taken = tuple(self._take(w.T, rows) for rows in self.rows)
        self.products = PatternRows(tuple(patterns), taken, tuple(kinds), tuple(owners), groups)

    @staticmethod
    def _take(values: Array, rows: np.ndarray) -> Array:
        """Rows (g, t, ...) of values (n, ...), zero where there is none."""
        xp = namespace(values)
        zero = xp.zeros((1, *values.shape[1:]), values.dtype)
        return xp.take(xp.concatenate([values, zero]), rows, axis=0)

    def respond(self, y: Array) -> WhitenedResponse:
        """The rows, by size, of responses y (n, ...)."""
        taken = tuple(self._take(y, rows) for rows in self.rows)
        return WhitenedResponse((), taken, namespace(y).sum(y * y, axis=0))


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
        own, steps = own.take(self.order), own.structure.markov and markov and own.structure.n_params > 0
        schedule = schedule_of(own) if plan is None and not steps else None
        if schedule is not None and schedule.pays(own.structure.n_params, len(w)):
            self.blocks = PreparedSchedule(schedule, w)
        else:
            kind = PreparedSteps if steps else PreparedPatterns
            self.blocks = kind(own, w, top[self.order], groups)
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
