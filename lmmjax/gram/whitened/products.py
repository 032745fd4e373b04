"""Backend for structured residuals: correlated within groups that lie within those of the random effects.

With A = ZᵀR⁻¹Z = LLᵀ and C = ZᵀR⁻¹W in every group the grouped backend's formulas hold,

    log|H| = log|R| + Σ log|I + LᵀDL|,   WᵀH⁻¹W = WᵀR⁻¹W − ΣCᵀL⁻ᵀL⁻¹C + ΣCᵀL⁻ᵀ(I + LᵀDL)⁻¹L⁻¹C,

at every r, and give U = ZᵀH⁻¹Z, T = ZᵀH⁻¹W and the derivatives in D. Those in r, with M = I − UD, K = DM,
E = [−DT; I] and the derivatives B_a, B_ab of B = [Z W]ᵀR⁻¹[Z W], whose first rows of B_aE are G_a, are

    ∂_a WᵀH⁻¹W = ΣEᵀB_aE,          ∂_ab = ΣEᵀB_abE − Σ(G_aᵀKG_b + G_bᵀKG_a),
    ∂_a log|H| = ∂_a log|R| + Σtr(KA_a),   ∂_ab = ∂_ab log|R| + Σtr(KA_ab) − Σtr(KA_aKA_b),

and mixed with direction V in D: −Σ(TᵀVMG_a + G_aᵀMᵀVT) and Σtr(V MA_aMᵀ).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, derivatives, hold, matmul, record, static, transpose
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramCurve, GramJet, Projection, lead
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse
from lmmjax.gram.whitened.blocks import (
    Blocks,
    Products,
    Tangent,
    WhitenedResponse,
)
from lmmjax.gram.whitened.schedule import ScheduleProducts
from lmmjax.gram.whitened.schedule_jet import schedule_curve, schedule_jet

RANK_TOL = 1e-12
"""A pivot of A_i below this, relative to its diagonal, belongs to a column that depends on earlier ones."""


@record
class WhitenedProducts(CrossProducts):
    """Products by group for any r.

    Attributes
    ----------
    products : the way they are formed.
    q : columns of Z a group; first_columns, members : as in `GroupedProducts`.
    """

    products: Products
    logdet_r: Array
    structure: Structure = static()
    q: int = static()
    first_columns: tuple[tuple[int, ...], ...] = static(default=())
    members: tuple[tuple[Array, Array], ...] = ()

    @property
    def sequential(self) -> bool:
        return not self.products.direct

    @property
    def vector(self) -> int:
        return max(a.size for a in jax.tree.leaves(self.products))

    def cost(self) -> Cost:
        numbers = sum(a.size for a in jax.tree.leaves(self.products))
        m = self.structure.n_params
        roles = ("within groups of the residuals",) * len(self.structure.terms)
        if isinstance(self.products, ScheduleProducts):
            return Cost(self.products.operations(m), 8.0 * numbers, roles)
        # for every pattern R⁻¹, −R⁻¹∂R R⁻¹ in m directions, and four such products for m² pairs
        patterns = getattr(self.products, "patterns", ())
        shapes = [p.mask.shape for p in patterns]
        cubes, squares = sum(k * t**3 for k, t in shapes), sum(k * t**2 for k, t in shapes)
        rows = sum(
            w.shape[0] * w.shape[1] ** 2 * (w.shape[2] + 1)
            for w in getattr(self.products, "w", ())
            if w.ndim == 3
        )
        each = 1 + m + m**2
        operations = 2.0 * (numbers + rows) * each + 2.0 * cubes * (1 + 2 * m + 4 * m**2)
        return Cost(operations, 8.0 * (numbers + squares) * each, roles)

    def _blocks(self, r: Array, response: WhitenedResponse) -> Blocks:
        assert self.structure.residual is not None
        return self.products.blocks(self.structure.residual, r, response)

    def _grouped(self, blocks: Blocks) -> tuple[GroupedProducts, GroupedResponse]:
        """The grouped backend's products at one r."""
        q = self.q
        r, solved = factor(blocks.xx[:q, :q], jnp.concatenate([blocks.xx[:q, q:], blocks.xy[:q, None]], 1))
        c_x, c_y = solved[:, :-1], solved[:, -1]
        within_xx = jnp.sum(blocks.xx[q:, q:], -1) - jnp.einsum("apg,arg->pr", c_x, c_x)
        within_xy = jnp.sum(blocks.xy[q:], -1) - jnp.einsum("apg,ag->p", c_x, c_y)
        within_yy = jnp.sum(blocks.yy) - jnp.sum(c_y * c_y)
        count = jnp.ones(blocks.yy.shape, blocks.yy.dtype)
        shared = GroupedProducts(
            r,
            count,
            within_xx,
            c_x,
            self.logdet_r + blocks.logdet,
            self.structure.random,
            False,
            self.first_columns,
            self.members,
        )
        return shared, GroupedResponse(within_xy, within_yy, c_y, jnp.zeros((0,), c_y.dtype))

    def _gram(self, d: Array, blocks: Blocks) -> Gram:
        if self.q == 0:
            xx, xy, yy = (jnp.sum(a, -1) for a in (blocks.xx, blocks.xy, blocks.yy))
            return Gram(self.logdet_r + blocks.logdet, xx, xy, yy)
        shared, response = self._grouped(blocks)
        return shared.gram(d[: self.structure.tail.start], response)

    def gram(self, d: Array, response: WhitenedResponse) -> Gram:
        return self._gram(d, self._blocks(d[self.structure.tail], response))

    def project(self, d: Array, response: WhitenedResponse) -> tuple[Projection, ...]:
        if self.q == 0:
            return ()
        shared, own = self._grouped(self._blocks(d[self.structure.tail], response))
        return shared.project(d[: self.structure.tail.start], own)

    def jet(self, d: Array, response: WhitenedResponse) -> GramJet:
        if isinstance(self.products, ScheduleProducts):
            assert self.structure.residual is not None
            return self._whole(schedule_jet(self.products, self.structure.residual, d, response))
        return self._jet(d, lambda r: self._blocks(r, response))

    def linear_jet(self, d: Array, response: WhitenedResponse) -> GramJet:
        """Derivatives along the tangent of H at d: for patterns of rows, whose R can leave the family."""
        assert self.structure.residual is not None
        tangent = Tangent(self.structure.residual, d[self.structure.tail])
        if isinstance(self.products, ScheduleProducts):
            return self._whole(schedule_jet(self.products, tangent, d, response))
        return self._jet(d, lambda r: self.products.blocks(tangent, r, response))

    def curve(self, d: Array, response: WhitenedResponse) -> GramCurve:
        if not isinstance(self.products, ScheduleProducts):
            return super().curve(d, response)
        assert self.structure.residual is not None
        return self._whole(schedule_curve(self.products, self.structure.residual, d, response))

    def _whole(self, derivatives: Any) -> Any:
        """With log|R| of the prior weights."""
        value = derivatives.value
        value = dataclasses.replace(value, logdet=value.logdet + self.logdet_r)
        return dataclasses.replace(derivatives, value=value)

    def _jet(self, d: Array, blocks: Callable[[Array], Blocks]) -> GramJet:
        r = d[self.structure.tail]
        value, first, second = derivatives(blocks, r)
        first, second = _groups_last(first, 1), _groups_last(second, 2)
        if self.q == 0:
            total = Gram(self.logdet_r + value.logdet, *(a.sum(-1) for a in (value.xx, value.xy, value.yy)))
            sums = [Gram(b.logdet, b.xx.sum(-1), b.xy.sum(-1), b.yy.sum(-1)) for b in (first, second)]
            return GramJet(total, lead(sums[0], 1), lead(sums[1], 2))
        return self._mixed(d[: self.structure.tail.start], value, first, second)

    def _mixed(self, d: Array, value: Blocks, first: Blocks, second: Blocks) -> GramJet:
        """The jet in (d, r) from the blocks and their derivatives in r."""
        q, p = self.q, value.xx.shape[0] - self.q
        shared, response = self._grouped(value)
        jet = shared.jet(d, response)
        u, t = shared.solved(d, response)
        units = jnp.asarray(shared.units, d.dtype)
        big_d = jnp.tensordot(d, units, axes=1)[..., None]
        eye = jnp.eye(q, dtype=d.dtype)[..., None]
        m = hold(eye - matmul(u, big_d))
        k = hold(matmul(big_d, m))
        f = matmul(big_d, t)
        one = jnp.broadcast_to(jnp.eye(p + 1, dtype=d.dtype)[..., None], (p + 1, p + 1, f.shape[-1]))
        e = hold(jnp.concatenate([-f, one])[:, :, None])
        b_1, b_2 = _whole(first), _whole(second)
        be = hold(matmul(b_1, e))
        g = be[:q]
        mg = matmul(m[:, :, None], g)
        quad_1 = jnp.sum(matmul(transpose(e), be), -1)
        e_2 = e[:, :, None]
        quad_2 = jnp.sum(matmul(transpose(e_2), matmul(b_2, e_2)), -1)
        kg = hold(matmul(k[:, :, None], g))
        cross = jnp.sum(matmul(transpose(g)[:, :, :, None], kg[:, :, None]), -1)
        rr = quad_2 - cross - jnp.swapaxes(cross, 0, 1)
        # TᵀVMG for the directions V
        tv = hold(matmul(transpose(t)[:, :, None], jnp.moveaxis(units, 0, 2)[..., None]))
        half = jnp.sum(matmul(tv[:, :, :, None], mg[:, :, None]), -1)
        dr = -(half + jnp.swapaxes(half, 0, 1))
        a_1, a_2 = b_1[:q, :q], b_2[:q, :q]
        ka = hold(matmul(k[:, :, None], a_1))
        mam = matmul(matmul(m[:, :, None], a_1), transpose(m)[:, :, None])
        logdet_1 = first.logdet + jnp.einsum("aakg->k", ka)
        kaka = matmul(ka[:, :, :, None], ka[:, :, None])
        logdet_rr = second.logdet + jnp.einsum("abg,bamng->mn", k, a_2) - jnp.einsum("aamng->mn", kaka)
        logdet_dr = jnp.einsum("cab,bakg->ck", units, mam)
        w_1 = _blocks_of(jet.first.xx, jet.first.xy, jet.first.yy)
        w_2 = _blocks_of(jet.second.xx, jet.second.xy, jet.second.yy)
        rr, dr = (jnp.moveaxis(a, (0, 1), (2, 3)) for a in (rr, dr))
        top = jnp.concatenate([w_2, dr], axis=1)
        bottom = jnp.concatenate([jnp.swapaxes(dr, 0, 1), rr], axis=1)
        w_1, w_2 = jnp.concatenate([w_1, jnp.moveaxis(quad_1, 2, 0)]), jnp.concatenate([top, bottom])
        top = jnp.concatenate([jet.second.logdet, logdet_dr], axis=1)
        bottom = jnp.concatenate([logdet_dr.T, logdet_rr], axis=1)
        return GramJet(
            jet.value,
            Gram(jnp.concatenate([jet.first.logdet, logdet_1]), *_split(w_1)),
            Gram(jnp.concatenate([top, bottom]), *_split(w_2)),
        )


