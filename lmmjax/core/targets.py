"""What is predicted: linear functions of β, b and residuals, in blocks that share columns.

Parts of the data that are independent of each other share columns: a block holds one target of each part in
a slot, so that a pass over all rows serves as many targets as there are parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmmjax.core.mixed_equations import MixedEquations

BLOCK = 1 << 22
"""Entries of the arrays (N or n, targets) that are held at a time."""

SMALL, MOST = 2_000, 0.5
"""Rows from which on, and share of them up to which, equations of the touched parts are worth making."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What is predicted: k targets t = xᵀβ + aᵀb + e, in the internal coordinates of the equations.

    Attributes
    ----------
    x : (k, p); a : (k, N) sparse.
    cross : (k, n) sparse, ρᵀ; None without residuals, as are: variance : (k,) τ;
    cross_slopes : per parameter of the residuals (k, n) sparse, ∂_cρᵀ; variance_slopes : (k, m_r) ∂_cτ.
    """

    x: np.ndarray
    a: Any
    cross: Any = None
    variance: np.ndarray | None = None
    cross_slopes: tuple[Any, ...] = ()
    variance_slopes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, some: np.ndarray | slice) -> Targets:
        """Some of the targets."""
        if self.cross is None or self.variance is None or self.variance_slopes is None:
            return Targets(self.x[some], self.a[some])
        return Targets(
            self.x[some],
            self.a[some],
            self.cross[some],
            self.variance[some],
            tuple(slope[some] for slope in self.cross_slopes),
            self.variance_slopes[some],
        )


@dataclass(frozen=True, eq=False)
class Given:
    """Targets given the residuals of the rows: x̃ (k, p), ã (k, N), κ (k,), and ρ*ᵀ (k, n) or None."""

    x: np.ndarray
    a: Any
    variance: np.ndarray
    star: Any


def given_residuals(e: MixedEquations, targets: Targets) -> Given:
    """x̃ = x − X*ᵀρ*, ã = a − Z*ᵀρ*, κ = τ − ρ*ᵀρ*, with ρ* = Wρ."""
    if targets.cross is None or targets.variance is None:
        return Given(targets.x, targets.a.tocsr(), np.zeros(len(targets)), None)
    star = (targets.cross @ e.root.T).tocsr()
    left = targets.variance - np.asarray(star.multiply(star).sum(axis=1)).ravel()
    return Given(targets.x - star @ e.x, (targets.a - star @ e.z).tocsr(), np.maximum(left, 0.0), star)


@dataclass(frozen=True, eq=False)
class Axis:
    """Columns of Z, or rows, by part, beside the targets of a block: each in a part and a slot.

    Attributes
    ----------
    parts : (N,) the part of every column or row; n_parts : their number.
    part, slot : (k,) of every target; width : number of slots.
    """

    parts: np.ndarray
    n_parts: int
    part: np.ndarray
    slot: np.ndarray
    width: int

    @cached_property
    def _indicator(self) -> Any:
        import scipy.sparse as sp

        n = len(self.parts)
        return sp.csr_array((np.ones(n), (self.parts, np.arange(n))), shape=(self.n_parts, n))

    def spread(self, a: Any) -> np.ndarray:
        """Targets' rows (k, N), sparse, as columns (N, width)."""
        a, out = a.tocoo(), np.zeros((len(self.parts), self.width))
        np.add.at(out, (a.coords[1], self.slot[a.coords[0]]), a.data)
        return out

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums (k,) of values (N, width) over the part of each target, in its slot."""
        return (self._indicator @ values)[self.part, self.slot]

    def products(self, matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Sums (k, p) of matrix (N, p) times values (N, width) over the part of each target."""
        if self.n_parts == 1:
            return (matrix.T @ values).T[self.slot]
        return np.column_stack([self.sum(column[:, None] * values) for column in matrix.T])

    def combined(self, matrix: np.ndarray, g: np.ndarray) -> np.ndarray:
        """matrix (N, p) times g (k, p) of the target in the part and slot of every entry, (N, width)."""
        whole = np.zeros((g.shape[1], self.n_parts, self.width))
        whole[:, self.part, self.slot] = g.T
        if self.n_parts == 1:
            return matrix @ whole[:, 0]
        out = np.zeros((len(matrix), self.width))
        for column, own in zip(matrix.T, whole, strict=True):
            out += column[:, None] * own[self.parts]
        return out


