"""Levels of a factor that are correlated: their known covariance K = LLᵀ, up to the variance of the term."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

CLEAR = 1e-6
"""Share of squares beyond which products say that a kernel is neither nothing nor that of residuals."""

KEPT = 4
"""Decompositions that stay with a kernel: of other fixed effects, or other rows."""


@dataclasses.dataclass(frozen=True, eq=False)
class LevelKernel:
    """K of G levels: the effects of a level g are Σ_k L_gk b_k, with independent b_k.

    Attributes
    ----------
    factor : L (G, r), an array, or sparse where the levels fall into small blocks.
    matrix : K (G, G), likewise; None where L is narrower: then it is LLᵀ.
    """

    factor: Any
    matrix: Any = None

    @property
    def rank(self) -> int:
        """r."""
        return self.factor.shape[1]

    @cached_property
    def diagonal(self) -> np.ndarray:
        """K_gg (G,)."""
        if self.matrix is not None:
            return np.asarray(self.matrix.diagonal())
        square = self.factor.multiply(self.factor) if _sparse(self.factor) else self.factor**2
        return np.asarray(square.sum(axis=1)).ravel()

    @cached_property
    def decompositions(self) -> dict[str, Any]:
        """What a backend has computed of K on some rows, by what it is of."""
        return {}

    def decomposed(self, kind: str, arrays: tuple[np.ndarray, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, or gave before for the same arrays; the last `KEPT` stay with the kernel."""
        digest = hashlib.sha256(kind.encode())
        for part in arrays:
            digest.update(np.ascontiguousarray(part).data)
        key, known = digest.hexdigest(), self.decompositions
        if key not in known:
            found = make()
            while len(known) >= KEPT:
                known.pop(next(iter(known)))
            known[key] = found
        return known[key]

    @cached_property
    def components(self) -> np.ndarray:
        """(G,) the block of every level: levels of different blocks are independent."""
        import scipy.sparse as sp
        from scipy.sparse.csgraph import connected_components

        levels = len(self.diagonal)
        pairs: Any = sp.csr_array(self.factor != 0)
        both = sp.block_array([[None, pairs], [pairs.T, None]])
        return connected_components(both, directed=False)[1][:levels]

    def same(self, other: LevelKernel) -> bool:
        """Whether both are one matrix."""
        if self.factor is other.factor:
            return True
        if self.matrix is None and other.matrix is None:
            return np.array_equal(self.root, other.root)
        if self.matrix is None or other.matrix is None or self.matrix.shape != other.matrix.shape:
            return np.array_equal(self.whole, other.whole)
        if _sparse(self.matrix) and _sparse(other.matrix):
            return (self.matrix != other.matrix).nnz == 0
        return np.array_equal(self.whole, other.whole)

    def between(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """K of every level of `one` (..., k) with every one of `two` (..., l): (..., k, l)."""
        first, second = one[..., :, None], two[..., None, :]
        if self.matrix is None or _sparse(self.matrix):
            if one.ndim == 1:
                return _dense(self.rows(one) @ self.rows(two).T)
            flat = [self.between(a, b) for a, b in zip(one, two, strict=True)]
            return np.stack(flat)
        return self.matrix[first, second]

    @property
    def whole(self) -> np.ndarray:
        """K (G, G)."""
        return _dense(self.factor @ self.factor.T if self.matrix is None else self.matrix)

    @property
    def root(self) -> np.ndarray:
        """L (G, r) as an array."""
        return _dense(self.factor)

    def rows(self, codes: np.ndarray) -> Any:
        """L (n, r) of levels (n,)."""
        return self.factor[codes]


def is_plain(kernel: LevelKernel, codes: np.ndarray, z: np.ndarray, basis: np.ndarray) -> bool:
    """Whether products of a sparse or narrow K show that A'KA is neither zero nor a multiple of I.

    With X̃ orthonormal and W = ZKZᵀ, tr A'KA = tr W − tr X̃ᵀWX̃ and |A'KA|² = |W|² − 2|WX̃|² + |X̃ᵀWX̃|².
    """
    half = kernel.rows(codes)
    (n, p), dense = basis.shape, isinstance(half, np.ndarray)
    if dense and half.shape[1] > n // 2:
        return False
    half = half * z[:, None] if dense else half.multiply(z[:, None]).tocsr()
    inner = half.T @ half
    size = float(np.sum(inner**2) if dense else inner.power(2).sum())
    seen = half @ (half.T @ basis)
    across = basis.T @ seen
    square = size - 2.0 * float(np.sum(seen**2)) + float(np.sum(across**2))
    trace = float(inner.diagonal().sum()) - float(np.trace(across))
    return square > CLEAR * size and square - trace**2 / (n - p) > CLEAR * square


def spread(kernel: LevelKernel, codes: np.ndarray, values: np.ndarray) -> Any:
    """Rows (n, q) of levels (n,) in the columns of independent effects, q side by side: sparse (n, rq)."""
    import scipy.sparse as sp

    q, l = values.shape[1], sp.csr_array(kernel.rows(codes))
    # entry k of L in row i gives q entries L_ik z_i, in columns kq, kq + 1, …
    counts = np.diff(l.indptr)
    row = np.repeat(np.arange(len(codes)), counts)
    data = l.data[:, None] * values[row]
    columns = l.indices[:, None].astype(np.int64) * q + np.arange(q)
    return sp.csr_array((data.ravel(), columns.ravel(), l.indptr * q), shape=(len(codes), kernel.rank * q))


def _sparse(a: Any) -> bool:
    return not isinstance(a, np.ndarray)


def _dense(a: Any) -> np.ndarray:
    return a.toarray() if _sparse(a) else a
