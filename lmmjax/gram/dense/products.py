"""The explicit n × n matrix H, its Cholesky factor, and its derivatives entry by entry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np

from lmmjax.arrays import Array, record, static, value_and_slopes
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts
from lmmjax.gram.whitened.patterns import Patterns


@record
class DenseProducts(CrossProducts):
    """The standardised rows themselves: x (p, n), z per term (q, n), codes per term (n,).

    Attributes
    ----------
    patterns : all rows as one pattern of places, and `same` (n, n) whether rows share a group of the
        residuals; None where residuals are independent.
    kernels : per term the covariance K (G, G) of its groups, None where they are independent.
    """

    x: Array
    z: tuple[Array, ...]
    codes: tuple[Array, ...]
    logdet_r: Array
    structure: Structure = static()
    n_groups: tuple[int, ...] = static()
    patterns: Patterns | None = None
    same: Array | None = None
    kernels: tuple[Array | None, ...] = ()

    @property
    def sequential(self) -> bool:
        return True

    def cost(self) -> Cost:
        n, m = self.x.shape[1], self.structure.n_params
        roles = ("in the matrix of the rows",) * len(self.structure.terms)
        return Cost(n**3 * (7 / 3 + 2 * m), 8.0 * n**2 * (2 * m + 4), roles)

    def _matrix(self, d: Array) -> Array:
        """H = R + Σ ZDZᵀ on the rows of the same group, times K_gh for groups that are correlated."""
        h = jnp.eye(self.x.shape[1], dtype=self.x.dtype)
        residual = self.structure.residual
        if residual is not None and self.patterns is not None and self.same is not None:
            h = jnp.where(self.same, self.patterns.covariance(residual, d[self.structure.tail])[0], 0.0)
        terms = zip(self.structure.matrices(d), self.z, self.codes, self.kernels, strict=True)
        for matrix, z, codes, kernel in terms:
            if kernel is None:
                h = h + jnp.where(codes[:, None] == codes[None, :], z.T @ (matrix @ z), 0.0)
            else:
                h = h + kernel[codes][:, codes] * (z.T @ (matrix @ z))
        return h.astype(self.x.dtype)

    def _factor(self, d: Array) -> Array:
        return jnp.linalg.cholesky(self._matrix(d))

    def gram(self, d: Array, response: DenseResponse) -> Gram:
        return self._gram(self._factor(d), response)

    def _gram(self, factor: Array, response: DenseResponse) -> Gram:
        x = jsl.solve_triangular(factor, self.x.T, lower=True)
        y = jsl.solve_triangular(factor, response.y, lower=True)
        logdet = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor))) + self.logdet_r
        return Gram(logdet, x.T @ x, x.T @ y, y @ y)

    def jet(self, d: Array, response: DenseResponse) -> GramJet:
        jet, inverse, solved = self._linear(d, response)
        if self.structure.linear:
            return jet

        def bend(d: Array) -> tuple[Array, Array]:
            # tr(H⁻¹∂_abH) and WᵀH⁻¹(∂_abH)H⁻¹W, as derivatives with H⁻¹ held
            h = self._matrix(d)
            return jnp.sum(inverse * h), solved.T @ h @ solved

        traces, inner = (jnp.moveaxis(a, (-2, -1), (0, 1)) for a in jax.jacfwd(jax.jacfwd(bend))(d))
        p, second = self.x.shape[0], jet.second
        bent = Gram(
            second.logdet + traces,
            second.xx - inner[..., :p, :p],
            second.xy - inner[..., :p, p],
            second.yy - inner[..., p, p],
        )
        return GramJet(jet.value, jet.first, bent)

    def linear_jet(self, d: Array, response: DenseResponse) -> GramJet:
        return self._linear(d, response)[0]

    def _linear(self, d: Array, response: DenseResponse) -> tuple[GramJet, Array, Array]:
        """The jet along the tangent of H at d, H⁻¹, and H⁻¹W."""
        h, v = value_and_slopes(self._matrix, d)
        factor = jnp.linalg.cholesky(h)
        n, p = self.x.shape[1], self.x.shape[0]
        inverse = jsl.cho_solve((factor, True), jnp.eye(n, dtype=self.x.dtype))
        solved = inverse @ jnp.concatenate([self.x.T, response.y[:, None]], axis=1)
        # V_a = ∂H/∂d_a, A_a = H⁻¹V_a
        v = jnp.moveaxis(v, -1, 0)
        a = inverse @ v
        moved = v @ solved
        first = -jnp.einsum("nr,ans->ars", solved, moved)
        half = jnp.einsum("anr,nk,bks->abrs", moved, inverse, moved)
        second = half + jnp.swapaxes(half, -1, -2)
        jet = GramJet(
            self._gram(factor, response),
            Gram(jnp.einsum("ann->a", a), first[..., :p, :p], first[..., :p, p], first[..., p, p]),
            Gram(
                -jnp.einsum("ank,bkn->ab", a, a), second[..., :p, :p], second[..., :p, p], second[..., p, p]
            ),
        )
        return jet, inverse, solved

    def project(self, d: Array, response: DenseResponse) -> tuple[Projection, ...]:
        factor = (self._factor(d), True)
        solved_x = jsl.cho_solve(factor, self.x.T)
        solved_y = jsl.cho_solve(factor, response.y)
        inverse = jsl.cho_solve(factor, jnp.eye(self.x.shape[1], dtype=self.x.dtype))
        out = []
        for z, codes, groups, kernel in zip(self.z, self.codes, self.n_groups, self.kernels, strict=True):
            if kernel is None:
                every = np.arange(groups, dtype=codes.dtype)
                same = (codes[None, :] == every[:, None]).astype(z.dtype)
            else:
                same = kernel[:, codes]
            zg = same[:, None, :] * z[None]
            u = jnp.einsum("gan,nm,gbm->abg", zg, inverse, zg)
            tx = jnp.einsum("gan,np->apg", zg, solved_x)
            own = None if kernel is None else jnp.diagonal(kernel)
            out.append(Projection(u, tx, jnp.einsum("gan,n->ag", zg, solved_y), own))
        return tuple(out)


@record
class DenseResponse(ResponseProducts):
    """Standardised responses y (n, ...)."""

    y: Array
