"""Robust covariances of many responses that share a design.

Clusters are reduced once to the space that their rows of X and Z span, of r dimensions (as few as X and Z
have different rows there), in which V_i = Σ_c ψ_c K_c is linear in the variance parameters of a response.
Clusters with equal rows are one pattern: what depends on V_i only is formed by pattern, residuals enter by
cluster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from lmmjax.covariance import FactorFamily
from lmmjax.design import Design
from lmmjax.inference.robust.sandwich import Moments, adjusted, unit, wishart_df

ENTRIES = 1 << 22
"""Numbers in the largest array of a chunk of responses."""

WIDEST = 64
"""Dimensions of a cluster beyond which responses are taken one after the other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Clusters of one size n, K patterns of r dimensions.

    Attributes
    ----------
    x : (K, r, p); parts : (C, K, r, r), the matrices K_c, first that of σ².
    rows : (g, n) of the design; pattern : (g,) of each cluster; basis : (K, n, r).
    """

    x: np.ndarray
    parts: np.ndarray
    rows: np.ndarray
    pattern: np.ndarray
    basis: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        return np.bincount(self.pattern, minlength=len(self.x)).astype(float)


def shared_blocks(design: Design, codes: np.ndarray) -> list[Block] | None:
    """The clusters (n,) of a design; None where V is not linear in variances, or a cluster is too large."""
    if design.residual is not None or any(term.kernel is not None for term in design.terms):
        return None
    order = np.argsort(codes, kind="stable")
    starts = np.append(np.searchsorted(codes[order], np.arange(codes.max() + 1)), len(order))
    sizes, out = np.diff(starts), []
    # orthonormal columns, so that sizes of columns do not matter
    x = np.linalg.qr(np.asarray(design.x))[0]
    for size in np.unique(sizes):
        rows = order[starts[:-1][sizes == size][:, None] + np.arange(size)]
        members = [_members(np.asarray(t.z)[rows], t.codes[rows]) for t in design.terms]
        if sum(m.shape[2] * m.shape[3] for m in members) > size * WIDEST:
            return None
        weights = np.ones(rows.shape) if design.weights is None else np.asarray(design.weights)[rows]
        columns = [x[rows], *(m.reshape(*rows.shape, -1) for m in members), weights[:, :, None]]
        flat = np.concatenate(columns, axis=2)
        _, first, pattern = np.unique(
            flat.reshape(len(rows), -1), axis=0, return_index=True, return_inverse=True
        )
        for kinds, basis in _bases(flat[first, :, :-1], weights[first]):
            if basis.shape[2] > WIDEST:
                return None
            out.append(_block(design, x, rows, members, weights, first, pattern.ravel(), kinds, basis))
    return out


def _members(z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Columns (g, n, L, q) of the levels in every cluster, at most L, for z (g, n, q) and codes (g, n)."""
    order = np.argsort(codes, axis=1)
    rising = np.diff(np.take_along_axis(codes, order, axis=1), axis=1, prepend=codes.min() - 1) > 0
    place = np.empty(codes.shape, int)
    np.put_along_axis(place, order, np.cumsum(rising, axis=1) - 1, axis=1)
    out = np.zeros((*codes.shape, place.max() + 1, z.shape[2]))
    g, n = np.indices(codes.shape)
    out[g, n, place] = z
    return out


