"""Sparse matrices that fall into blocks along their diagonal, as stacks of dense blocks of equal size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

AT_ONCE = 1 << 24
"""Numbers of a stack."""


def stacks(k: Any, label: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Members (B, s) and blocks (B, s, s) of a sparse symmetric matrix (n, n), size by size.

    Parameters
    ----------
    label : (n,) the block of every row, from 0 on; entries between blocks are none.
    """
    sizes, order = np.bincount(label), np.argsort(label, kind="stable")
    starts = np.cumsum(sizes) - sizes
    local = np.empty(len(label), np.int64)
    local[order] = np.arange(len(label)) - starts[label[order]]
    entries = k.tocoo()
    row, column = entries.coords
    by_size = np.argsort(sizes[label[row]], kind="stable")
    row, column, data = row[by_size], column[by_size], entries.data[by_size]
    of = sizes[label[row]]
    for s in np.unique(sizes[sizes > 0]):
        blocks = np.flatnonzero(sizes == s)
        mine = slice(*np.searchsorted(of, [s, s + 1]))
        number = np.empty(len(sizes), np.int64)
        number[blocks] = np.arange(len(blocks))
        step = max(1, AT_ONCE // int(s * s))
        at = number[label[row[mine]]]
        for first in range(0, len(blocks), step):
            some = blocks[first : first + step]
            here = slice(None) if len(some) == len(blocks) else (at >= first) & (at < first + step)
            out = np.zeros((len(some), s, s))
            place = (at[here] - first, local[row[mine][here]], local[column[mine][here]])
            out[place] = data[mine][here]
            yield order[starts[some][:, None] + np.arange(s)], out


def placed(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, int]) -> Any:
    """The sparse matrix of stacks: members (B, s) as rows, columns (B, t), values (B, s, t)."""
    import scipy.sparse as sp

    rows = [np.repeat(members.ravel(), values.shape[2]) for members, _, values in parts]
    columns = [np.broadcast_to(at[:, None, :], values.shape).ravel() for _, at, values in parts]
    data = [values.ravel() for _, _, values in parts]
    joined = [np.concatenate([*a, np.zeros(0, a[0].dtype if a else float)]) for a in (data, rows, columns)]
    out = sp.csr_array((joined[0], (joined[1].astype(np.int64), joined[2].astype(np.int64))), shape=shape)
    out.eliminate_zeros()
    return out
