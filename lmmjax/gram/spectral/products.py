"""The Gram in the coordinates of an eigendecomposition.

With H = I + δZKZᵀ, orthonormal X, μ and B as in `decomposition.py`, C = B'ZKZᵀX and w = 1/(1 + δμ),

    P = B diag(w) B' + (what neither X nor B has),
    S = (X'H⁻¹X)⁻¹ = I + δX'ZKZᵀX − δ²C' diag(w) C,      log|H| = Σ log(1 + δμ) + log|S|,
    β̂ = X'y − δC'(w∘B'y),                                y'Py = Σ w (B'y)² + rest.

No covariate is left in P: a likelihood takes as many operations as there are rows.
"""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, record, static, sweep
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, Projection, ResponseProducts


@record
class SpectralProducts(CrossProducts):
    """Products of a design of one term with a kernel.

    Attributes
    ----------
    mu : (k,) μ; c : (k, p) C; xkx : (p, p) X'ZKZᵀX.
    rest : n − p − k, the directions that neither X nor K has.
    reach, reach_x, own : (G, k) KZᵀB, (G, p) KZᵀX, (G,) the diagonal of K; for conditional modes, else None.
    """

    mu: Array
    c: Array
    xkx: Array
    rest: Array
    logdet_r: Array
    structure: Structure = static()
    reach: Array | None = None
    reach_x: Array | None = None
    own: Array | None = None

    @property
    def vector(self) -> int:
        return self.mu.shape[0]

    def cost(self) -> Cost:
        k, p = self.c.shape
        return Cost(10.0 * k * (1 + p * p), 8.0 * 6 * k, ("eigenvalues of its kernel, decomposed once",))

    def _parts(self, d: Array, response: SpectralResponse) -> tuple[Array, Array, Array, Array, Array]:
        """w, log|S|, X'H⁻¹X, β̂ and y'Py."""
        delta = d[0]
        w = 1.0 / (1.0 + delta * self.mu)
        dc = delta * self.c
        s = jnp.eye(self.xkx.shape[0], dtype=w.dtype) + delta * self.xkx - dc.T @ (w[:, None] * dc)
        logdet, inverse = sweep(s) if s.shape[0] else (jnp.zeros((), w.dtype), s)
        wy = w * response.y
        return w, logdet, inverse, -(dc.T @ wy), wy @ response.y + response.rest

    def gram(self, d: Array, response: SpectralResponse) -> Gram:
        _, log_s, xx, beta, left = self._parts(d, response)
        xy = xx @ beta
        logdet = jnp.sum(jnp.log1p(d[0] * self.mu)) + log_s + self.logdet_r
        return Gram(logdet, xx, xy, left + beta @ xy)

    def project(self, d: Array, response: SpectralResponse) -> tuple[Projection, ...]:
        assert self.reach is not None, "prepared without the levels"
        w, _, xx, beta, _ = self._parts(d, response)
        # H⁻¹X = (X − δB(w∘C)) X'H⁻¹X,  H⁻¹ = P + H⁻¹X S X'H⁻¹
        plain = self.reach_x - self.reach @ (d[0] * w[:, None] * self.c)
        tx = plain @ xx
        ty = self.reach @ (w * response.y) + tx @ beta
        u = (self.reach**2) @ w + jnp.sum(tx * plain, axis=1)
        return (Projection(u[None, None], tx.T[None], ty[None], self.own),)


@record
class SpectralResponse(ResponseProducts):
    """B'y (k, ...), and the squares (...) of what neither X nor B has of y."""

    y: Array
    rest: Array
