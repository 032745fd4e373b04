"""The marginal covariance V = ZCov(b)Zᵀ + Cov(ε) of the rows, and its inverse applied to them.

With LLᵀ = Cov(ε), ΛΛᵀ = Cov(b) and B = L⁻¹ZΛ,

    L⁻¹VL⁻ᵀ = I + BBᵀ,     V⁻¹ = L⁻ᵀ(I − B(I + BᵀB)⁻¹Bᵀ)L⁻¹.

B and the factors of I + BᵀB are sparse: cost and memory follow the random coefficients and their fill-in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmmjax.arrays import psd_cholesky
from lmmjax.core.residuals import covariances, decorrelating
from lmmjax.design import Design


@dataclasses.dataclass(frozen=True)
class Marginal:
    """V of a design at ψ.

    Attributes
    ----------
    root : L⁻¹ (n, n), sparse; effects : B (n, ΣqG), sparse; solve : (I + BᵀB)⁻¹a for a (ΣqG, k).
    """

    root: Any
    effects: Any
    solve: Callable[[np.ndarray], np.ndarray]

    def whitened(self, a: np.ndarray) -> np.ndarray:
        """L⁻¹a for rows a (n, k)."""
        return self.root @ a

    def apart(self, w: np.ndarray) -> np.ndarray:
        """(I + BBᵀ)⁻¹w for whitened rows w (n, k): uᵀV⁻¹v is `whitened(u)` ᵀ`apart(whitened(v))`."""
        return w - self.effects @ self.solve(self.effects.T @ w) if w.shape[1] else w


def marginal(design: Design, psi: np.ndarray) -> Marginal:
    """The record of V at ψ (m + 1,); nothing of size n × n is formed."""
    root = decorrelating(design, psi)
    effects = root @ scaled_columns(design, psi)
    return Marginal(root, effects, solver(effects.T @ effects))


def scaled_columns(design: Design, psi: np.ndarray) -> Any:
    """ZΛ (n, ΣqG), sparse, with ΛΛᵀ = Cov(b)."""
    terms = zip(design.terms, design.structure.absolute(psi), strict=True)
    out = by_level(design, [np.asarray(t.z) @ psd_cholesky(np.asarray(cov), 1e-13) for t, cov in terms])
    out.eliminate_zeros()
    return out


def first_columns(design: Design) -> np.ndarray:
    """Per term the first of its columns of Z, and their number: those of an effect stand side by side."""
    return np.cumsum([0, *(term.n_effects * term.q for term in design.terms)])


def by_level(design: Design, values: Sequence[np.ndarray]) -> Any:
    """Rows (n, q) of every term in the columns of their effects: (n, N), sparse, without a gap.

    An effect is that of a level, or one of those that correlated levels are made of.
    """
    # imported here: scipy.sparse adds a warning filter, and few fits need it
    import scipy.sparse as sps

    n, starts = design.n, first_columns(design)
    if any(term.kernel is not None for term in design.terms):
        parts = [term.expand(own) for term, own in zip(design.terms, values, strict=True)]
        return sps.csr_array(sps.hstack(parts, format="csr"))
    at = [
        start + term.codes[:, None] * term.q + np.arange(term.q)
        for start, term in zip(starts, design.terms, strict=False)
    ]
    entries = np.hstack([np.zeros((n, 0)), *values])
    columns = np.hstack([np.zeros((n, 0), int), *at])
    pointer = np.arange(n + 1) * entries.shape[1]
    return sps.csr_array((entries.ravel(), columns.ravel(), pointer), shape=(n, int(starts[-1])))


def solver(products: Any) -> Callable[[np.ndarray], np.ndarray]:
    """(I + C)⁻¹a for a (N, k), by the sparse factors of I + C, C (N, N) positive semidefinite."""
    import scipy.sparse as sps
    from scipy.sparse.linalg import splu

    if not products.shape[0]:
        return lambda a: a
    inner = (products + sps.eye_array(products.shape[0])).tocsc()
    options = {"SymmetricMode": True}
    return splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve


def blocks(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """V (g, k, k) of g sets of k rows (g, k) at ψ (m + 1,)."""
    out = covariances(design, psi, rows)
    for term, covariance in zip(design.terms, design.structure.absolute(psi), strict=True):
        z = np.asarray(term.z)[rows]
        out += (z @ np.asarray(covariance)) @ np.swapaxes(z, 1, 2) * term.relation(rows)
    return out
