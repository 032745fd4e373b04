"""Products of many responses with a grouped design in one pass over their rows.

With X̃ orthonormal, P = X̃ᵀy and c = Qᵀy, everything else follows without touching a row again:

    ‖e‖² = ‖y‖² − ‖P‖²,   c_e = c − C_xP,   X̃ᵀe = 0 within and between, so within = −Σ C_xᵀc_e.

The differences lose digits when y is far from zero, so y is shifted first where X spans a constant, and
when it lies almost wholly in the columns of X or of Z; such responses are left to the exact path.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmjax.arrays.processors import matmul_alone
from lmmjax.arrays.sparse_columns import HostColumns, SparseColumns
from lmmjax.design import Basis, Origin, Rows, solve_upper
from lmmjax.gram.grouped.prepare import CANCELLATION, GroupedPrepared
from lmmjax.gram.grouped.products import GroupedResponse
from lmmjax.gram.grouped.settle import SHARE, within_fit
from lmmjax.gram.grouped.sparse_pass import read_sparse

TILE = 1 << 17
"""Elements read at a time: they stay in the second-level cache."""

TILE_WIDTHS = (64, 256)
"""Responses read at a time, at least and at most."""

LARGEST_TILE = 1 << 24
"""Elements read at a time, at most: with very many rows fewer responses than the least."""

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
        self.fixed = x
        self.c_x = sp.csr_array(prepared.c_x.transpose(0, 2, 1).reshape(q * groups, p))
        self.c_x_t = sp.csr_array(self.c_x.T)
        self.ones = self._constant()
        self._room = threading.local()
        self.pairs = self._pattern_maps() if prepared.compressed else None

    def __getstate__(self) -> dict[str, Any]:
        # room of threads does not travel with a model that is pickled
        return {name: value for name, value in self.__dict__.items() if name != "_room"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _room=threading.local())

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

    def __call__(self, y: HostColumns) -> tuple[GroupedResponse, Origin, np.ndarray]:
        """Products of responses y (n, T) and which of them need the exact path (T,).

        A response that is not finite has products that are not.
        """
        q, p, groups = self.shape
        lanes = y.shape[1]
        level, projection, c, total = self._read(y)
        c -= self.c_x @ projection
        taken, squares = _squares(projection), _squares(c)
        left = total - taken
        within = left - squares
        within_xy = -(self.c_x_t @ c)
        _, rest, _ = within_fit(self.prepared.shared.within_xx[..., None], within_xy, within)
        inexact = (left <= FIXED_SHARE * total) | (within <= CANCELLATION * left) | (rest <= SHARE * within)
        scale = np.sqrt(np.where(inexact, 1.0, left) / y.shape[0])
        factor = 1.0 / scale
        square = factor * factor
        beta = solve_upper(self.basis.x_factor, projection)
        if self.ones is not None:
            beta += self.ones[:, None] * level
        by_column = c.reshape(q, groups, lanes)
        if self.pairs is None:
            between_xy, between_yy = by_column, np.zeros((0, lanes))
        else:
            pairs, sums = self.pairs
            between_xy = (pairs @ c).reshape(q * (q + 1) // 2, self.prepared.k, p, lanes)
            between_yy = np.empty((q * (q + 1) // 2, self.prepared.k, lanes))
            columns = [(a, b) for a in range(q) for b in range(a, q)]
            for total_yy, (a, b) in zip(between_yy, columns, strict=True):
                total_yy[:] = sums @ (by_column[a] * by_column[b]) * (1 if a == b else 2)
            between_yy = self.prepared.pad(between_yy, 1)
        response = GroupedResponse(
            within_xy * factor,
            within * square,
            self.prepared.pad(between_xy, 1) * factor,
            between_yy * square,
        )
        return response, Origin(beta, scale), inexact

    def _read(self, y: HostColumns) -> tuple[np.ndarray, ...]:
        """The only pass over the rows: level (T,), X̃ᵀy (p, T), Qᵀy (qG, T), ‖y‖² (T,).

        Everything of the size of the rows is written in place: threads that allocate and free such arrays
        spend more time on their pages than on arithmetic (measured: 190 ms instead of 3 for one
        subtraction). What is short is done by products that let other threads run.
        """
        q, p, groups = self.shape
        n, lanes = y.shape
        offset = None if self.rows.offset is None else self._back(self.rows.offset)
        root = None if self.rows.root_weight is None else self._back(self.rows.root_weight)
        if isinstance(y, SparseColumns):
            # most are zero: their level is
            return np.zeros(lanes), *read_sparse(y, self.fixed, self.groups, offset, root)
        # a level far from zero would cost digits; the first row is a good enough guess of it
        level = np.zeros(lanes) if self.ones is None else y[0].astype(float)
        projection, c, total = np.empty((p, lanes)), np.empty((q * groups, lanes)), np.empty(lanes)
        tile = self._tile(n)
        for first in range(0, lanes, tile.shape[1]):
            part = slice(first, min(first + tile.shape[1], lanes))
            v = tile[:, : part.stop - part.start]
            np.subtract(y[:, part], level[part], out=v)
            if offset is not None:
                v -= offset[:, None]
            if root is not None:
                v *= root[:, None]
            matmul_alone(self.fixed, v, projection[:, part])
            np.einsum("nb,nb->b", v, v, out=total[part])
            c[:, part] = self.groups @ v
        return level, projection, c, total

    def _tile(self, n: int) -> np.ndarray:
        """Room (n, some responses) of this thread."""
        usual = 1 << int(np.log2(np.clip(TILE / max(n, 1), *TILE_WIDTHS)))
        width = max(1, min(usual, LARGEST_TILE // max(n, 1)))
        tile = getattr(self._room, "tile", None)
        if tile is None or tile.shape != (n, width):
            tile = self._room.tile = np.empty((n, width))
        return tile

    def _back(self, values: np.ndarray) -> np.ndarray:
        """Values by row in the order of the data."""
        if self.prepared.order is None:
            return values
        out = np.empty_like(values)
        out[self.prepared.order] = values
        return out


def _squares(a: np.ndarray) -> np.ndarray:
    return np.einsum("nb,nb->b", a, a)
