"""Covariance matrices of levels, checked and in factors K = LLᵀ."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg as sl

from lmmjax.arrays.diagonal_blocks import placed, stacks
from lmmjax.design.kernels import LevelKernel

ASYMMETRY = 1e-8
"""Largest difference of K_ij and K_ji that is rounding, in √(K_ii K_jj)."""

FAR = 1e140
"""Variances beyond this, or below its inverse, have squares that are no doubles."""

BLOCK = 10_000
"""Most levels of one block of a sparse kernel, which is factored as a dense matrix."""

DEFINITE = 1e-10
"""Share of the largest variance that a level must have beside the others, for a triangular factor."""


def level_kernel(k: Any, ids: Any, tolerance: float) -> LevelKernel:
    """K (G, G) of levels with labels `ids` checked and in factors, block by block where it is sparse.

    Raises
    ------
    ValueError : it is not finite, symmetric or positive semi-definite, or a block is too large.
    """
    if isinstance(k, np.ndarray):
        k = symmetric(k, ids)
        return LevelKernel(root(k, tolerance), k)
    return _by_blocks(_sparse_symmetric(k, ids), ids, tolerance)


def _by_blocks(k: Any, ids: Any, tolerance: float) -> LevelKernel:
    from scipy.sparse.csgraph import connected_components

    label = connected_components(k, directed=False)[1]
    largest = int(np.bincount(label).max())
    if largest > BLOCK:
        raise ValueError(
            f"the kernel has a block of {largest:,} connected levels, of at most {BLOCK:,}: "
            "set small relationships to zero, or use low_rank"
        )
    parts, width = [], 0
    for members, blocks in stacks(k, label):
        roots = _triangular(blocks)
        if roots is not None:
            count = roots.shape[0] * roots.shape[2]
            parts.append((members, width + np.arange(count).reshape(len(roots), -1), roots))
            width += count
            continue
        for own, block in zip(members, blocks, strict=True):
            try:
                one = root(block, tolerance)
            except ValueError as error:
                raise ValueError(f"in the block of {ids[own[0]]!r} {error}") from None
            parts.append((own[None], width + np.arange(one.shape[1])[None], one[None]))
            width += one.shape[1]
    return LevelKernel(placed(parts, (len(ids), width)), k)


def _triangular(blocks: np.ndarray) -> np.ndarray | None:
    """Triangular factors (B, s, s) of blocks of which none is close to singular."""
    try:
        factors = np.linalg.cholesky(blocks)
    except np.linalg.LinAlgError:
        return None
    smallest = np.min(np.diagonal(factors, axis1=1, axis2=2), axis=1) ** 2
    most = np.max(np.diagonal(blocks, axis1=1, axis2=2), axis=1)
    return factors if np.all(smallest > DEFINITE * most) else None


def _sparse_symmetric(k: Any, ids: Any) -> Any:
    """A sparse K with rounding taken off; ValueError names the pair of levels that is wrong."""
    import scipy.sparse as sp

    entries = k.tocoo()
    row, column = entries.coords
    if not np.all(np.isfinite(entries.data)):
        at = int(np.argmin(np.isfinite(entries.data)))
        raise ValueError(f"the kernel is not finite at {ids[row[at]]!r}, {ids[column[at]]!r}")
    diagonal = k.diagonal()
    _require_variances(diagonal, ids)
    apart = sp.coo_array(k - k.T)
    row, column = apart.coords
    scale = np.maximum(np.sqrt(diagonal[row] * diagonal[column]), np.finfo(float).tiny)
    share = np.abs(apart.data) / scale
    if share.max(initial=0.0) > ASYMMETRY:
        at = int(np.argmax(share))
        _refuse_asymmetry(k[row[at], column[at]], k[column[at], row[at]], ids[row[at]], ids[column[at]])
    out = sp.csr_array(0.5 * (k + k.T))
    out.eliminate_zeros()
    return out


def _require_variances(diagonal: np.ndarray, ids: Any) -> None:
    most = float(diagonal.max(initial=0.0))
    if most > FAR or 0 < most < 1.0 / FAR:
        raise ValueError(
            f"the kernel has variances of the size {most:.3g}, whose squares are no doubles: divide it by a "
            "power of 10"
        )
    if np.any(diagonal < 0):
        i = int(np.argmin(diagonal))
        raise ValueError(f"the kernel has the variance {diagonal[i]:g} of {ids[i]!r}: none is below zero")


def _refuse_asymmetry(one: float, other: float, a: Any, b: Any) -> None:
    raise ValueError(
        f"the kernel is not symmetric: {one:g} at {a!r}, {b!r}, the other way {other:g}: correct one of them"
    )


def symmetric(k: np.ndarray, ids: Any) -> np.ndarray:
    """K with rounding taken off; ValueError names the pair of levels that differ most, or is not finite."""
    if not np.all(np.isfinite(k)):
        i, j = np.unravel_index(int(np.argmin(np.isfinite(k))), k.shape)
        raise ValueError(f"the kernel is not finite at {ids[i]!r}, {ids[j]!r}")
    diagonal = np.diagonal(k)
    _require_variances(diagonal, ids)
    if np.array_equal(k, k.T):
        return k
    scale = np.maximum(np.sqrt(np.outer(diagonal, diagonal)), np.finfo(float).tiny)
    apart = np.abs(k - k.T) / scale
    if apart.max() > ASYMMETRY:
        i, j = np.unravel_index(int(np.argmax(apart)), k.shape)
        _refuse_asymmetry(k[i, j], k[j, i], ids[i], ids[j])
    return 0.5 * (k + k.T)


def root(k: np.ndarray, tolerance: float) -> np.ndarray:
    """L (G, r) with LLᵀ = K: lower triangular, or of the eigenvectors where K is singular."""
    most = float(np.max(np.diagonal(k), initial=0.0))
    try:
        factor = sl.cholesky(k, lower=True, check_finite=False)
        if np.min(np.diagonal(factor)) ** 2 > DEFINITE * most:
            return factor
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(k)
    if values[0] < -tolerance * max(values[-1], 0.0) or values[-1] <= 0.0:
        raise ValueError(
            f"the kernel is no covariance matrix: its smallest eigenvalue is {values[0]:.6g}, the largest "
            f"{values[-1]:.6g}; correct it, or pass a tolerance where that is rounding"
        )
    kept = values > max(tolerance, 1e-13) * values[-1] if values[0] < 0 else values > 1e-13 * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