def _groups_last(blocks: Blocks, axes: int) -> Blocks:
    """Derivatives with the axis of groups, which `jacfwd` leaves before its `axes`, at the end."""
    moved = [jnp.moveaxis(a, -1 - axes, -1) for a in (blocks.xx, blocks.xy, blocks.yy)]
    return Blocks(blocks.logdet, *moved)


def _whole(blocks: Blocks) -> Array:
    """[Z X y]ᵀR⁻¹[Z X y] (w + 1, w + 1, ...)."""
    top = jnp.concatenate([blocks.xx, blocks.xy[:, None]], axis=1)
    return jnp.concatenate([top, jnp.concatenate([blocks.xy, blocks.yy[None]])[None]])


def _blocks_of(xx: Array, xy: Array, yy: Array) -> Array:
    """(..., p + 1, p + 1) from its blocks."""
    top = jnp.concatenate([xx, xy[..., None]], axis=-1)
    return jnp.concatenate([top, jnp.concatenate([xy, yy[..., None]], axis=-1)[..., None, :]], axis=-2)


def _split(w: Array) -> tuple[Array, Array, Array]:
    return w[..., :-1, :-1], w[..., :-1, -1], w[..., -1, -1]


def factor(a: Array, rhs: Array) -> tuple[Array, Array]:
    """L (q, q, G) with A = LLᵀ and L⁻¹B for blocks A (q, q, G), B (q, s, G); dependent columns give zeros."""
    q = a.shape[0]
    zero = jnp.zeros(a.shape[2:], a.dtype)
    columns, solved = [], []
    left = a
    for j in range(q):
        good = left[j, j] > RANK_TOL * a[j, j]
        root = jnp.sqrt(jnp.where(good, left[j, j], 1.0))
        over = jnp.where(good, 1.0 / root, 0.0)
        column = jnp.stack([zero] * j + [left[i, j] * over for i in range(j, q)])
        columns.append(column)
        left = left - column[:, None] * column[None]
        own = (rhs[j] - sum(columns[k][j][None] * solved[k] for k in range(j))) * over[None]
        solved.append(own)
    return jnp.stack(columns, axis=1), jnp.stack(solved)
