"""The marginal covariance V = ZCov(b)Zᵀ + Cov(ε) of the rows, and its inverse applied to them.

With LLᵀ = Cov(ε), ΛΛᵀ = Cov(b) and B = L⁻¹ZΛ,

    L⁻¹VL⁻ᵀ = I + BBᵀ,     V⁻¹ = L⁻ᵀ(I − B(I + BᵀB)⁻¹Bᵀ)L⁻¹.

B and the factors of I + BᵀB are sparse: cost and memory follow the random coefficients and their fill-in.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmjax.arrays import psd_cholesky
from lmmjax.core.residuals import covariances, decorrelating
from lmmjax.design import Design

# adds a warning filter when it is imported, and few fits need it
if TYPE_CHECKING:
    import scipy.sparse as sps


@dataclasses.dataclass(frozen=True)
class Marginal:
    """V of a design at ψ.

    Attributes
    ----------
    root : L⁻¹ (n, n), sparse; effects : B (n, ΣqG), sparse; solver : LU factors of I + BᵀB, or None.
    """

    root: sps.csr_array
    effects: sps.csr_array
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
    import scipy.sparse as sps
    from scipy.sparse.linalg import splu

    root, n = decorrelating(design, psi), design.n
    blocks = []
    for term, covariance in zip(design.terms, design.structure.absolute(psi), strict=True):
        moved = np.asarray(term.z) @ psd_cholesky(np.asarray(covariance), 1e-13)
        columns = term.codes[:, None] * term.q + np.arange(term.q)
        at = np.repeat(np.arange(n), term.q)
        shape = (n, term.n_groups * term.q)
        blocks.append(sps.csr_array((moved.ravel(), (at, columns.ravel())), shape=shape))
    if not blocks:
        return Marginal(root, sps.csr_array((n, 0)), None)
    effects = (root @ sps.hstack(blocks)).tocsr()
    inner = sps.eye_array(effects.shape[1], format="csc") + (effects.T @ effects).tocsc()
    solver = splu(inner, "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})
    return Marginal(root, effects, solver)


def blocks(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """V (g, k, k) of g sets of k rows (g, k) at ψ (m + 1,)."""
    out = covariances(design, psi, rows)
    for term, covariance in zip(design.terms, design.structure.absolute(psi), strict=True):
        z, codes = np.asarray(term.z)[rows], term.codes[rows]
        value = (z @ np.asarray(covariance)) @ np.swapaxes(z, 1, 2)
        out += np.where(codes[:, :, None] == codes[:, None, :], value, 0.0)
    return out
