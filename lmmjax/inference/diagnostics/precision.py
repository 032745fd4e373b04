"""V⁻¹ at given variance parameters, for diagnostics of rows and groups, on the host.

With TRTᵀ = I, ZDZᵀσ² = AAᵀ, F = TᵀTA and M = I + AᵀF,

    V⁻¹ = R⁻¹ − F M⁻¹ Fᵀ,        ZDZᵀσ²V⁻¹ = A M⁻¹ Fᵀ,        R V⁻¹ R = R − A M⁻¹ Aᵀ.

A and F are sparse, and M has a block for every set of levels that rows connect: of one factor a group, of
crossed factors usually all of them.

Source: Henderson's mixed-model equations, of which M is the part of b; Robinson (1991),
doi:10.1214/ss/1177011926.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from lmmjax.arrays.memory import require_memory
from lmmjax.core.marginal import scaled_columns
from lmmjax.core.residuals import decorrelating, variances
from lmmjax.design import Design

Sparse = Any
"""scipy's csr_array, whose stubs know too little of it."""

PAIRS = 400
"""Products of the entries of a row of A and one of F up to which they are formed pair by pair."""

CHUNK = 1 << 24
"""Numbers that a chunk of rows may take where they are not."""


@dataclasses.dataclass(frozen=True, eq=False)
class Precision:
    """V⁻¹ (n, n) in parts.

    Attributes
    ----------
    residual : R⁻¹ (n, n), sparse; variance : the diagonal of R (n,).
    a, f : A and F (n, q), sparse.
    columns : per size of a block, the columns of A that belong together (C, s).
    inverse : per size, the blocks of M⁻¹ (C, s, s).
    home : (q, 3) size, block and place of every column.
    """

    residual: Sparse
    variance: np.ndarray
    a: Sparse
    f: Sparse
    columns: tuple[np.ndarray, ...]
    inverse: tuple[np.ndarray, ...]
    home: np.ndarray

    def solve(self, b: np.ndarray) -> np.ndarray:
        """V⁻¹b for b (n, k)."""
        return self.residual @ b - self.f @ self.inner(self.f.T @ b)

    def inner(self, b: np.ndarray) -> np.ndarray:
        """M⁻¹b for b (q, k)."""
        out = np.empty_like(b)
        for columns, inverse in zip(self.columns, self.inverse, strict=True):
            out[columns] = inverse @ b[columns]
        return out

    def rows(self, left: Sparse, right: Sparse) -> np.ndarray:
        """The diagonal (n,) of left M⁻¹ rightᵀ, both (n, q)."""
        most = [int(np.diff(m.indptr).max(initial=0)) for m in (left, right)]
        if most[0] * most[1] > PAIRS:
            return self._by_chunks(left, right)
        out = np.zeros(left.shape[0])
        for one, first in _entries(left, most[0]):
            for two, second in _entries(right, most[1]):
                here = first & second
                i, j = one[here], two[here]
                out[here] += left.data[i] * self._inverse(left.indices[i], right.indices[j]) * right.data[j]
        return out

    def _inverse(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """Entries (k,) of M⁻¹ in columns of the same block."""
        (size, block, i), j = self.home[one].T, self.home[two, 2]
        out = np.empty(len(one))
        for s, inverse in enumerate(self.inverse):
            here = size == s
            out[here] = inverse[block[here], i[here], j[here]]
        return out

    def _by_chunks(self, left: Sparse, right: Sparse) -> np.ndarray:
        out = np.zeros(left.shape[0])
        step = max(1, CHUNK // max(left.shape[1], 1))
        for first in range(0, len(out), step):
            rows = slice(first, first + step)
            solved = self.inner(right[rows].toarray().T).T
            out[rows] = np.sum(left[rows].toarray() * solved, axis=1)
        return out

    def block(self, rows: np.ndarray) -> np.ndarray:
        """V⁻¹ (k, k) in some rows, in ascending order."""
        part = self.f[rows]
        used = np.unique(part.indices)
        dense, home = part[:, used].toarray(), self.home[used]
        own = self.residual[rows]
        at = np.minimum(np.searchsorted(rows, own.indices), len(rows) - 1)
        inside = rows[at] == own.indices
        out = np.zeros((len(rows), len(rows)))
        out[np.repeat(np.arange(len(rows)), np.diff(own.indptr))[inside], at[inside]] = own.data[inside]
        for size, block in np.unique(home[:, :2], axis=0):
            here = np.flatnonzero((home[:, 0] == size) & (home[:, 1] == block))
            inverse, place = self.inverse[size][block], home[here, 2]
            out -= dense[:, here] @ inverse[np.ix_(place, place)] @ dense[:, here].T
        return out


def precision(design: Design, psi: np.ndarray) -> Precision:
    """V⁻¹ at natural covariance parameters ψ (m + 1,).

    Raises
    ------
    ValueError : the blocks of M would take more memory than there is.
    """
    white = decorrelating(design, psi)
    a = scaled_columns(design, psi)
    residual = (white.T @ white).tocsr()
    f = (residual @ a).tocsr()
    m = (a.T @ f + sp.eye_array(a.shape[1])).tocoo()
    count, label = _components(m)
    sizes = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    place = np.empty(len(label), int)
    place[order] = np.arange(len(label)) - (np.cumsum(sizes) - sizes)[label[order]]
    kinds, kind = np.unique(sizes, return_inverse=True)
    block = np.empty(count, int)
    columns, inverse = [], []
    for k, s in enumerate(kinds):
        members = np.flatnonzero(kind == k)
        block[members] = np.arange(len(members))
        require_memory("the inverse of the random effects' equations", 3, len(members), s, s)
        here = kind[label[m.row]] == k
        row, column = m.row[here], m.col[here]
        dense = np.zeros((len(members), s, s))
        dense[block[label[row]], place[row], place[column]] = m.data[here]
        columns.append(order[np.isin(label[order], members)].reshape(len(members), s))
        inverse.append(np.linalg.inv(dense))
    home = np.column_stack([kind[label], block[label], place]) if count else np.zeros((0, 3), int)
    return Precision(residual, variances(design, psi), a, f, tuple(columns), tuple(inverse), home)


def _components(m: Sparse) -> tuple[int, np.ndarray]:
    """How many blocks a symmetric matrix (q, q) has, and of which every column is."""
    found: Any = connected_components(m, directed=False) if m.shape[0] else (0, np.zeros(0, int))
    return found


def _entries(m: Sparse, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the positions (n,) in `m.data` of the k-th entry of every row, and which rows have one."""
    count = np.diff(m.indptr)
    for k in range(most):
        yield m.indptr[:-1] + k, k < count
