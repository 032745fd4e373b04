"""Sparse matrices of many columns, of which nothing dense is made but a few columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

ENTRIES = 1 << 22
"""Entries that are worked on at a time."""

CHUNK = 1 << 24
"""Elements of columns that are made dense at a time."""


class SparseColumns:
    """A matrix (n, T) as the entries of its columns, of a type of their own; what is not stored is zero.

    It is indexed as an array. `y[:, k]` is a vector (n,), `y[:, some]` and `y[rows]` are sparse again, any
    other pair of indices gives an array. `np.asarray` makes all of it dense, arithmetic is refused: what does
    not know it cannot make it dense unseen.
    """

    __array_ufunc__ = None
    ndim = 2

    def __init__(self, matrix: Any):
        self.matrix = matrix
        self.shape: tuple[int, int] = (int(matrix.shape[0]), int(matrix.shape[1]))

    @classmethod
    def of(cls, matrix: Any, rows: np.ndarray | None = None) -> SparseColumns:
        """A sparse matrix of SciPy, which is left as it is; `rows` are the positions of those to take."""
        import scipy.sparse as sp

        if rows is not None:
            matrix = sp.csr_array(matrix)[rows] if matrix.format == "csr" else sp.csc_array(matrix)[rows]
        made = sp.csc_array(matrix)
        if not made.has_canonical_format:
            # entries of one place are summed; what was given stays
            made = made.copy()
            made.sum_duplicates()
        return cls(made)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.matrix.toarray().astype(np.float64 if dtype is None else dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(columns, int | np.integer):
            return self._column(int(columns))[rows]
        if isinstance(rows, slice) and rows == slice(None):
            return SparseColumns(self.matrix[:, columns])
        if not isinstance(key, tuple):
            return SparseColumns(self.matrix[rows])
        if isinstance(rows, np.ndarray) and rows.ndim == 2:
            rows, columns = rows.ravel(), np.asarray(columns).ravel()
        return np.asarray(self[:, columns])[rows]

    def _column(self, k: int) -> np.ndarray:
        out = np.zeros(self.shape[0])
        at = slice(*self.matrix.indptr[k : k + 2])
        out[self.matrix.indices[at]] = self.matrix.data[at]
        return out

    def tiles(self) -> Iterator[tuple[slice, Any]]:
        """Yields columns [start, stop) and their entries in float64, CSR of the transpose: few at a time."""
        import scipy.sparse as sp

        m = self.matrix
        first = 0
        while first < self.shape[1]:
            last = int(np.searchsorted(m.indptr, m.indptr[first] + ENTRIES, side="right")) - 1
            last = min(max(last, first + 1), self.shape[1])
            at = slice(m.indptr[first], m.indptr[last])
            parts = m.data[at].astype(np.float64), m.indices[at], m.indptr[first : last + 1] - m.indptr[first]
            yield slice(first, last), sp.csr_array(parts, shape=(last - first, self.shape[0]))
            first = last

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields columns [start, stop) and these as dense arrays, few at a time."""
        size = max(1, CHUNK // max(self.shape[0], 1))
        for first in range(0, self.shape[1], size):
            part = slice(first, min(first + size, self.shape[1]))
            yield part, np.asarray(self[:, part])

    def marked(self, function: Any) -> np.ndarray:
        """(T,) whether `function` is true of any entry of a column; it is false of zero."""
        out = np.zeros(self.shape[1], bool)
        if self.matrix.data.dtype.kind == "f":
            for part, tile in self.tiles():
                found = np.flatnonzero(function(tile.data))
                out[part.start + np.searchsorted(tile.indptr, found, side="right") - 1] = True
        return out

    def sums(self) -> np.ndarray:
        """(T,) sums of the columns."""
        out = np.empty(self.shape[1])
        for part, tile in self.tiles():
            out[part] = np.asarray(tile.sum(axis=1)).ravel()
        return out

    def cleared(self, columns: np.ndarray) -> SparseColumns:
        """The same with zeros in some columns (T,)."""
        if not columns.any():
            return self
        copy = self.matrix.copy()
        for k in np.flatnonzero(columns):
            copy.data[copy.indptr[k] : copy.indptr[k + 1]] = 0
        return SparseColumns(copy)


Columns = np.ndarray | SparseColumns
"""Columns (n, T), dense or sparse."""


def complete_columns(y: Columns) -> np.ndarray:
    """(T,) which columns miss nothing."""
    if isinstance(y, SparseColumns):
        return ~y.marked(np.isnan)
    return np.asarray(~np.any(np.isnan(y), axis=0))


def finite_columns(y: Columns) -> np.ndarray:
    """(T,) which columns are finite everywhere."""
    if isinstance(y, SparseColumns):
        return ~y.marked(lambda values: ~np.isfinite(values))
    return np.asarray(np.all(np.isfinite(y), axis=0))


def missing(y: Columns) -> np.ndarray:
    """(n, T) which values are NaN; it takes no memory where sparse columns miss nothing."""
    if isinstance(y, SparseColumns):
        return np.isnan(np.asarray(y)) if y.marked(np.isnan).any() else np.broadcast_to(np.False_, y.shape)
    return np.isnan(y)


def pieces(y: Columns) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields columns [start, stop) as dense arrays: a few at a time if they are sparse, else all."""
    if isinstance(y, SparseColumns):
        yield from y.chunks()
    else:
        yield slice(0, y.shape[1]), y
