"""Products of many responses with a grouped design in one pass over their rows.

With X̃ orthonormal, P = X̃ᵀy and c = Qᵀy, everything else follows without touching a row again:

    ‖e‖² = ‖y‖² − ‖P‖²,   c_e = c − C_xP,   X̃ᵀe = 0 within and between, so within = −Σ C_xᵀc_e.

The differences lose digits when y is far from zero, so y is shifted first where X spans a constant, and
when it lies almost wholly in the columns of X or of Z; such responses are left to the exact path. Sparse
products keep a block of responses in cache and need no threads of their own.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from lmmjax.basis import Basis, Origin, Rows, solve_upper
from lmmjax.gram.grouped import GroupedResponse
from lmmjax.gram.grouping import CANCELLATION, GroupedPrepared

BLOCK = 256
"""Responses read at a time: a block of a few hundred rows stays in the second-level cache."""

FIXED_SHARE = 1e-3
"""A response whose residual sum of squares is below this share of the total takes the exact path."""


class OnePass:
    """The linear maps of a prepared design, as sparse matrices in the order of the data's rows."""

    def __init__(self, prepared: GroupedPrepared, rows: Rows, basis: Basis):
        self.prepared, self.rows, self.basis = prepared, rows, basis
        q, p, groups = prepared.c_x.shape
        self.shape = q, p, groups
        order = np.arange(rows.x.shape[1]) if prepared.order is None else prepared.order
        n = len(order)
        q_rows = [column.rows() for column in prepared.columns]
        codes = prepared.segments.codes
        self.groups = sp.csr_array(
            (
                np.concatenate(q_rows),
                (np.concatenate([a * groups + codes for a in range(q)]), np.tile(order, q)),
            ),
            shape=(q * groups, n),
        )
        x = np.empty_like(rows.x)
        x[:, order] = rows.x
        self.fixed = sp.csr_array(x)
        self.c_x = sp.csr_array(prepared.c_x.transpose(0, 2, 1).reshape(q * groups, p))
        self.c_x_t = sp.csr_array(self.c_x.T)
        self.ones = self._constant()
        self.pairs = self._pattern_maps() if prepared.compressed else None

    def _constant(self) -> np.ndarray | None:
        """The coefficients (p,) that make a constant of X, if it has one in its span."""
        n = self.rows.x.shape[1]
        column = np.ones(n) if self.rows.root_weight is None else self._back(self.rows.root_weight)
        projection = self.fixed @ column
        if abs(_squares(projection[:, None])[0] / (column @ column) - 1.0) > 1e-12:
            return None
        return solve_upper(self.basis.x_factor, projection)

    def _pattern_maps(self) -> tuple[sp.csr_array, sp.csr_array]:
        """Maps of c (qG) to Σ C_x c by pair and pattern, and of products c_ac_b to their sums by pattern."""
        q, p, groups = self.shape
        k = self.prepared.k
        pattern = np.repeat(np.arange(k), np.diff(self.prepared.bounds))
        blocks = []
        for a in range(q):
            for b in range(a, q):
                block = sp.lil_array((k * p, q * groups))
                for j in range(p):
                    block[pattern * p + j, b * groups + np.arange(groups)] += self.prepared.c_x[a, j]
                    if a != b:
                        block[pattern * p + j, a * groups + np.arange(groups)] += self.prepared.c_x[b, j]
                blocks.append(block.tocsr())
        sums = sp.csr_array((np.ones(groups), (pattern, np.arange(groups))), shape=(k, groups))
        return sp.csr_array(sp.vstack(blocks)), sums

    def __call__(self, y: np.ndarray) -> tuple[GroupedResponse, Origin, np.ndarray]:
        """Products of responses y (n, T) and which of them need the exact path (T,)."""
        pieces = [self._block(y[:, first : first + BLOCK]) for first in range(0, y.shape[1], BLOCK)]
        joined = [np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)]
        return GroupedResponse(*joined[:4]), Origin(*joined[4:6]), joined[6]

    def _block(self, y: np.ndarray) -> tuple[np.ndarray, ...]:
        q, p, groups = self.shape
        y = np.ascontiguousarray(y, dtype=float)
        # a level far from zero would cost digits below; the first row is a good enough guess of it
        level = np.zeros(y.shape[1]) if self.ones is None else y[0].copy()
        y = y - level
        if self.rows.offset is not None:
            y = y - self._back(self.rows.offset)[:, None]
        if self.rows.root_weight is not None:
            y = y * self._back(self.rows.root_weight)[:, None]
        projection = self.fixed @ y
        c = self.groups @ y - self.c_x @ projection
        total, taken = _squares(y), _squares(projection)
        left = total - taken
        squares = _squares(c)
        within = left - squares
        inexact = ~(left > FIXED_SHARE * total) | ~(within > CANCELLATION * left)
        good = np.where(inexact, 1.0, left)
        scale = np.sqrt(good / y.shape[0])
        factor = 1.0 / scale
        square = factor * factor
        beta = solve_upper(self.basis.x_factor, projection)
        if self.ones is not None:
            beta = beta + self.ones[:, None] * level
        within_xy = -(self.c_x_t @ c) * factor
        lanes = y.shape[1]
        if self.pairs is None:
            between_xy, between_yy = c.reshape(q, groups, lanes), np.zeros((0, lanes))
        else:
            pairs, sums = self.pairs
            between_xy = (pairs @ c).reshape(q * (q + 1) // 2, self.prepared.k, p, lanes)
            by_column = c.reshape(q, groups, lanes)
            between_yy = np.stack(
                [
                    (1 if a == b else 2) * (sums @ (by_column[a] * by_column[b]))
                    for a in range(q)
                    for b in range(a, q)
                ]
            )
        pad = self.prepared.pad
        return (
            within_xy,
            within * square,
            pad(between_xy, 1) * factor,
            (pad(between_yy, 1) if self.pairs is not None else between_yy) * square,
            beta,
            scale,
            inexact,
        )

    def _back(self, values: np.ndarray) -> np.ndarray:
        """Values by row in the order of the data."""
        if self.prepared.order is None:
            return values
        out = np.empty_like(values)
        out[self.prepared.order] = values
        return out


def _squares(a: np.ndarray) -> np.ndarray:
    return np.einsum("nb,nb->b", a, a)
