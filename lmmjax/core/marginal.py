"""The marginal covariance V = ZCov(b)Zᵀ + Cov(ε) of the rows, and its inverse applied to them.

With LLᵀ = Cov(ε), ΛΛᵀ = Cov(b) and B = L⁻¹ZΛ,

    L⁻¹VL⁻ᵀ = I + BBᵀ,     V⁻¹ = L⁻ᵀ(I − B(I + BᵀB)⁻¹Bᵀ)L⁻¹.

B and the factors of I + BᵀB are sparse: cost and memory follow the random coefficients and their fill-in.
"""

from __future__ import annotations

import dataclasses
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
    root : L⁻¹ (n, n), sparse; effects : B (n, ΣqG), sparse; solver : LU factors of I + BᵀB, or None.
    """

    root: Any
    effects: Any
    solver: Any

    def whitened(self, a: np.ndarray) -> np.ndarray:
        """L⁻¹a for rows a (n, k)."""
        return self.root @ a

    def apart(self, w: np.ndarray) -> np.ndarray:
        """(I + BBᵀ)⁻¹w for whitened rows w (n, k): uᵀV⁻¹v is `whitened(u)` ᵀ`apart(whitened(v))`."""
        if self.solver is None or not w.shape[1]:
            return w
        return w - self.effects @ self.solver.solve(self.effects.T @ w)


def marginal(design: Design, psi: np.ndarray) -> Marginal:
    """The record of V at ψ (m + 1,); nothing of size n × n is formed."""
    # imported here: scipy.sparse adds a warning filter, and few fits need it
    import scipy.sparse as sps
    from scipy.sparse.linalg import splu

    root, columns = decorrelating(design, psi), scaled_columns(design, psi)
    if not columns.shape[1]:
        return Marginal(root, columns, None)
    effects = root @ columns
    inner = sps.eye_array(effects.shape[1], format="csc") + (effects.T @ effects).tocsc()
    return Marginal(root, effects, splu(inner, "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True}))


def scaled_columns(design: Design, psi: np.ndarray) -> Any:
    """ZΛ (n, ΣqG), sparse, with ΛΛᵀ = Cov(b): columns of a term group after group."""
    import scipy.sparse as sps

    parts = []
    for term, matrix in zip(design.terms, design.structure.absolute(psi), strict=True):
        values = np.asarray(term.z) @ psd_cholesky(np.asarray(matrix), 1e-13)
        at = term.codes[:, None] * term.q + np.arange(term.q)
        pointer = np.arange(design.n + 1) * term.q
        shape = (design.n, term.n_groups * term.q)
        part = sps.csr_array((values.ravel(), at.ravel(), pointer), shape=shape)
        part.eliminate_zeros()
        parts.append(part)
    return sps.hstack(parts, format="csr") if parts else sps.csr_array((design.n, 0))


def blocks(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """V (g, k, k) of g sets of k rows (g, k) at ψ (m + 1,)."""
    out = covariances(design, psi, rows)
    for term, covariance in zip(design.terms, design.structure.absolute(psi), strict=True):
        z, codes = np.asarray(term.z)[rows], term.codes[rows]
        value = (z @ np.asarray(covariance)) @ np.swapaxes(z, 1, 2)
        out += np.where(codes[:, :, None] == codes[:, None, :], value, 0.0)
    return out
