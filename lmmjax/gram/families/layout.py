"""Which rows are independent of which, and where each stands in stacks of small matrices.

Sets of rows that any term connects are families. Those of about the same size stand in one stack, filled up
to `SIZES`, so that few programs are made.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.design import Design, RandomTerm

ROWS, SHARE = 1000, 0.05
"""Rows from which on families are looked for, and the share of the n² numbers up to which they pay."""

SIZES = (1, 2, 3, 4, 6, 8, *(round(12 * 2 ** (k / 2)) for k in range(20)))
"""What families are filled up to."""


def families(design: Design) -> np.ndarray:
    """(n,) the family of every row, from 0 on; of concrete arrays."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    n, parts = design.n, []
    for term in design.terms:
        _, label = np.unique(np.asarray(term.blocks), return_inverse=True)
        parts.append(sp.csr_array((np.ones(n), (np.arange(n), label)), shape=(n, int(label.max()) + 1)))
    both: Any = sp.hstack(parts, format="csr")
    graph = sp.block_array([[None, both], [both.T, None]], format="csr")
    _, out = np.unique(connected_components(graph, directed=False)[1][:n], return_inverse=True)
    return out


def pays(design: Design) -> bool:
    """Whether rows fall into families that are small, and many; kernels that are arrays connect all rows."""
    kernels = [term.kernel for term in design.terms if term.kernel is not None]
    whole = any(isinstance(kernel.factor, np.ndarray) for kernel in kernels)
    if design.n < ROWS or design.residual is not None or whole:
        return False
    sizes = np.bincount(families(design)).astype(float)
    return float(sizes @ sizes) <= SHARE * float(design.n) ** 2 and sizes.max() <= SIZES[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """B families of up to s rows.

    Attributes
    ----------
    rows : (B, s) the rows of each, n where there is none; home : (C,) of all families the place here, −1 of
        others.
    """

    rows: np.ndarray
    home: np.ndarray


def alike_first(between: list[Any]) -> list[np.ndarray]:
    """Per term numbers (n,) that rows of one role have in common: sums of their squared covariances."""
    out = []
    for entries in between:
        i, _ = entries.coords
        sums = np.bincount(i, entries.data**2, entries.shape[0])
        out.append(np.round(sums / max(sums.max(), 1e-300), 9))
    return out


def stacked(
    label: np.ndarray, count: int, role: list[np.ndarray] | None = None
) -> list[tuple[Stack, np.ndarray]]:
    """Families `label` (n,) of `count` in stacks, and the place (n,) of every row in its family.

    Parameters
    ----------
    role : numbers (n,) by which the rows of a family are ordered, so that equal families look alike.
    """
    sizes, order = np.bincount(label, minlength=count), np.lexsort((*(role or ()), label))
    starts = np.cumsum(sizes) - sizes
    local = np.empty(len(label), np.int64)
    local[order] = np.arange(len(label)) - starts[label[order]]
    to = np.array(SIZES)[np.searchsorted(SIZES, sizes)]
    out = []
    for s in np.unique(to[sizes > 0]):
        mine = np.flatnonzero((to == s) & (sizes > 0))
        home = np.full(count, -1)
        home[mine] = np.arange(len(mine))
        rows = np.full((len(mine), s), len(label))
        at = home[label] >= 0
        rows[home[label[at]], local[at]] = np.flatnonzero(at)
        out.append((Stack(rows, home), local))
    return out


def placed(
    entries: Any,
    stack: Stack,
    label: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """Dense blocks (B, r, s) of the entries of a sparse matrix.

    Parameters
    ----------
    label : the family of every column; row, column : their places in it.
    """
    i, j = entries.coords
    block = stack.home[label[j]]
    here = block >= 0
    out = np.zeros((len(stack.rows), *shape))
    out[block[here], row[i[here]], column[j[here]]] = entries.data[here]
    return out


def between_rows(term: RandomTerm) -> Any:
    """(n, n) covariances of the groups of rows up to D, sparse by its entries."""
    incidence = _incidence(term)
    if term.kernel is None:
        return (incidence @ incidence.T).tocoo()
    half = term.kernel.factor[np.asarray(term.codes)]
    return (half @ half.T).tocoo()


def with_levels(term: RandomTerm) -> Any:
    """(G, n) covariances of all levels with the groups of rows, sparse by its entries."""
    if term.kernel is None:
        return _incidence(term).T.tocoo()
    factor = term.kernel.factor
    return (factor @ factor[np.asarray(term.codes)].T).tocoo()


def _incidence(term: RandomTerm) -> Any:
    import scipy.sparse as sp

    n = len(term.codes)
    return sp.csr_array((np.ones(n), (np.arange(n), np.asarray(term.codes))), shape=(n, term.n_groups))
