"""Sparse matrices of many columns, of which nothing dense is made but a few columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmmjax.arrays.device_columns import DeviceColumns

ENTRIES = 1 << 18
"""Entries that are worked on at a time."""

RANGE = 1 << 21
"""Entries of a range of columns that is copied at once, of a matrix that does not have its columns apart."""

CHUNK = 1 << 22
"""Elements of columns that are made dense at a time."""


class SparseColumns:
    """Columns of a sparse matrix, (n, T), as its entries, of a type of their own; what is not stored is zero.

    The matrix stays as it was given: CSC is read in place, of CSR a range of columns is copied at a time.

    It is indexed as an array. `y[:, k]` is a vector (n,), `y[:, some]` and `y[rows]` are sparse again, any
    other pair of indices gives an array. `np.asarray` makes all of it dense, arithmetic is refused: what does
    not know it cannot make it dense unseen.
    """

    __array_ufunc__ = None
    ndim = 2

    def __init__(self, matrix: Any, first: int = 0, last: int | None = None):
        """Columns [first, last) of a matrix of SciPy, CSC or CSR."""
        self._matrix, self._first = matrix, first
        self._in_place = matrix.format == "csc" and bool(matrix.has_canonical_format)
        last = int(matrix.shape[1]) if last is None else last
        self.shape: tuple[int, int] = (int(matrix.shape[0]), last - first)

    @classmethod
    def of(cls, matrix: Any) -> SparseColumns:
        """Those of a sparse matrix of SciPy, which is left as it is; entries of one place are summed."""
        import scipy.sparse as sp

        return cls(sp.csr_array(matrix) if matrix.format == "csr" else sp.csc_array(matrix))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        out = np.empty(self.shape)
        for part, values in self.chunks():
            out[:, part] = values
        return out if dtype is None else out.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(columns, int | np.integer):
            k = range(self.shape[1])[columns]
            return self._dense(*self._entries(k, k + 1))[:, 0][rows]
        if isinstance(rows, slice) and rows == slice(None):
            return self._columns(columns)
        if not isinstance(key, tuple):
            return SparseColumns(self._all()[rows])
        if isinstance(rows, np.ndarray) and rows.ndim == 2:
            rows, columns = rows.ravel(), np.asarray(columns).ravel()
        return np.asarray(self[:, columns])[rows]

    def _columns(self, which: Any) -> SparseColumns:
        """Those of some positions; neighbours share what is stored."""
        import scipy.sparse as sp

        at = np.arange(self.shape[1])[which]
        first = self._first + (int(at[0]) if len(at) else 0)
        if np.array_equal(at + self._first, np.arange(first, first + len(at))):
            return SparseColumns(self._matrix, first, first + len(at))
        return SparseColumns(sp.csc_array(self._matrix[:, self._first + at]))

    def _all(self) -> Any:
        whole = self.shape[1] == self._matrix.shape[1]
        return self._matrix if whole else self._matrix[:, self._first : self._first + self.shape[1]]

    def csc(self) -> Any:
        """The columns as CSC, rows in order and no place twice; what is stored may be shared."""
        import scipy.sparse as sp

        return sp.csc_array(self._entries(0, self.shape[1]), shape=self.shape)

    def _entries(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, rows and pointers of columns [start, stop): views of what is stored, or copies."""
        import scipy.sparse as sp

        m, first, last = self._matrix, self._first + start, self._first + stop
        if not self._in_place:
            made = sp.csc_array(m[:, first:last], copy=m.format == "csc")
            made.sum_duplicates()
            return made.data, made.indices, made.indptr
        at = slice(m.indptr[first], m.indptr[last])
        return m.data[at], m.indices[at], m.indptr[first : last + 1] - m.indptr[first]

    def _ranges(self) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """Yields where a range of columns begins, and its entries: all of them where they are shared."""
        total, width = self.shape[1], max(self.shape[1], 1)
        if not self._in_place:
            each = self._matrix.nnz / max(self._matrix.shape[1], 1)
            width = max(1, int(RANGE / max(each, 1.0)))
        for start in range(0, total, width):
            yield start, self._entries(start, min(start + width, total))

    def tiles(self) -> Iterator[tuple[slice, Any]]:
        """Yields columns [start, stop) and their entries in float64, CSR of the transpose: few at a time."""
        import scipy.sparse as sp

        for start, (data, indices, pointers) in self._ranges():
            first, total = 0, len(pointers) - 1
            while first < total:
                last = int(np.searchsorted(pointers, pointers[first] + ENTRIES, side="right")) - 1
                last = min(max(last, first + 1), total)
                at = slice(pointers[first], pointers[last])
                parts = data[at].astype(np.float64), indices[at], pointers[first : last + 1] - pointers[first]
                yield (
                    slice(start + first, start + last),
                    sp.csr_array(parts, shape=(last - first, self.shape[0])),
                )
                first = last

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields columns [start, stop) and these as dense arrays, few at a time."""
        size = max(1, CHUNK // max(self.shape[0], 1))
        for start, (data, indices, pointers) in self._ranges():
            total = len(pointers) - 1
            for first in range(0, total, size):
                last = min(first + size, total)
                at = slice(pointers[first], pointers[last])
                part = data[at], indices[at], pointers[first : last + 1] - pointers[first]
                yield slice(start + first, start + last), self._dense(*part)

    def _dense(self, data: np.ndarray, indices: np.ndarray, pointers: np.ndarray) -> np.ndarray:
        """Some columns (n, k) of these entries."""
        out = np.zeros((self.shape[0], len(pointers) - 1))
        out[indices, np.repeat(np.arange(out.shape[1]), np.diff(pointers))] = data
        return out

    def marked(self, function: Any) -> np.ndarray:
        """(T,) whether `function` is true of any entry of a column; it is false of zero."""
        out, data = np.zeros(self.shape[1], bool), self._matrix.data
        parts = range(0, len(data) if data.dtype.kind == "f" else 0, ENTRIES)
        if any(np.any(function(data[first : first + ENTRIES])) for first in parts):
            for part, tile in self.tiles():
                found = np.flatnonzero(function(tile.data))
                out[part.start + np.searchsorted(tile.indptr, found, side="right") - 1] = True
        return out

    def sums(self) -> np.ndarray:
        """(T,) sums of the columns."""
        m, out = self._matrix, np.zeros(self.shape[1])
        if m.format == "csr" and m.shape == self.shape:
            for first in range(0, m.nnz, ENTRIES):
                at = slice(first, min(first + ENTRIES, m.nnz))
                out += np.bincount(m.indices[at], m.data[at], len(out))
            return out
        for part, tile in self.tiles():
            out[part] = np.asarray(tile.sum(axis=1)).ravel()
        return out

    def cleared(self, columns: np.ndarray) -> SparseColumns:
        """The same with zeros in some columns (T,)."""
        if not columns.any():
            return self
        copy = self.csc().copy()
        for k in np.flatnonzero(columns):
            copy.data[copy.indptr[k] : copy.indptr[k + 1]] = 0
        return SparseColumns(copy)


HostColumns = np.ndarray | SparseColumns
"""Columns (n, T), dense or sparse."""

Columns = HostColumns | DeviceColumns
"""Columns (n, T), wherever they are."""


def complete_columns(y: Columns) -> np.ndarray:
    """(T,) which columns miss nothing."""
    if isinstance(y, SparseColumns):
        return ~y.marked(np.isnan)
    return np.asarray(~np.any(np.isnan(np.asarray(y)), axis=0))


def finite_columns(y: Columns) -> np.ndarray:
    """(T,) which columns are finite everywhere."""
    if isinstance(y, SparseColumns):
        return ~y.marked(lambda values: ~np.isfinite(values))
    return np.asarray(np.all(np.isfinite(np.asarray(y)), axis=0))


def missing(y: Columns) -> np.ndarray:
    """(n, T) which values are NaN; it takes no memory where sparse columns, or those there, miss nothing."""
    if isinstance(y, SparseColumns):
        return np.isnan(np.asarray(y)) if y.marked(np.isnan).any() else np.broadcast_to(np.False_, y.shape)
    if isinstance(y, DeviceColumns) and not y.misses():
        return np.broadcast_to(np.False_, y.shape)
    return np.isnan(np.asarray(y))


def pieces(y: Columns) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields columns [start, stop) as dense arrays: a few at a time if they are sparse, else all."""
    if isinstance(y, SparseColumns):
        yield from y.chunks()
    else:
        yield slice(0, y.shape[1]), np.asarray(y)
