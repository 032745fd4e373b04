"""Grouped backend: one grouping factor for all random terms; cost linear in its groups or their patterns.

Group i has Z_i = Q_i R_iᵀ with orthonormal Q_i. With C_i = Q_iᵀW_i and H_i = (I + R_iᵀDR_i)⁻¹,

    log|H| = log|R| + Σ log|I + R_iᵀDR_i|,     WᵀH⁻¹W = S_w + Σ C_iᵀH_iC_i,

where S_w holds the products within groups, the part of W orthogonal to every Z_i. Nothing is
subtracted, so nothing cancels, however large D is. With J_i = R_iH_i, U_i = J_iR_iᵀ = Z_iᵀH⁻¹Z_i and
T_i = J_iC_i = Z_iᵀH⁻¹W, the derivatives in direction E, F are polynomials:

    ∂ log|H| = Σ tr(U_iE),       ∂² log|H| = −Σ tr(U_iEU_iF),
    ∂ WᵀH⁻¹W = −Σ T_iᵀET_i,      ∂² WᵀH⁻¹W = Σ T_iᵀ(EU_iF + FU_iE)T_i.

Groups of one pattern have the same R; then only Σ C_iCᵢᵀ of each pattern is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, hold, matmul, namespace, record, static, sweep, transpose
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts
from lmmjax.gram.grouped.many_columns import MANY, first_products, pair_sums, places, second_products

SHORT = 60
"""Size up to which the algebra of one response is written out, scalar by scalar, and no vector is left."""

BLOCK = 4096
"""Groups whose derivatives are computed at a time: what that writes stays in the cache."""


@record
class GroupedProducts(CrossProducts):
    """Shared products of a design with one grouping factor.

    Attributes
    ----------
    r : (q, r, K) lower triangular R of each pattern (K = G without compression); q counts the
        columns of all terms, r ≤ q those of the basis that some group needs.
    count : (K,) groups of each pattern; 0 marks padding.
    within_xx : (p, p) products within groups.
    between_xx : with compression (r(r+1)/2, K, p, p), Σ C_aᵀC_b + C_bᵀC_a (halved for a = b) over
        the groups of each pattern; without it C_x (r, p, G).
    logdet_r : log|R|.
    first_columns : per term the first column of each of its copies; empty if every term has one, in order.
    members : for nested factors, per term the copy and the group (G′,) of each of its own groups.
    """

    r: Array
    count: Array
    within_xx: Array
    between_xx: Array
    logdet_r: Array
    structure: Structure = static()
    compressed: bool = static()
    first_columns: tuple[tuple[int, ...], ...] = static(default=())
    members: tuple[tuple[Array, Array], ...] = ()

    @property
    def size(self) -> float:
        if self.tied and not self.compressed:
            # no shortcut: written out, every group would be
            return float("inf")
        q, patterns = self.r.shape[1], self.r.shape[-1] if self.compressed else 1
        return patterns * q**2 * self.structure.n_params + self.within_xx.shape[0] ** 2

    @property
    def vector(self) -> int:
        if self.compressed and self.size <= SHORT:
            return 1
        return self.r.shape[-1] * self.r.shape[1] ** 2 * (2 if self.compressed else 1)

    @property
    def individual(self) -> bool:
        return True

    @property
    def tied(self) -> bool:
        """Whether a term has several copies of its columns, which share one D."""
        return any(len(places) > 1 for places in self.first_columns)

    @property
    def wide(self) -> bool:
        """Whether a group has many columns, and each entry of D one place or two among them."""
        return self.r.shape[0] >= MANY and not self.tied

    def cost(self) -> Cost:
        q, patterns, m = self.r.shape[0], self.r.shape[-1], self.structure.n_params
        columns = self.within_xx.shape[0] + 1
        products = q * (q + 1) // 2 * columns**2 if self.compressed else q**3 * columns**2
        numbers = patterns * (1 + m + m**2)
        kind = f"{patterns} patterns of groups" if self.compressed else "group by group"
        roles = tuple(
            f"{kind}, {len(place)} a group" if len(place) > 1 else kind for place in self._first_columns()
        )
        return Cost(2.0 * numbers * (2 * q**3 + products), 8.0 * numbers * q**2, roles)

    def _blocks(self, d: Array) -> tuple[Array, Array, Array]:
        """log|I + RᵀDR| (K,), H (r, r, K), J = RH (q, r, K)."""
        xp = namespace(d, self.r)
        big_d = xp.tensordot(self.units.astype(d.dtype), d, axes=(0, 0))[..., None]
        eye = xp.eye(self.r.shape[1], dtype=d.dtype)[..., None]
        logdet, h = sweep(eye + matmul(matmul(transpose(self.r), big_d), self.r))
        h = hold(h)
        return logdet, h, matmul(self.r, h)

    @property
    def units(self) -> np.ndarray:
        """E (m, q, q) with D = Σ d_c E_c, in the merged columns of all terms."""
        terms, places = self.structure.terms, self._first_columns()
        # not from the shape of r, which a batching rule sees with an axis of responses
        q = max((place[-1] + term.q for term, place in zip(terms, places, strict=True)), default=0)
        units = np.zeros((self.structure.n_params, q, q))
        for term, s, copies in zip(terms, self.structure.slices(), places, strict=True):
            for place in copies:
                block = slice(place, place + term.q)
                units[s, block, block] = term.units
        return units

    def _first_columns(self) -> tuple[tuple[int, ...], ...]:
        """The first column of every copy of each term."""
        widths = np.cumsum([0, *(term.q for term in self.structure.terms)])
        return self.first_columns or tuple((int(first),) for first in widths[:-1])

    def gram(self, d: Array, response: GroupedResponse) -> Gram:
        logdet, h, _ = self._blocks(d)
        return self._gram(logdet, h, response)

    def _gram(self, logdet: Array, h: Array, response: GroupedResponse) -> Gram:
        total = self.logdet_r + jnp.sum(self.count * logdet)
        if self.compressed:
            weights = _pairs(h)[None]
            xx, xy, yy = (a[0] for a in self._contract(weights, response))
        else:
            hx = matmul(h, self.between_xx)
            hy = matmul(h, response.between_xy[:, None])[:, 0]
            xx = jnp.einsum("apg,arg->pr", hx, self.between_xx)
            xy = jnp.einsum("apg,ag->p", hx, response.between_xy)
            yy = jnp.sum(hy * response.between_xy)
        return Gram(total, self.within_xx + xx, response.within_xy + xy, response.within_yy + yy)

    def jet(self, d: Array, response: GroupedResponse) -> GramJet:
        groups = self.r.shape[-1]
        if self.compressed or groups <= 2 * BLOCK:
            return self._jet(d, response)
        zeros = partial(jax.tree.map, jnp.zeros_like)

        def part(total: GramJet, first: Array) -> tuple[GramJet, None]:
            own, y = self._some(response, lambda a: jax.lax.dynamic_slice_in_dim(a, first, BLOCK, a.ndim - 1))
            own = dataclasses.replace(own, **zeros({"within_xx": own.within_xx, "logdet_r": own.logdet_r}))
            y = dataclasses.replace(y, **zeros({"within_xy": y.within_xy, "within_yy": y.within_yy}))
            return jax.tree.map(jnp.add, total, own._jet(d, y)), None

        whole = (groups - 1) // BLOCK * BLOCK
        own, y = self._some(response, lambda a: a[..., whole:])
        return jax.lax.scan(part, own._jet(d, y), np.arange(0, whole, BLOCK))[0]

    def _some(
        self, response: GroupedResponse, take: Callable[[Array], Array]
    ) -> tuple[GroupedProducts, GroupedResponse]:
        """Products of some of the groups, without compression."""
        arrays = {name: take(getattr(self, name)) for name in ("r", "count", "between_xx")}
        own = dataclasses.replace(self, **arrays)
        return own, dataclasses.replace(response, between_xy=take(response.between_xy))

    def _jet(self, d: Array, response: GroupedResponse) -> GramJet:
        logdet, h, j = self._blocks(d)
        j = hold(j)
        u = hold(matmul(j, transpose(self.r)))
        if self.wide and not self.compressed:
            return self._many_jet(logdet, h, j, u, response)
        units = jnp.asarray(self.units, d.dtype)
        # E, UE: (q, q, m, K)
        e = jnp.moveaxis(units, 0, 2)[..., None]
        ue = matmul(u[:, :, None], e)
        total = self.logdet_r + jnp.sum(self.count * logdet)
        first_logdet = jnp.sum(self.count[None] * _trace(ue), axis=-1)
        traces = _trace(matmul(ue[:, :, :, None], ue[:, :, None]))
        second_logdet = -jnp.sum(self.count[None, None] * traces, axis=-1)
        if self.compressed:
            xx, xy, yy = self._compressed_jet(h, j, u, e, response)
        else:
            xx, xy, yy = self._raw_jet(h, j, u, units, response)
        return GramJet(
            Gram(total, self.within_xx + xx[0], response.within_xy + xy[0], response.within_yy + yy[0]),
            Gram(first_logdet, xx[1], xy[1], yy[1]),
            Gram(second_logdet, xx[2], xy[2], yy[2]),
        )

    def _compressed_jet(self, h, j, u, e, response):
        m = e.shape[2]
        ej = matmul(e, j[:, :, None])
        # ∂H = −JᵀEJ, ∂²H = (EJ)ᵀU(FJ) + (FJ)ᵀU(EJ)
        first = -matmul(transpose(j)[:, :, None], ej)
        half = matmul(transpose(ej)[:, :, :, None], matmul(u[:, :, None], ej)[:, :, None])
        second = half + transpose(half)
        q, k = h.shape[0], h.shape[-1]
        stacked = jnp.concatenate(
            [h[:, :, None], first, second.reshape(q, q, m * m, k)],
            axis=2,
        )
        pairs = hold(jnp.moveaxis(_pairs(stacked), 1, 0))
        return tuple(_split(a, m) for a in self._contract(pairs, response))

    def _contract(self, weights: Array, response: GroupedResponse) -> tuple[Array, Array, Array]:
        """Σ weights (c, pairs, K) × the between-group products: arrays (c, p, p), (c, p), (c,)."""
        flat = weights.reshape(weights.shape[0], -1)
        p = self.within_xx.shape[0]
        xx = (flat @ self.between_xx.reshape(flat.shape[1], p * p)).reshape(flat.shape[0], p, p)
        xy = flat @ response.between_xy.reshape(flat.shape[1], p)
        yy = flat @ response.between_yy.reshape(-1)
        return xx, xy, yy

    def _raw_jet(self, h, j, u, units, response):
        p, q = self.within_xx.shape[0], self.r.shape[0]
        # columns of X and y together: c, t (q, p + 1, G)
        c = response.columns(self)
        t = matmul(j, c)
        value = jnp.einsum("apg,arg->pr", matmul(h, c), c)
        flat = t.reshape(q * (p + 1), -1)
        tt = (flat @ flat.T).reshape(q, p + 1, q, p + 1)
        ut = (u[:, :, None, None] * t[None, None]).reshape(q * q * q * (p + 1), -1)
        tut = (flat @ ut.T).reshape(q, p + 1, q, q, q, p + 1)
        first = -jnp.einsum("cab,apbr->cpr", units, tt)
        half = jnp.einsum("cab,def,apbefr->cdpr", units, units, tut)
        second = half + jnp.swapaxes(half, -1, -2)
        parts = (value, first, second)
        return (
            [a[..., :p, :p] for a in parts],
            [a[..., :p, p] for a in parts],
            [a[..., p, p] for a in parts],
        )

    def _many_jet(self, logdet: Array, h: Array, j: Array, u: Array, response: GroupedResponse) -> GramJet:
        """`_jet` without compression, for terms of many columns."""
        units, c = self.units, response.columns(self)
        at, t = places(units), matmul(j, c)
        value = jnp.einsum("apg,arg->pr", matmul(h, c), c)
        half = second_products(u, t, at)
        sums = jnp.sum(self.count[None, None] * u, axis=-1)
        first = jnp.tensordot(jnp.asarray(units, u.dtype), sums, axes=((1, 2), (0, 1)))
        total = self.logdet_r + jnp.sum(self.count * logdet)
        inside = Gram(total, self.within_xx, response.within_xy, response.within_yy)
        return GramJet(
            Gram.of(total, inside.s + value),
            Gram.of(first, -first_products(t, at)),
            Gram.of(-pair_sums(self.count[None, None] * u, u, at), half + jnp.swapaxes(half, -1, -2)),
        )

    def solved(self, d: Array, response: GroupedResponse) -> tuple[Array, Array]:
        """U = ZᵀH⁻¹Z (q, q, G) and T = ZᵀH⁻¹[X y] (q, p + 1, G) of every group, without compression."""
        _, _, j = self._blocks(d)
        return matmul(j, transpose(self.r)), matmul(j, response.columns(self))

    def project(self, d: Array, response: GroupedResponse) -> tuple[Projection, ...]:
        if self.compressed:
            raise ValueError(
                "this problem has no random effects: its groups are compressed to patterns; that of "
                "Model.expanded(y), or of problem_from_arrays, has them"
            )
        u, t = self.solved(d, response)
        tx, ty = t[:, :-1], t[:, -1]
        out = []
        for k, (term, copies) in enumerate(zip(self.structure.terms, self._first_columns(), strict=True)):
            blocks = [slice(place, place + term.q) for place in copies]
            found = [Projection(u[block, block], tx[block], ty[block]) for block in blocks]
            out.append(_gather(found, *self.members[k]) if self.members else found[0])
        return tuple(out)


def _gather(copies: list[Projection], member: Array, group: Array) -> Projection:
    """The projection whose every group is one of a copy's."""

    def pick(*arrays: Array) -> Array:
        xp = namespace(*arrays)
        return xp.moveaxis(xp.moveaxis(xp.stack(arrays), -1, 1)[member, group], 0, -1)

    return jax.tree.map(pick, *copies)


