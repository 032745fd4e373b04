"""Dense backend: the explicit n × n matrix H and one Cholesky factor; any design, and the oracle of the others."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np

from lmmjax._types import Array, record, static
from lmmjax.basis import Rows
from lmmjax.covariance import Structure
from lmmjax.design import Design
from lmmjax.gram.base import CrossProducts, Gram, Prepared, Projection, ResponseProducts


@record
class DenseProducts(CrossProducts):
    """The standardised rows themselves: x (p, n), z per term (q, n), codes per term (n,)."""

    x: Array
    z: tuple[Array, ...]
    codes: tuple[Array, ...]
    logdet_r: Array
    structure: Structure = static()
    n_groups: tuple[int, ...] = static()

    def _factor(self, d: Array) -> Array:
        # H = I + Σ Z D Zᵀ on the rows of the same group
        h = jnp.eye(self.x.shape[1], dtype=self.x.dtype)
        for matrix, z, codes in zip(self.structure.matrices(d), self.z, self.codes, strict=True):
            h = h + jnp.where(codes[:, None] == codes[None, :], z.T @ (matrix @ z), 0.0)
        return jnp.linalg.cholesky(h)

    def gram(self, d: Array, response: DenseResponse) -> Gram:
        factor = self._factor(d)
        x = jsl.solve_triangular(factor, self.x.T, lower=True)
        y = jsl.solve_triangular(factor, response.y, lower=True)
        logdet = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor))) + self.logdet_r
        return Gram(logdet, x.T @ x, x.T @ y, y @ y)

    def project(self, d: Array, response: DenseResponse) -> tuple[Projection, ...]:
        factor = (self._factor(d), True)
        solved_x = jsl.cho_solve(factor, self.x.T)
        solved_y = jsl.cho_solve(factor, response.y)
        inverse = jsl.cho_solve(factor, jnp.eye(self.x.shape[1], dtype=self.x.dtype))
        out = []
        for z, codes, groups in zip(self.z, self.codes, self.n_groups, strict=True):
            same = (codes[None, :] == np.arange(groups, dtype=codes.dtype)[:, None]).astype(z.dtype)
            zg = same[:, None, :] * z[None]
            u = jnp.einsum("gan,nm,gbm->abg", zg, inverse, zg)
            tx = jnp.einsum("gan,np->apg", zg, solved_x)
            out.append(Projection(u, tx, jnp.einsum("gan,n->ag", zg, solved_y)))
        return tuple(out)


@record
class DenseResponse(ResponseProducts):
    """Standardised responses y (..., n)."""

    y: Array


class DensePrepared(Prepared):
    """Rows for the dense backend."""

    def __init__(self, design: Design, rows: Rows):
        codes = tuple(np.asarray(term.codes) for term in design.terms)
        groups = tuple(term.n_groups for term in design.terms)
        self.shared = DenseProducts(rows.x, rows.z, codes, rows.logdet_r, design.structure, groups)

    def respond(self, y: Array) -> DenseResponse:
        return DenseResponse(y)
