"""Backend for structured residuals: correlated within groups that lie within those of the random effects.

With A_i = Z_iᵀR_i⁻¹Z_i = L_iL_iᵀ and C_i = L_i⁻¹Z_iᵀR_i⁻¹W the grouped backend's formulas hold,

    log|H| = log|R| + Σ log|I + L_iᵀDL_i|,   WᵀH⁻¹W = WᵀR⁻¹W − ΣC_iᵀC_i + ΣC_iᵀ(I + L_iᵀDL_i)⁻¹C_i,

at every r. Derivatives: those of A, ZᵀR⁻¹W and WᵀR⁻¹W in r by forward differentiation, once over the rows;
then of the formulas above along the second-order expansion of these products.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax._types import Array, namespace, record, static
from lmmjax.basis import Rows
from lmmjax.covariance import Structure
from lmmjax.design import Design
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Prepared, Projection, lead
from lmmjax.gram.grouped import GroupedProducts, GroupedResponse
from lmmjax.gram.residual_products import (
    Blocks,
    Products,
    Tangent,
    WhitenedResponse,
)
from lmmjax.gram.residual_ways import PatternWay, StepWay
from lmmjax.gram.slots import layout

RANK_TOL = 1e-12
"""A pivot of A_i below this, relative to its diagonal, belongs to a column that depends on earlier ones."""


@record
class WhitenedProducts(CrossProducts):
    """Products by group for any r.

    Attributes
    ----------
    products : the way they are formed.
    q : columns of Z a group; places, slots : as in `GroupedProducts`.
    """

    products: Products
    logdet_r: Array
    structure: Structure = static()
    q: int = static()
    places: tuple[tuple[int, ...], ...] = static(default=())
    slots: tuple[tuple[Array, Array], ...] = ()

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
        return Cost(2.0 * numbers * (1 + m + m**2), 8.0 * numbers * (1 + m + m**2), roles)

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
            self.structure.free,
            False,
            self.places,
            self.slots,
        )
        return shared, GroupedResponse(within_xy, within_yy, c_y, jnp.zeros((0,), c_y.dtype))

    def _gram(self, entries: Array, blocks: Blocks) -> Gram:
        if self.q == 0:
            xx, xy, yy = (jnp.sum(a, -1) for a in (blocks.xx, blocks.xy, blocks.yy))
            return Gram(self.logdet_r + blocks.logdet, xx, xy, yy)
        shared, response = self._grouped(blocks)
        return shared.gram(entries, response)

    def gram(self, d: Array, response: WhitenedResponse) -> Gram:
        blocks = self._blocks(d[self.structure.tail], response)
        return self._gram(self.structure.free_entries(d), blocks)

    def project(self, d: Array, response: WhitenedResponse) -> tuple[Projection, ...]:
        if self.q == 0:
            return ()
        shared, own = self._grouped(self._blocks(d[self.structure.tail], response))
        return shared.project(self.structure.free_entries(d), own)

    def jet(self, d: Array, response: WhitenedResponse) -> GramJet:
        return self._jet(d, lambda r: self._blocks(r, response), self.structure.free_entries)

    def linear_jet(self, d: Array, response: WhitenedResponse) -> GramJet:
        """Derivatives along the tangent of H at d: for patterns of rows, whose R can leave the family."""
        structure, start = self.structure, d[self.structure.tail]
        assert structure.residual is not None
        tangent = Tangent(structure.residual, start)

        def blocks(r: Array) -> Blocks:
            return self.products.blocks(tangent, r, response)

        def entries(a: Array) -> Array:
            return jax.jvp(structure.free_entries, (d,), (a - d,))[1] + structure.free_entries(d)

        return self._jet(d, blocks, entries)

    def _jet(self, d, blocks, entries) -> GramJet:
        tail = self.structure.tail
        r = d[tail]
        first = jax.jacfwd(blocks)
        value, slope, curve = blocks(r), first(r), jax.jacfwd(first)(r)

        def expanded(a: Array) -> Gram:
            step = a[tail] - r

            def move(v: Array, s: Array, c: Array) -> Array:
                return v + s @ step + 0.5 * (c @ step) @ step

            return self._gram(entries(a), jax.tree.map(move, value, slope, curve))

        once = jax.jacfwd(expanded)
        return GramJet(self._gram(entries(d), value), lead(once(d), 1), lead(jax.jacfwd(once)(d), 2))


class WhitenedPrepared(Prepared):
    """Rows sorted by group of the random effects, group of the residuals, and place.

    Parameters
    ----------
    design, rows : the design and its standardised rows.
    markov : False for the covariance matrices of groups where rows could be taken one after another.
    """

    def __init__(self, design: Design, rows: Rows, markov: bool = True):
        own = design.residual
        assert own is not None
        plan = layout(design, rows.z) if design.terms else None
        top = np.zeros(design.n, int) if plan is None else np.asarray(plan.codes)
        groups = 1 if plan is None else int(plan.n_groups)
        places = own.place.T if own.place.ndim > 1 else own.place[None]
        self.order = np.lexsort((*places[::-1], own.codes, top))
        xp = namespace(rows.x, *rows.z)
        z = rows.x[:0] if plan is None else plan.expand(rows.z)
        w = xp.take(xp.concatenate([z, rows.x]), self.order, axis=1)
        way = StepWay if own.structure.markov and markov else PatternWay
        self.way = way(own.take(self.order), w, top[self.order], groups)
        self.shared = WhitenedProducts(
            self.way.products,
            rows.logdet_r,
            design.structure,
            z.shape[0],
            () if plan is None else plan.places,
            () if plan is None else plan.slots,
        )

    def respond(self, residual: Array, factor: Array) -> WhitenedResponse:
        return self.way.respond(residual * factor)


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
