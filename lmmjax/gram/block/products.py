"""The Gram of rows that are independent after a rotation.

With H = I + δZKZᵀ, UᵀZKZᵀU = diag(μ), X̃ = UᵀX, ỹ = Uᵀy and w = 1/(1 + δμ),

    log|H| = Σ log(1 + δμ),     WᵀH⁻¹W = [X̃ ỹ]ᵀ diag(w) [X̃ ỹ],     ∂w = −μw²,     ∂²w = 2μ²w³.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, record, static
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts
from lmmjax.gram.spectral.products import SpectralResponse


@record
class Reach:
    """A sparse matrix by its entries: row (e,), column (e,), value (e,), and zeros (rows,)."""

    row: Array
    column: Array
    value: Array
    zeros: Array

    @classmethod
    def of(cls, matrix: Any) -> Reach:
        """That of a sparse matrix of SciPy in coordinates."""
        row, column = matrix.coords
        return cls(row.astype(np.int32), column.astype(np.int32), matrix.data, np.zeros(matrix.shape[0]))

    def times(self, a: Array) -> Array:
        """Its product with a (columns, ...)."""
        value = self.value.reshape(-1, *(1,) * (a.ndim - 1))
        out = jnp.zeros((self.zeros.shape[0], *a.shape[1:]), a.dtype)
        return out.at[self.row].add(value * a[self.column])

    def squared(self) -> Reach:
        """That of its squared entries."""
        return Reach(self.row, self.column, self.value * self.value, self.zeros)


@record
class BlockProducts(CrossProducts):
    """Products of a design of one term with a kernel of blocks.

    Attributes
    ----------
    mu : (n,) μ; x : (n, p) X̃.
    reach, own : KZᵀU of all levels, (G,) the diagonal of K; for conditional modes, else None.
    """

    mu: Array
    x: Array
    logdet_r: Array
    structure: Structure = static()
    reach: Reach | None = None
    own: Array | None = None

    @property
    def vector(self) -> int:
        return self.mu.shape[0]

    def cost(self) -> Cost:
        n, p = self.x.shape
        role = ("eigenvalues of the blocks of its kernel, decomposed once",)
        return Cost(6.0 * n * (p + 1) ** 2, 8.0 * 6 * n, role)

    def _sums(self, w: Array, response: SpectralResponse) -> tuple[Array, Array, Array]:
        wx = w[:, None] * self.x
        return wx.T @ self.x, wx.T @ response.y, jnp.sum(w * response.y * response.y)

    def gram(self, d: Array, response: SpectralResponse) -> Gram:
        w = 1.0 / (1.0 + d[0] * self.mu)
        return Gram(jnp.sum(jnp.log1p(d[0] * self.mu)) + self.logdet_r, *self._sums(w, response))

    def jet(self, d: Array, response: SpectralResponse) -> GramJet:
        w = 1.0 / (1.0 + d[0] * self.mu)
        share = self.mu * w
        first = Gram(jnp.sum(share), *self._sums(-share * w, response))
        second = Gram(-jnp.sum(share * share), *self._sums(2.0 * share * share * w, response))
        return GramJet(self.gram(d, response), _under(first, 1), _under(second, 2))

    def project(self, d: Array, response: ResponseProducts) -> tuple[Projection, ...]:
        assert self.reach is not None, "prepared without the levels"
        assert isinstance(response, SpectralResponse)
        w = 1.0 / (1.0 + d[0] * self.mu)
        u = self.reach.squared().times(w)
        tx = self.reach.times(w[:, None] * self.x)
        ty = self.reach.times(w * response.y)
        return (Projection(u[None, None], tx.T[None], ty[None], self.own),)


def _under(gram: Gram, axes: int) -> Gram:
    """Its arrays under axes of one parameter."""
    at = (None,) * axes
    return Gram(gram.logdet[at], gram.xx[at], gram.xy[at], gram.yy[at])