@record
class GroupedResponse(ResponseProducts):
    """Products of a response.

    Attributes
    ----------
    within_xy : (p,), within_yy : ().
    between_xy : with compression (r(r+1)/2, K, p); without it C_y (r, G).
    between_yy : with compression (r(r+1)/2, K); without it empty.
    """

    within_xy: Array
    within_yy: Array
    between_xy: Array
    between_yy: Array

    def columns(self, shared: GroupedProducts) -> Array:
        """C = Qᵀ[X y] (r, p + 1, G) of every group, without compression."""
        xp = namespace(self.between_xy, shared.between_xx)
        return xp.concatenate([shared.between_xx, self.between_xy[:, None]], axis=1)


def _pairs(h: Array) -> Array:
    """The entries a ≤ b of symmetric blocks (q, q, ...): (q(q+1)/2, ...)."""
    q = h.shape[0]
    return jnp.stack([h[a, b] for a in range(q) for b in range(a, q)])


def _trace(a: Array) -> Array:
    return sum(a[i, i] for i in range(1, a.shape[0])) + a[0, 0]


def _split(stacked: Array, m: int) -> tuple[Array, Array, Array]:
    """Value, first and second derivatives from a stack of 1 + m + m² arrays."""
    rest = stacked.shape[1:]
    return stacked[0], stacked[1 : m + 1], stacked[m + 1 :].reshape(m, m, *rest)
