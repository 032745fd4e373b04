"""The clusters of a design at an estimate: whitened rows, and what sandwich covariances are made of.

What needs V⁻¹X only goes row by row, whatever V is. CR2 needs a function of V_i and X_i that mixes them: it
is formed cluster by cluster, of clusters of one size at once. In a large cluster whose residuals are
independent everything happens in the space that X_i and Z_i span among rows of equal residual variance, on
whose complement V_i is a multiple of I; with a variance for every row by a rational approximation
(`bias_reduced.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from lmmjax.arrays.memory import require_memory
from lmmjax.core.marginal import blocks, marginal, scaled_columns
from lmmjax.core.residuals import variances
from lmmjax.design import Design
from lmmjax.inference.robust.bias_reduced import BySums, bias_reduced
from lmmjax.inference.robust.sandwich import LEVERAGE, ByProducts, Clusters, by_rows, jackknife

SMALL = 64
"""Rows of a cluster up to which it is taken as it is."""

ALONE = 1e-8
"""Share of a contrast that may lie in directions of a single cluster."""

ENTRIES = 1 << 20
"""Numbers in an array that is formed for several clusters at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Clustered:
    """A design at an estimate, its rows by cluster.

    Attributes
    ----------
    design, psi : the model and ψ (m + 1,).
    factor : C (p, p) with M = CCᵀ: XC are the coordinates in which M = I.
    order : (n,) rows by cluster; starts : (G + 1,) where clusters begin in it.
    white, apart : (n, p) rows by cluster of L⁻¹XC, and of the same multiplied by the inverse of L⁻¹VL⁻ᵀ.
    residual : (n,) rows of e, and `white_residual` of L⁻¹e.
    """

    design: Design
    psi: np.ndarray
    factor: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    white: np.ndarray
    apart: np.ndarray
    residual: np.ndarray
    white_residual: np.ndarray

    @property
    def n_clusters(self) -> int:
        return len(self.starts) - 1

    def pieces(self, kind: str) -> Iterator[Clusters]:
        """All clusters, some at a time, for a `kind` of `robust.KINDS`."""
        if kind == "CR2":
            yield from self._bias_reduced()
            return
        for f, s in self._products():
            yield ByProducts(f, s, jackknife(f) if kind == "CR3" else None)

    def _products(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """F_i (g, p, p) and X_iᵀV_i⁻¹e_i (g, p)."""
        p, starts = self.white.shape[1], self.starts
        most, first = max(ENTRIES // max(p * p, 1), 1), 0
        while first < self.n_clusters:
            last = max(int(np.searchsorted(starts, starts[first] + most, "right")) - 1, first + 1)
            rows = slice(starts[first], starts[last])
            white, apart, e = self.white[rows], self.apart[rows], self.white_residual[rows]
            if last == first + 1:
                yield (white.T @ apart)[None], (apart.T @ e)[None]
            else:
                inner = starts[first:last] - starts[first]
                f = np.add.reduceat(white[:, :, None] * apart[:, None, :], inner, axis=0)
                yield f, np.add.reduceat(apart * e[:, None], inner, axis=0)
            first = last

    def _bias_reduced(self) -> Iterator[Clusters]:
        sizes = np.diff(self.starts)
        for size in np.unique(sizes):
            which = np.flatnonzero(sizes == size)
            step = max(ENTRIES // int(size) ** 2, 1) if size <= SMALL else 1
            for first in range(0, len(which), step):
                at = self.starts[which[first : first + step]][:, None] + np.arange(size)
                rows = self.order[at]
                x, e = self.design.x[rows] @ self.factor, self.residual[at]
                reduced = None if size <= SMALL else _reduced(self.design, self.psi, rows[0], x[0], e[0])
                if reduced is None and size > SMALL:
                    sums = self._low_rank(rows[0], x[0], e[0])
                    if sums is not None:
                        yield sums
                        continue
                if reduced is None:
                    what = f"CR2 of a cluster of {size:,} rows (CR1 and CR3 need no such matrix)"
                    require_memory(what, 6, len(rows), size, size)
                    reduced = blocks(self.design, self.psi, rows), x, e
                yield by_rows("CR2", *reduced)

    @cached_property
    def _effects(self) -> Any:
        return scaled_columns(self.design, self.psi)

    @cached_property
    def _variances(self) -> np.ndarray:
        return variances(self.design, self.psi)

    def _low_rank(self, rows: np.ndarray, x: np.ndarray, e: np.ndarray) -> BySums | None:
        """A large cluster with residual variances of its rows' own; None if it has too many levels."""
        if _correlated(self.design):
            return None
        part = self._effects[rows]
        used = np.unique(part.indices)
        if x.shape[1] + 2 * len(used) > len(rows) // 2:
            return None
        return bias_reduced(self._variances[rows], part[:, used].toarray(), x, e)


def _correlated(design: Design) -> bool:
    return design.residual is not None and design.residual.structure.residual.correlation is not None


def clustered(
    design: Design, psi: np.ndarray, beta: np.ndarray, y: np.ndarray, codes: np.ndarray
) -> Clustered:
    """The rows of a design by cluster, codes (n,) 0 … G − 1, at ψ (m + 1,) and β (p,), for y (n,)."""
    x = np.asarray(design.x)
    e = y - x @ beta - (0.0 if design.offset is None else design.offset)
    own = marginal(design, psi)
    white = own.whitened(np.column_stack([x, e]))
    # orthonormal columns first: products of raw ones would lose digits
    q, r = np.linalg.qr(white[:, :-1])
    apart = own.apart(q)
    inner = np.linalg.inv(np.linalg.cholesky(q.T @ apart)).T
    order = np.argsort(codes, kind="stable")
    starts = np.append(np.searchsorted(codes[order], np.arange(codes.max() + 1)), len(order))
    return Clustered(
        design,
        psi,
        np.linalg.solve(r, inner),
        order,
        starts,
        (q @ inner)[order],
        (apart @ inner)[order],
        e[order],
        white[order, -1],
    )


def _reduced(
    design: Design, psi: np.ndarray, rows: np.ndarray, x: np.ndarray, e: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """V (1, r, r), X (1, r, p) and e (1, r) of a cluster in the space that matters; None if that is all."""
    if _correlated(design) or any(term.kernel is not None for term in design.terms):
        return None
    z, covariances = [], design.structure.absolute(psi)
    for term in design.terms:
        levels, code = np.unique(term.codes[rows], return_inverse=True)
        if x.shape[1] + len(levels) * term.q + sum(a.shape[1] for a in z) > len(rows) // 2:
            return None
        member = np.zeros((len(rows), len(levels), term.q))
        member[np.arange(len(rows)), code] = np.asarray(term.z)[rows]
        z.append(member.reshape(len(rows), -1))
    columns = np.concatenate([x, *z], axis=1)
    scale = np.linalg.norm(columns, axis=0)
    columns = columns / np.where(scale > 0, scale, 1.0)
    values, cell = np.unique(variances(design, psi)[rows], return_inverse=True)
    if len(values) * columns.shape[1] > len(rows):
        return None
    bases, spread = [], []
    for k, value in enumerate(values):
        here = np.flatnonzero(cell == k)
        u, length, _ = np.linalg.svd(columns[here], full_matrices=False)
        kept = u[:, length > 1e-14 * len(rows) * length[0]]
        bases.append((here, kept))
        spread.append(np.full(kept.shape[1], value))

    def inside(a: np.ndarray) -> np.ndarray:
        return np.concatenate([basis.T @ a[here] for here, basis in bases])

    v = np.diag(np.concatenate(spread))
    for member, covariance, term in zip(z, covariances, design.terms, strict=True):
        own_z = inside(member)
        by_level = own_z.reshape(len(own_z), -1, term.q)
        v += (by_level @ np.asarray(covariance)).reshape(own_z.shape) @ own_z.T
    return v[None], inside(x)[None], inside(e[:, None]).T


def alone(design: Design, codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which contrasts, rows (k, p) of L, a single cluster (codes (n,)) determines, in part at least.

    In coordinates in which X has orthonormal columns, X_iᵀX_i has an eigenvalue of 1 for directions in which
    the rows of all other clusters are 0: without cluster i contrasts along them cannot be estimated, and no
    variation between clusters tells how precise they are, whatever V is.
    """
    q, r = np.linalg.qr(np.asarray(design.x))
    inner, found = np.linalg.solve(r.T, rows.T), [np.zeros((design.p, 0))]
    size = np.bincount(codes, np.sum(q**2, axis=1))
    for i in np.flatnonzero(size > 1.0 - LEVERAGE):
        own = q[codes == i]
        values, vectors = np.linalg.eigh(own.T @ own)
        found.append(vectors[:, values > 1.0 - LEVERAGE])
    share = np.sum((np.concatenate(found, axis=1).T @ inner) ** 2, axis=0)
    return share > ALONE * np.sum(inner**2, axis=0)