@dataclass(frozen=True, eq=False)
class Block:
    """Targets (k,), no two of one part in one slot, beside the columns of Z and the rows."""

    targets: np.ndarray
    columns: Axis
    rows: Axis


@dataclass(frozen=True, eq=False)
class Near:
    """The parts of the data that targets have something in, with ã and ρ* there.

    `rows` and `columns` are those of the equations that these `equations` are made of.
    """

    equations: MixedEquations
    given: Given
    rows: np.ndarray
    columns: np.ndarray


def near(e: MixedEquations, given: Given) -> Near:
    """The parts that are touched, or everything where that is most of the data."""
    whole = Near(e, given, np.arange(len(e.row_parts)), np.arange(e.n_columns))
    if len(e.row_parts) < SMALL:
        return whole
    touched = e.column_parts[given.a.indices]
    if given.star is not None:
        touched = np.append(touched, e.row_parts[given.star.indices])
    there = np.isin(e.row_parts, touched)
    if np.count_nonzero(there) > MOST * len(there):
        return whole
    rows, columns = np.flatnonzero(there), np.flatnonzero(np.isin(e.column_parts, touched))
    star = None if given.star is None else given.star[:, rows]
    inside = Given(given.x, given.a[:, columns], given.variance, star)
    return Near(e.within(rows, columns), inside, rows, columns)


def blocks(e: MixedEquations, given: Given, layers: int = 1) -> Iterator[Block]:
    """The targets whose ã or ρ* is not zero, in blocks of which so many layers are held at a time."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, star = given.a, given.star
    if not a.nnz and (star is None or not star.nnz):
        return
    n_parts = max((int(parts.max()) + 1 for parts in (e.column_parts, e.row_parts) if len(parts)), default=0)
    touched = [(a.tocoo().coords, e.column_parts)] + (
        [] if star is None else [(star.tocoo().coords, e.row_parts)]
    )
    target = np.concatenate([coords[0] for coords, _ in touched])
    part = np.concatenate([parts[coords[1]] for coords, parts in touched])
    # parts that a target has in common become one
    own, first = np.unique(target, return_index=True)
    lead = np.zeros(a.shape[0], int)
    lead[own] = part[first]
    link = coo_array((np.ones(len(part)), (lead[target], part)), shape=(n_parts, n_parts))
    n_parts, joined = connected_components(link, directed=False)
    columns, rows, part = joined[e.column_parts], joined[e.row_parts], joined[part[first]]
    # the slot of a target is its number within its part
    order = np.argsort(part, kind="stable")
    sizes = np.bincount(part, minlength=n_parts)
    slot = np.empty(len(own), int)
    slot[order] = np.arange(len(own)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    length = max(len(columns), len(rows) if e.slopes is not None or layers > 1 else 0, 1)
    width = max(1, BLOCK // (length * layers))
    for start in range(0, int(slot.max()) + 1, width):
        some = np.flatnonzero((slot >= start) & (slot < start + width))
        place = part[some], slot[some] - start
        wide = int(place[1].max()) + 1
        yield Block(own[some], Axis(columns, n_parts, *place, wide), Axis(rows, n_parts, *place, wide))


class Local:
    """What a block of targets is in its own parts: (N, width) and, with residuals, (n, width)."""

    def __init__(self, e: MixedEquations, block: Block, given: Given):
        self.equations, self.block, self.star = e, block, given.star
        a = block.columns.spread(given.a[block.targets])
        self.b = e.factor.T @ a
        self.s = e.solve(self.b)
        self.absorbed = e.factor @ self.s
        # ã − Z*ᵀZ*Λs
        self.w = a - e.zz @ self.absorbed

    @cached_property
    def zeta(self) -> np.ndarray:
        """ρ* + Z*Λs (n, width)."""
        out, block = self.equations.z @ self.absorbed, self.block
        return out if self.star is None else out + block.rows.spread(self.star[block.targets])
