"""V⁻¹ of responses that share a design, applied to rows and to candidates: what scans ask a null fit for."""

from __future__ import annotations

import abc
import dataclasses

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from lmmjax.arrays.memory import require_memory
from lmmjax.core.marginal import blocks, marginal
from lmmjax.design import Design
from lmmjax.inference.scan.covariance_slopes import CovarianceSlopes


class Inverse(abc.ABC):
    """V_t⁻¹ of t responses with one design, each at its own ψ."""

    slopes: CovarianceSlopes
    """V_j of the same responses."""

    @abc.abstractmethod
    def apply(self, a: np.ndarray) -> np.ndarray:
        """V_t⁻¹a (t, n, r) of rows a (n, r) that all have in common."""

    @abc.abstractmethod
    def own(self, a: np.ndarray) -> np.ndarray:
        """V_t⁻¹a_t (t, n, r) of rows a (t, n, r) of their own."""

    @abc.abstractmethod
    def forms(self, found: Features, slopes: bool) -> tuple[np.ndarray, np.ndarray]:
        """gᵀV_t⁻¹g (t, M, k, k) of candidates.

        Also gᵀV_t⁻¹V_jV_t⁻¹g (t, M, m + 1, k, k) if `slopes`, else nothing: (t, M, 0, k, k).
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What forms are made of, whatever ψ is.

    Attributes
    ----------
    g : (n, k, M) M candidates of k columns.
    pairs, within : products of them by pattern of groups, and within groups (k, k, M); None where forms are
        made of rows.
    """

    g: np.ndarray
    pairs: np.ndarray | None = None
    within: np.ndarray | None = None


class RowInverse(Inverse):
    """V⁻¹ of one response, applied to rows."""

    @abc.abstractmethod
    def solve(self, a: np.ndarray) -> np.ndarray:
        """V⁻¹a (n, r)."""

    def apply(self, a: np.ndarray) -> np.ndarray:
        return self.solve(a)[None]

    def own(self, a: np.ndarray) -> np.ndarray:
        return self.solve(a[0])[None]

    def forms(self, found: Features, slopes: bool) -> tuple[np.ndarray, np.ndarray]:
        g = found.g
        n, k, count = g.shape
        solved = self.solve(g.reshape(n, -1))
        w = solved.reshape(n, k, count)
        value = np.einsum("nam,nbm->mab", g, w)[None]
        if not slopes:
            return value, np.zeros((1, count, 0, k, k))
        moved = [np.einsum("nam,nbm->mab", w, v[0].reshape(n, k, count)) for v in self.slopes(solved[None])]
        return value, np.stack(moved, axis=1)[None]


class SparseInverse(RowInverse):
    """Of any design, by the sparse factors of the random effects' equations."""

    def __init__(self, design: Design, psi: np.ndarray):
        self.marginal, self.slopes = marginal(design, psi), CovarianceSlopes(design, psi[None])

    def solve(self, a: np.ndarray) -> np.ndarray:
        own = self.marginal
        return own.root.T @ own.apart(own.whitened(a))


class DenseInverse(RowInverse):
    """Of a design that correlates all rows, as a kernel does, by the Cholesky factor of V."""

    def __init__(self, design: Design, psi: np.ndarray):
        require_memory("V of all rows", 3, design.n, design.n)
        self.factor = cho_factor(blocks(design, psi, np.arange(design.n)[None])[0], lower=True)
        self.slopes = CovarianceSlopes(design, psi[None])

    def solve(self, a: np.ndarray) -> np.ndarray:
        return cho_solve(self.factor, a)


def inverse_of(design: Design, psi: np.ndarray) -> RowInverse:
    """The cheaper of the two for a design, at ψ (m + 1,)."""
    dense = any(term.kernel is not None and np.ptp(term.blocks) == 0 for term in design.terms)
    return (DenseInverse if dense else SparseInverse)(design, psi)
