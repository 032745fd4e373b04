"""The eigendecomposition of a kernel on rows, beside the fixed effects; kept with the kernel.

For M (n, r) with ZKZᵀ = MMᵀ and A (n, n − p) a basis of what X leaves,

    A'MM'A = Q diag(μ) Q',     B = AQ,

so that every H = I + δZKZᵀ is diagonal in the coordinates B'y. Directions in which K is zero are left out
where K is of low rank: there H is 1.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg as sl

from lmmjax.arrays.memory import require_memory
from lmmjax.design import Design, LevelKernel, Rows

NARROW = 0.7
"""Share of the rows up to which columns of K are decomposed, and not K itself."""


@dataclasses.dataclass(frozen=True, eq=False)
class OneKernel:
    """What backends of one kernel begin with: standardised x (n, p), z (n,) and M = ZL (n, r), sparse or not.

    Attributes
    ----------
    kernel : K = LLᵀ of the levels; codes : (n,) the level of every row; blocks : (n,) the block of its level.
    """

    kernel: LevelKernel
    codes: np.ndarray
    blocks: np.ndarray
    x: np.ndarray
    z: np.ndarray
    columns: Any

    @classmethod
    def of(cls, design: Design, rows: Rows) -> OneKernel:
        """That of a design of one term of one column."""
        term, x, z = design.terms[0], np.asarray(rows.x).T, np.asarray(rows.z[0])
        assert term.kernel is not None
        return cls(term.kernel, term.codes, term.blocks, x, z, term.expand(z.T))


@dataclasses.dataclass(frozen=True, eq=False)
class Decomposition:
    """μ (k,), all above zero or k = n − p, and B (n, k) with B'B = I and B'X = 0."""

    mu: np.ndarray
    b: np.ndarray


def decompose(x: np.ndarray, columns: Any) -> Decomposition:
    """The decomposition for orthonormal X (n, p) and M (n, r), sparse or not."""
    n, p = x.shape
    rank = columns.shape[1]
    if rank <= NARROW * (n - p):
        require_memory("the decomposition of the kernel", 4, n, rank)
        m = columns.toarray()
        inner = m - x @ (x.T @ m)
        inner = inner - x @ (x.T @ inner)
        u, s, _ = np.linalg.svd(inner, full_matrices=False)
        kept = s > n * np.finfo(float).eps * s[0]
        return Decomposition(s[kept] ** 2, np.ascontiguousarray(u[:, kept]))
    require_memory("the decomposition of the kernel", 6, n, n)
    whole = (columns @ columns.T).toarray()
    whole_basis = np.asarray(sl.qr(x, mode="full")[0]) if p else np.eye(n)
    basis = whole_basis[:, p:]
    inner = basis.T @ (whole @ basis)
    mu, q = sl.eigh(0.5 * (inner + inner.T), driver="evr", overwrite_a=True, check_finite=False)
    mu = np.where(mu > n * np.finfo(float).eps * mu[-1], mu, 0.0)
    return Decomposition(mu, basis @ q)


def kept_decomposition(own: OneKernel) -> Decomposition:
    """The decomposition of a design, which its kernel may have."""
    return own.kernel.decomposed("", (own.x, own.z, own.codes), lambda: decompose(own.x, own.columns))
