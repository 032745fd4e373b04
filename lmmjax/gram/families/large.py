"""The Gram of families of many rows: matrices H, stacked, by LAPACK or, of many responses, by products.

H_f = I + Σ K_gh ∘ ZDZᵀ,     log|H| = Σ_f log|H_f|,     WᵀH⁻¹W = Σ_f W_fᵀH_f⁻¹W_f.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from lmmjax.arrays import Array, inverse_by_products, record, static, value_and_slopes
from lmmjax.design import Structure
from lmmjax.gram.base import Gram, GramJet
from lmmjax.gram.families.small import SmallResponse


@record
class Large:
    """B families of s rows, zeros where there are fewer.

    Attributes
    ----------
    x : (p, B, s); z : per term (q, B, s); relation : per term K_gh of the groups of rows (B, s, s).
    levels, reach : per term the levels (B, l) that they see, and K of these with rows (B, l, s).
    mapped : whether the arithmetic is for many responses at once: without LAPACK.
    """

    x: Array
    z: tuple[Array, ...]
    relation: tuple[Array, ...]
    structure: Structure = static()
    levels: tuple[Array, ...] = ()
    reach: tuple[Array, ...] = ()
    mapped: bool = static(default=False)

    @property
    def sizes(self) -> tuple[int, int]:
        """Inverses and their size."""
        return self.x.shape[1], self.x.shape[2]

    def matrix(self, d: Array, root: Array | None = None) -> Array:
        """H (B, s, s)."""
        h = jnp.eye(self.x.shape[2], dtype=self.x.dtype)[None]
        for matrix, z, relation in zip(self.structure.matrices(d), self.z, self.relation, strict=True):
            own = z if root is None else z * root[None]
            h = h + relation * jnp.einsum("abs,ac,cbt->bst", own, matrix, own)
        return h

    def columns(self, response: SmallResponse) -> Array:
        """[X y] (B, s, p + 1), with weights."""
        x = self.x if response.root is None else self.x * response.root[None]
        return jnp.concatenate([jnp.moveaxis(x, 0, -1), response.y[..., None]], axis=-1)

    def gram(self, d: Array, response: SmallResponse) -> Gram:
        h, w = self.matrix(d, response.root), self.columns(response)
        if self.mapped:
            logdet, inverse = jax.vmap(inverse_by_products)(h)
            return Gram.of(jnp.sum(logdet), jnp.einsum("bsr,bsk->rk", w, inverse @ w))
        factor = jnp.linalg.cholesky(h)
        half = jsl.solve_triangular(factor, w, lower=True)
        return Gram.of(_logdet(factor), jnp.einsum("bsr,bsk->rk", half, half))

    def jet(self, d: Array, response: SmallResponse) -> GramJet:
        w = self.columns(response)
        h, v = value_and_slopes(lambda d: self.matrix(d, response.root), d)
        v = jnp.moveaxis(v, -1, 0)
        if self.mapped:
            logdets, inverse = jax.vmap(inverse_by_products)(h)
            logdet = jnp.sum(logdets)
        else:
            factor = jnp.linalg.cholesky(h)
            unit = jnp.broadcast_to(jnp.eye(h.shape[-1], dtype=h.dtype), h.shape)
            root = jsl.solve_triangular(factor, unit, lower=True)
            logdet, inverse = _logdet(factor), jnp.swapaxes(root, -1, -2) @ root
        solved = inverse @ w
        # V_a = ∂H/∂d_a, A_a = H⁻¹V_a
        a, moved = inverse[None] @ v, v @ solved[None]
        half = jnp.einsum("absr,cbsk->acrk", moved, inverse[None] @ moved)
        return GramJet(
            Gram.of(logdet, jnp.einsum("bsr,bsk->rk", w, solved)),
            Gram.of(jnp.einsum("abss->a", a), -jnp.einsum("bsr,absk->ark", solved, moved)),
            Gram.of(-jnp.einsum("abst,cbts->ac", a, a), half + jnp.swapaxes(half, -1, -2)),
        )

    def projected(self, d: Array, response: SmallResponse) -> list[tuple[Array, Array, Array, Array]]:
        """Per term the levels (B, l) with their parts of U, ZᵀH⁻¹X and ZᵀH⁻¹y."""
        assert self.levels, "prepared without the levels"
        p = self.x.shape[0]
        factor = jnp.linalg.cholesky(self.matrix(d, response.root))
        half = jsl.solve_triangular(factor, self.columns(response), lower=True)
        out: list[Any] = []
        for z, levels, reach in zip(self.z, self.levels, self.reach, strict=True):
            zg = reach[None] * z[:, :, None, :]
            side = jsl.solve_triangular(
                jnp.broadcast_to(factor, (len(z), *factor.shape)), jnp.swapaxes(zg, -1, -2), lower=True
            )
            seen = jnp.einsum("absl,bsr->arbl", side, half)
            out.append((levels, jnp.einsum("absl,cbsl->acbl", side, side), seen[:, :p], seen[:, p]))
        return out


def _logdet(factor: Array) -> Array:
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))
