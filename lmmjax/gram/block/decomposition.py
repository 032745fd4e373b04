"""The eigendecomposition of a kernel on rows, block by block; kept with the kernel.

For M (n, r) with ZKZᵀ = MMᵀ that falls into blocks of connected rows,

    ZKZᵀ = U diag(μ) Uᵀ,

U has the same blocks. Blocks of one size are decomposed together.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.arrays.diagonal_blocks import placed, stacks
from lmmjax.arrays.memory import require_memory
from lmmjax.design import Design
from lmmjax.gram.spectral.decomposition import OneKernel

ROWS = 1000
"""Rows from which on blocks are taken apart: below, one decomposition is cheap and many responses cheaper."""

SHARE = 0.125
"""Share of the n² numbers of the eigenvectors up to which it pays to keep blocks apart."""


@dataclasses.dataclass(frozen=True, eq=False)
class BlockDecomposition:
    """μ (n,) ≥ 0 and U (n, n) sparse, UUᵀ = I."""

    mu: np.ndarray
    u: Any


def is_sparse(design: Design) -> bool:
    """Whether the kernel of the only term is known by its blocks."""
    kernel = design.terms[0].kernel
    return kernel is not None and not isinstance(kernel.factor, np.ndarray)


def pays(design: Design) -> bool:
    """Whether the kernel of the only term falls into blocks of rows that are small, and many."""
    if design.n < ROWS or not is_sparse(design):
        return False
    sizes = np.bincount(design.terms[0].blocks).astype(float)
    return float(sizes @ sizes) <= SHARE * float(design.n) ** 2


def decompose_blocks(columns: Any, blocks: np.ndarray) -> BlockDecomposition:
    """The decomposition for sparse M (n, r) and the block (n,) of every row."""
    _, label = np.unique(blocks, return_inverse=True)
    n, sizes = len(label), np.bincount(label).astype(float)
    require_memory(
        "the eigenvectors of the blocks of the kernel",
        5,
        int(sizes @ sizes),
        remedy="set small relationships to zero, so that blocks are smaller, or use low_rank",
    )
    mu, parts = np.zeros(n), []
    for members, block in stacks((columns @ columns.T).tocsr(), label):
        value, vectors = np.linalg.eigh(block)
        s = members.shape[1]
        least = s * np.finfo(float).eps * value[:, -1:]
        mu[members] = np.where(value > np.maximum(least, 0.0), value, 0.0)
        parts.append((members, members, vectors))
    return BlockDecomposition(mu, placed(parts, (n, n)))


def kept_blocks(own: OneKernel) -> BlockDecomposition:
    """The decomposition of a design, which its kernel may have."""
    return own.kernel.decomposed(
        "blocks", (own.z, own.codes), lambda: decompose_blocks(own.columns, own.blocks)
    )


def closed(mu: np.ndarray, x: np.ndarray) -> bool:
    """Whether X has all directions in which K is zero: then σ² may be zero, and rows are no way to see it.

    Parameters
    ----------
    mu : (n,) μ; x : (n, p) UᵀX.
    """
    none = np.flatnonzero(mu <= 0)
    return 0 < len(none) <= x.shape[1] and np.linalg.matrix_rank(x[none], tol=1e-8) == len(none)
