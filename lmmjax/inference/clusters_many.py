"""Robust covariances of many responses that share a design.

Clusters are reduced once to the space that their rows of X and Z span, of r dimensions (as few as X and Z
have different rows there), in which V_i = Σ_c ψ_c K_c is linear in the variance parameters of a response.
Clusters with equal rows are one pattern: what depends on V_i only is formed by pattern, residuals enter by
cluster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from lmmjax.covariance import FactorFamily
from lmmjax.design import Design
from lmmjax.inference.robust import Moments, adjusted, unit

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
    if design.residual is not None:
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


def tests_of_many(
    design: Design,
    blocks: list[Block],
    kind: str,
    psi: np.ndarray,
    beta: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """V_R (T, k, k), without the factor of CR1, and degrees of freedom (T, k) of contrasts rows (k, p).

    Parameters
    ----------
    psi, beta : (T, m + 1), (T, p); y : (n, T) without missing values.
    """
    p, factor = design.p, np.linalg.qr(np.asarray(design.x))[1]
    inner = np.linalg.solve(factor.T, rows.T)
    scale = entries(design, psi)
    widest = max(
        max(b.x.shape[0] * b.x.shape[1] * max(b.x.shape[1], p), b.rows.size, len(b.rows) * p) for b in blocks
    )
    step = max(ENTRIES // max(widest, len(rows) * p * p), 1)
    cov, df = np.empty((len(psi), len(rows), len(rows))), np.empty((len(psi), len(rows)))
    for first in range(0, len(psi), step):
        part = slice(first, first + step)
        residual = y[:, part] - np.asarray(design.x) @ beta[part].T
        residual -= 0.0 if design.offset is None else np.asarray(design.offset)[:, None]
        cov[part], df[part] = _chunk(blocks, kind, scale[part], residual, inner, p)
    return cov, df


def _chunk(
    blocks: list[Block], kind: str, scale: np.ndarray, residual: np.ndarray, inner: np.ndarray, p: int
) -> tuple[np.ndarray, np.ndarray]:
    """`tests_of_many` for factors (t, C), residuals (n, t) and contrasts (p, k) in coordinates of Q of X."""
    whitened, products = [], np.zeros((len(scale), p, p))
    for block in blocks:
        lower = np.linalg.cholesky(np.tensordot(scale, block.parts, axes=1))
        x = np.linalg.solve(lower, np.broadcast_to(block.x, (*lower.shape[:2], *block.x.shape[1:])))
        weighted = x * np.sqrt(block.counts)[:, None, None]
        stacked = weighted.reshape(len(scale), -1, p)
        products += np.swapaxes(stacked, 1, 2) @ stacked
        whitened.append((lower, x))
    # M = CCᵀ for every response
    c = np.swapaxes(np.linalg.inv(np.linalg.cholesky(products)), 1, 2)
    moved = np.swapaxes(c, 1, 2) @ inner
    directions = unit(moved)
    moments = Moments.empty((len(scale),), *moved.shape[1:])
    for block, (lower, x) in zip(blocks, whitened, strict=True):
        x = x @ c[:, None]
        y = adjusted(kind, lower, x)
        # Y_iᵀê_i = (L⁻ᵀY_i)ᵀe_i by cluster
        turned = np.swapaxes(np.linalg.solve(np.swapaxes(lower, -1, -2), y), -1, -2)
        e = np.swapaxes(block.basis, 1, 2)[block.pattern] @ residual[block.rows]
        scores = np.matmul(turned[:, block.pattern], np.moveaxis(e, -1, 0)[..., None])[..., 0]
        made = y @ directions[:, None]
        moments.add(scores, np.swapaxes(made, -1, -2) @ made, np.swapaxes(x, -1, -2) @ made, block.counts)
    cov = np.swapaxes(moved, 1, 2) @ moments.squares @ moved
    return cov, moments.df
