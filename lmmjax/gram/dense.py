"""Dense backend: the explicit n × n matrix H; covers any design, and is the oracle of the others."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np

from lmmjax._types import Array, record, static
from lmmjax.basis import Rows
from lmmjax.covariance import Structure
from lmmjax.covariance.structure import unit_entries
from lmmjax.design import Design
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Prepared, Projection, ResponseProducts

LARGEST = 8000
"""Most rows: beyond, the n × n matrices of one evaluation take gigabytes and minutes."""


@record
class DenseProducts(CrossProducts):
    """The standardised rows themselves: x (p, n), z per term (q, n), codes per term (n,)."""

    x: Array
    z: tuple[Array, ...]
    codes: tuple[Array, ...]
    logdet_r: Array
    structure: Structure = static()
    n_groups: tuple[int, ...] = static()

    @property
    def sequential(self) -> bool:
        return True

    def cost(self) -> Cost:
        n, m = self.x.shape[1], self.structure.n_entries
        roles = ("in the matrix of the rows",) * len(self.structure.terms)
        return Cost(n**3 * (7 / 3 + 2 * m), 8.0 * n**2 * (2 * m + 4), roles)

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

    def jet(self, d: Array, response: DenseResponse) -> GramJet:
        factor = (self._factor(d), True)
        n, p = self.x.shape[1], self.x.shape[0]
        inverse = jsl.cho_solve(factor, jnp.eye(n, dtype=self.x.dtype))
        solved = inverse @ jnp.concatenate([self.x.T, response.y[:, None]], axis=1)
        v = self._directions()
        # A_a = H⁻¹V_a
        a = inverse @ v
        moved = v @ solved
        first = -jnp.einsum("nr,ans->ars", solved, moved)
        half = jnp.einsum("anr,nk,bks->abrs", moved, inverse, moved)
        second = half + jnp.swapaxes(half, -1, -2)
        first_logdet = jnp.einsum("ann->a", a)
        second_logdet = -jnp.einsum("ank,bkn->ab", a, a)
        value = self.gram(d, response)
        return GramJet(
            value,
            Gram(first_logdet, first[..., :p, :p], first[..., :p, p], first[..., p, p]),
            Gram(second_logdet, second[..., :p, :p], second[..., :p, p], second[..., p, p]),
        )

    def _directions(self) -> Array:
        """∂H/∂d_c = Z E_c Zᵀ on the rows of the same group, for every entry c: (m, n, n)."""
        out = []
        for term, z, codes in zip(self.structure.terms, self.z, self.codes, strict=True):
            same = codes[:, None] == codes[None, :]
            for unit in unit_entries(term):
                out.append(jnp.where(same, z.T @ (jnp.asarray(unit, z.dtype) @ z), jnp.zeros((), z.dtype)))
        n = self.x.shape[1]
        return jnp.stack(out) if out else jnp.zeros((0, n, n), self.x.dtype)

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
    """Standardised responses y (n, ...)."""

    y: Array

    @property
    def within(self) -> Array:
        return (self.y * self.y).sum(axis=0)


class DensePrepared(Prepared):
    """Rows for the dense backend."""

    def __init__(self, design: Design, rows: Rows):
        if design.n > LARGEST:
            raise ValueError(
                f"the dense backend would need n × n matrices for n = {design.n} rows "
                f"({design.n**2 * 8 / 2**30:.1f} GiB each); it takes at most {LARGEST} rows: "
                "use random terms that share one grouping factor"
            )
        codes = tuple(np.asarray(term.codes) for term in design.terms)
        groups = tuple(term.n_groups for term in design.terms)
        self.shared = DenseProducts(rows.x, rows.z, codes, rows.logdet_r, design.structure, groups)

    def respond(self, residual: Array, factor: Array) -> DenseResponse:
        return DenseResponse(residual * factor)