def _bases(columns: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Patterns (K,) and orthonormal bases (K, n, r) of their columns (·, n, k), by the dimension r.

    Where weights differ within a cluster V is no multiple of I beside any such space, and all of it is taken.
    """
    n = columns.shape[1]
    mixed = np.ptp(weights, axis=1) > 0
    if mixed.any():
        kinds = np.flatnonzero(mixed)
        yield kinds, np.broadcast_to(np.eye(n), (len(kinds), n, n))
    kinds = np.flatnonzero(~mixed)
    length = np.linalg.norm(columns[kinds], axis=1, keepdims=True)
    u, values, _ = np.linalg.svd(columns[kinds] / np.where(length > 0, length, 1.0), full_matrices=False)
    rank = np.sum(values > 1e-14 * n * values[:, :1], axis=1)
    for r in np.unique(rank):
        yield kinds[rank == r], u[rank == r][:, :, :r]


def _block(
    design: Design,
    x: np.ndarray,
    rows: np.ndarray,
    members: list[np.ndarray],
    weights: np.ndarray,
    first: np.ndarray,
    pattern: np.ndarray,
    kinds: np.ndarray,
    basis: np.ndarray,
) -> Block:
    turned, at = np.swapaxes(basis, 1, 2), first[kinds]
    parts = [turned @ (basis / weights[at][:, :, None])]
    for member, term in zip(members, design.structure.free.terms, strict=True):
        inner = np.einsum("krn,knlq->krlq", turned, member[at])
        assert isinstance(term.family, FactorFamily)
        for entry in term.family.units(term.q):
            parts.append(np.einsum("krla,ab,kslb->krs", inner, entry, inner))
    own = np.isin(pattern, kinds)
    place = np.zeros(len(first), int)
    place[kinds] = np.arange(len(kinds))
    return Block(turned @ x[rows[at]], np.stack(parts), rows[own], place[pattern[own]], basis)


def entries(design: Design, psi: np.ndarray) -> np.ndarray:
    """The factors (T, C) of the parts K_c of V, for ψ (T, m + 1): σ², then the entries of every σ²D."""
    structure = design.structure
    if all(term.family.linear for term in structure.terms):
        return np.concatenate([psi[:, -1:], psi[:, :-1]], axis=1)
    free = structure.free
    of_each = [np.asarray(free.natural(structure.absolute(own), own.dtype)) for own in psi]
    return np.concatenate([psi[:, -1:], np.array(of_each)], axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Some clusters of some responses, in coordinates of X in which M = I.

    Attributes
    ----------
    scores : (t, g, p) Y_iᵀê_i by cluster; x, y : (t, K, r, p) X̂ and Y by pattern.
    block : the clusters.
    """

    scores: np.ndarray
    x: np.ndarray
    y: np.ndarray
    block: Block

    def moments(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Y_iᵀY_i (t, K, k, k) and X̂_iᵀY_i (t, K, p, k) in the directions c (t, p, k), how many of each."""
        made = self.y @ c[:, None]
        return np.swapaxes(made, -1, -2) @ made, np.swapaxes(self.x, -1, -2) @ made, self.block.counts


@dataclasses.dataclass(frozen=True, eq=False)
class ManyClusters:
    """Clusters of many responses that share a design.

    Attributes
    ----------
    design, blocks : the design and its clusters.
    psi, beta : (T, m + 1), (T, p); y : (n, T) without missing values.
    """

    design: Design
    blocks: list[Block]
    psi: np.ndarray
    beta: np.ndarray
    y: np.ndarray

    def single_tests(self, kind: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V_R (T, k, k), without the factor of CR1, and degrees of freedom (T, k) of contrasts (k, p)."""
        cov, df = np.empty((len(self.psi), len(rows), len(rows))), np.empty((len(self.psi), len(rows)))
        for part, c, pieces in self.pieces(kind, len(rows) * self.design.p**2):
            moved = self._moved(c, rows)
            directions, moments = unit(moved), Moments.empty((len(c),), *moved.shape[1:])
            for piece in pieces:
                moments.add(piece.scores, *piece.moments(directions))
            cov[part] = np.swapaxes(moved, 1, 2) @ moments.squares @ moved
            df[part] = moments.df
        return cov, df

    def joint_tests(self, kind: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """V_R (T, k, k) as `single_tests` gives it, and η (T,) of Hotelling's T² for all contrasts (k, p)."""
        cov, eta = np.empty((len(self.psi), len(rows), len(rows))), np.empty(len(self.psi))
        for part, c, pieces in self.pieces(kind, 2 * (len(rows) * self.design.p) ** 2):
            moved = self._moved(c, rows)
            directions, squares = unit(moved), np.zeros_like(c)
            found = []
            for piece in pieces:
                squares = squares + np.swapaxes(piece.scores, 1, 2) @ piece.scores
                found.append(piece.moments(directions))
            own, cross, counts = zip(*found, strict=True)
            cov[part] = np.swapaxes(moved, 1, 2) @ squares @ moved
            eta[part] = wishart_df(
                np.concatenate(own, axis=1), np.concatenate(cross, axis=1), np.concatenate(counts)
            )
        return cov, eta

    @cached_property
    def factor(self) -> np.ndarray:
        """R (p, p) of X = QR."""
        return np.linalg.qr(np.asarray(self.design.x))[1]

    def _moved(self, c: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Contrasts (t, p, k) in the coordinates of C (t, p, p)."""
        return np.swapaxes(c, 1, 2) @ np.linalg.solve(self.factor.T, rows.T)

    def pieces(self, kind: str, more: int = 0) -> Iterator[tuple[slice, np.ndarray, list[Piece]]]:
        """Yields some of the responses, C (t, p, p) with M = CCᵀ in the coordinates of Q, and their clusters.

        `more` are the numbers of a response that the caller holds.
        """
        p, design, scale = self.design.p, self.design, entries(self.design, self.psi)
        widest = max(
            max(b.x.shape[0] * b.x.shape[1] * max(b.x.shape[1], p), b.rows.size, len(b.rows) * p)
            for b in self.blocks
        )
        step = max(ENTRIES // max(widest, more), 1)
        for first in range(0, len(self.psi), step):
            part = slice(first, first + step)
            residual = self.y[:, part] - np.asarray(design.x) @ self.beta[part].T
            residual -= 0.0 if design.offset is None else np.asarray(design.offset)[:, None]
            c, pieces = _pieces(self.blocks, kind, scale[part], residual, p)
            yield part, c, pieces


def _pieces(
    blocks: list[Block], kind: str, scale: np.ndarray, residual: np.ndarray, p: int
) -> tuple[np.ndarray, list[Piece]]:
    """C (t, p, p) and the clusters, for factors (t, C) and residuals (n, t)."""
    whitened, products = [], np.zeros((len(scale), p, p))
    for block in blocks:
        lower = np.linalg.cholesky(np.tensordot(scale, block.parts, axes=1))
        x = np.linalg.solve(lower, np.broadcast_to(block.x, (*lower.shape[:2], *block.x.shape[1:])))
        weighted = x * np.sqrt(block.counts)[:, None, None]
        stacked = weighted.reshape(len(scale), -1, p)
        products += np.swapaxes(stacked, 1, 2) @ stacked
        whitened.append((lower, x))
    # M = CCᵀ for every response
    c, out = np.swapaxes(np.linalg.inv(np.linalg.cholesky(products)), 1, 2), []
    for block, (lower, x) in zip(blocks, whitened, strict=True):
        x = x @ c[:, None]
        y = adjusted(kind, lower, x)
        # Y_iᵀê_i = (L⁻ᵀY_i)ᵀe_i by cluster
        turned = np.swapaxes(np.linalg.solve(np.swapaxes(lower, -1, -2), y), -1, -2)
        e = np.swapaxes(block.basis, 1, 2)[block.pattern] @ residual[block.rows]
        scores = np.matmul(turned[:, block.pattern], np.moveaxis(e, -1, 0)[..., None])[..., 0]
        out.append(Piece(scores, x, y, block))
    return c, out
