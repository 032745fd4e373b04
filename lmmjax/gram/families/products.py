"""The Gram of rows in families: small matrices H, stacked, and their derivatives entry by entry.

H_f = I + Σ K_gh ∘ ZDZᵀ,     log|H| = Σ_f log|H_f|,     WᵀH⁻¹W = Σ_f W_fᵀH_f⁻¹W_f.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from lmmjax.arrays import Array, record, static, value_and_slopes
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts


@record
class Families:
    """B families of s rows, zeros where there are fewer.

    Attributes
    ----------
    x : (p, B, s); z : per term (q, B, s); relation : per term K_gh of the groups of rows (B, s, s).
    levels, reach : per term the levels (B, l) that they see, and K of these with rows (B, l, s).
    """

    x: Array
    z: tuple[Array, ...]
    relation: tuple[Array, ...]
    levels: tuple[Array, ...] = ()
    reach: tuple[Array, ...] = ()


@record
class FamilyProducts(CrossProducts):
    """Stacks of families; `own` per term the diagonal of K (G,), None where groups are independent."""

    parts: tuple[Families, ...]
    logdet_r: Array
    own: tuple[Array | None, ...]
    structure: Structure = static()
    n_groups: tuple[int, ...] = static()

    @property
    def sequential(self) -> bool:
        return True

    @property
    def costly(self) -> bool:
        return sum(part.x.shape[1] * part.x.shape[2] for part in self.parts) > 5000

    def cost(self) -> Cost:
        m = self.structure.n_params
        cubes = sum(part.x.shape[1] * part.x.shape[2] ** 3 for part in self.parts)
        squares = sum(part.x.shape[1] * part.x.shape[2] ** 2 for part in self.parts)
        role = ("in the matrices of families",) * len(self.structure.terms)
        return Cost(cubes * (7 / 3 + 2 * m), 8.0 * squares * (2 * m + 4), role)

    def _matrix(self, part: Families, d: Array) -> Array:
        h = jnp.eye(part.x.shape[2], dtype=part.x.dtype)[None]
        for matrix, z, relation in zip(self.structure.matrices(d), part.z, part.relation, strict=True):
            h = h + relation * jnp.einsum("abs,ac,cbt->bst", z, matrix, z)
        return h

    def gram(self, d: Array, response: FamilyResponse) -> Gram:
        every = zip(self.parts, response.y, strict=True)
        found = [
            self._part(jnp.linalg.cholesky(self._matrix(part, d)), _columns(part, y)) for part, y in every
        ]
        return _added(found, self.logdet_r)

    @staticmethod
    def _part(factor: Array, w: Array) -> Gram:
        half = jsl.solve_triangular(factor, w, lower=True)
        logdet = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))
        return Gram.of(logdet, jnp.einsum("bsr,bsk->rk", half, half))

    def jet(self, d: Array, response: FamilyResponse) -> GramJet:
        return self._jet(d, response, self.structure.linear)

    def linear_jet(self, d: Array, response: FamilyResponse) -> GramJet:
        return self._jet(d, response, True)

    def _jet(self, d: Array, response: FamilyResponse, linear: bool) -> GramJet:
        values, firsts, seconds = [], [], []
        for part, y in zip(self.parts, response.y, strict=True):
            w = _columns(part, y)
            h, v = value_and_slopes(lambda d, part=part: self._matrix(part, d), d)
            factor, v = jnp.linalg.cholesky(h), jnp.moveaxis(v, -1, 0)
            unit = jnp.broadcast_to(jnp.eye(h.shape[-1], dtype=h.dtype), h.shape)
            root = jsl.solve_triangular(factor, unit, lower=True)
            inverse = jnp.swapaxes(root, -1, -2) @ root
            solved = inverse @ w
            # V_a = ∂H/∂d_a, A_a = H⁻¹V_a
            a, moved = inverse[None] @ v, v @ solved[None]
            half = jnp.einsum("absr,cbsk->acrk", moved, inverse[None] @ moved)
            trace = -jnp.einsum("abst,cbts->ac", a, a)
            inner = half + jnp.swapaxes(half, -1, -2)
            if not linear:
                more, rest = self._bend(part, d, inverse, solved)
                trace, inner = trace + more, inner - rest
            values.append(self._part(factor, w))
            firsts.append(Gram.of(jnp.einsum("abss->a", a), -jnp.einsum("bsr,absk->ark", solved, moved)))
            seconds.append(Gram.of(trace, inner))
        return GramJet(_added(values, self.logdet_r), _added(firsts), _added(seconds))

    def _bend(self, part: Families, d: Array, inverse: Array, solved: Array) -> tuple[Array, Array]:
        """tr(H⁻¹∂_abH) and WᵀH⁻¹(∂_abH)H⁻¹W, as derivatives with H⁻¹ held."""

        def held(d: Array) -> tuple[Array, Array]:
            h = self._matrix(part, d)
            return jnp.sum(inverse * h), jnp.einsum("bsr,bst,btk->rk", solved, h, solved)

        more, rest = (jnp.moveaxis(own, (-2, -1), (0, 1)) for own in jax.jacfwd(jax.jacfwd(held))(d))
        return more, rest

    def project(self, d: Array, response: ResponseProducts) -> tuple[Projection, ...]:
        assert isinstance(response, FamilyResponse)
        q, p = [len(z) for z in self.parts[0].z], self.parts[0].x.shape[0]
        dtype = self.parts[0].x.dtype
        # one more for levels that are none
        out = [
            [jnp.zeros((k, k, g + 1), dtype), jnp.zeros((k, p, g + 1), dtype), jnp.zeros((k, g + 1), dtype)]
            for k, g in zip(q, self.n_groups, strict=True)
        ]
        for part, y in zip(self.parts, response.y, strict=True):
            assert part.levels, "prepared without the levels"
            factor = jnp.linalg.cholesky(self._matrix(part, d))
            half = jsl.solve_triangular(factor, _columns(part, y), lower=True)
            for found, z, levels, reach in zip(out, part.z, part.levels, part.reach, strict=True):
                zg = reach[None] * z[:, :, None, :]
                side = jsl.solve_triangular(
                    jnp.broadcast_to(factor, (len(z), *factor.shape)), jnp.swapaxes(zg, -1, -2), lower=True
                )
                seen = jnp.einsum("absl,bsr->arbl", side, half)
                own = (
                    jnp.einsum("absl,cbsl->acbl", side, side),
                    seen[:, :p],
                    seen[:, p],
                )
                for k, values in enumerate(own):
                    found[k] = found[k].at[..., levels].add(values)
        return tuple(
            Projection(u[..., :-1], tx[..., :-1], ty[..., :-1], own)
            for (u, tx, ty), own in zip(out, self.own, strict=True)
        )


@record
class FamilyResponse(ResponseProducts):
    """Standardised responses (B, s, ...) of each stack."""

    y: tuple[Array, ...]


def _columns(part: Families, y: Array) -> Array:
    """[X y] (B, s, p + 1)."""
    return jnp.concatenate([jnp.moveaxis(part.x, 0, -1), y[..., None]], axis=-1)


def _added(found: list[Gram], logdet: Array | float = 0.0) -> Gram:
    total = jax.tree.map(lambda *arrays: sum(arrays[1:], arrays[0]), *found)
    return Gram(total.logdet + logdet, total.xx, total.xy, total.yy)
