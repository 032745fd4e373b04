"""Nested backend: each grouping factor lies within the next; cost linear in the number of groups.

Factor 1 is the finest. Within its group g, Z_g = Q_gR_gᵀ, c_g = Q_gᵀ[Z₂ … Z_c W] and
H_g = (I + R_gᵀD₁R_g)⁻¹. With H_l = R + Σ_{j≤l} Z_jD_jZ_jᵀ, block-diagonal over the groups of factor l,
and N = [Z_{l+1} … Z_c W],

    NᵀH₁⁻¹N = within + Σ c_gᵀH_gc_g,
    NᵀH_l⁻¹N = NᵀH_{l−1}⁻¹N − Σ BᵀK B,    A = Z_lᵀH_{l−1}⁻¹Z_l,  B = Z_lᵀH_{l−1}⁻¹N,  K = (D_l⁻¹ + A)⁻¹,
    log|H| = log|R| + Σ log|I + R_gᵀD₁R_g| + Σ log|I + AD_l|,

sums taken into the group of the next factor. The way back, from the coarsest factor down, gives
T_l = Z_lᵀH⁻¹W and the diagonal blocks of U_l = Z_lᵀH⁻¹Z_l: with the factors above stacked as `up`,
β_up = D_upT_up, and K_up the joint matrix (D_up⁻¹ + A_up)⁻¹ of the ancestors of a group,

    T_l = (I + AD_l)⁻¹(B_w − B_upβ_up),    U_l = (I + AD_l)⁻¹A − FK_upFᵀ,  F = (I + AD_l)⁻¹B_up.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, matmul, record, static, sweep, transpose
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, forward_jet, taylor
from lmmjax.gram.grouped.products import GroupedProducts
from lmmjax.gram.leading import LeadingResponse

_First = tuple[Array, Array, Array]

COSTLY = 10_000
"""From so many groups of the finest factor on an evaluation takes more than some milliseconds."""


@record
class NestedProducts(CrossProducts):
    """Shared products of a nested design.

    Attributes
    ----------
    leading : uncompressed products of the finest factor with X.
    up : (q₁, Q, G₁) c with the Q columns of the coarser factors.
    base : (Q, Q + p, G₂) products within the groups of factor 1 of those columns with each other and X,
        summed into the groups of factor 2.
    parents : for each factor but the coarsest (G_l,) the group of the next.
    levels : for each factor the positions of its terms in the design, finest first.
    """

    leading: GroupedProducts
    up: Array
    base: Array
    parents: tuple[Array, ...]
    structure: Structure = static()
    levels: tuple[tuple[int, ...], ...] = static()
    n_groups: tuple[int, ...] = static()

    @property
    def vector(self) -> int:
        return 4 * self.up.shape[-1] * (self.up.shape[1] + 2)

    @property
    def costly(self) -> bool:
        return self.up.shape[-1] > COSTLY

    def cost(self) -> Cost:
        q, up, groups = self.up.shape
        m, lead, columns = self.structure.n_params, len(self.leading.units), self.base.shape[1] + 1
        # forward derivatives repeat the evaluation
        numbers = (1 + lead + lead**2) * groups * (q**3 + q**2 * up * columns + q * columns**2)
        numbers += (1 + m + m**2) * self.base.shape[-1] * up**2 * columns
        roles = {k: "into the next factor" for terms in self.levels[:-1] for k in terms}
        roles |= dict.fromkeys(self.levels[-1], "group by group")
        memory = 8.0 * (1 + lead + lead**2) * groups * q * columns
        memory += 8.0 * (1 + m + m**2) * self.base.shape[-1] * up * columns
        return Cost(2.0 * numbers, memory, tuple(roles[k] for k in range(len(roles))))

    def _matrices(self, d: Array, level: int) -> Array:
        """D_l (q, q), block-diagonal over the terms of factor l."""
        matrices = self.structure.matrices(d)
        return jax.scipy.linalg.block_diag(*(matrices[k] for k in self.levels[level]))

    def _leading_d(self, d: Array) -> Array:
        slices = self.structure.slices()
        return jnp.concatenate([d[slices[k]] for k in self.levels[0]])

    def _first(self, lead: Array, response: LeadingResponse) -> _First:
        """The finest factor eliminated, at the entries of its terms."""
        _, h, _ = self.leading._blocks(lead)
        first = self.leading.gram(lead, response.leading)
        c = jnp.concatenate([self.up, response.leading.columns(self.leading)], axis=1)
        base = jnp.concatenate([self.base, response.base_y[:, None]], axis=1)
        products = matmul(transpose(self.up), matmul(h, c))
        inner = base + _sum_into(products, self.parents[0], self.n_groups[1])
        return first.logdet, first.s, inner

    def _rest(self, d: Array, first: _First) -> tuple[Array, Array, list[_Level]]:
        """log|H|, S (p+1, p+1) and what each coarser factor leaves for the way back."""
        total, s, inner = first
        p = s.shape[0] - 1
        levels = []
        for level in range(1, len(self.levels)):
            big_d = self._matrices(d, level)[..., None]
            q = big_d.shape[0]
            a, b = inner[:q, :q], inner[:q, q:]
            logdet, k = _precision(a, big_d)
            total = total + jnp.sum(logdet)
            kb = matmul(k, b)
            fixed = b.shape[1] - (p + 1)
            s = s - jnp.einsum("ajg,akg->jk", b[:, fixed:], kb[:, fixed:])
            levels.append(_Level(a, b, k))
            if fixed:
                rest = inner[q:, q:] - matmul(transpose(b[:, :fixed]), kb)
                inner = _sum_into(rest, self.parents[level], self.n_groups[level + 1])
        return total, s, levels

    def gram(self, d: Array, response: LeadingResponse) -> Gram:
        return Gram.of(*self._rest(d, self._first(self._leading_d(d), response))[:2])

    def jet(self, d: Array, response: LeadingResponse) -> GramJet:
        first = taylor(lambda lead: self._first(lead, response), self._leading_d(d))
        return forward_jet(lambda d: Gram.of(*self._rest(d, first(self._leading_d(d)))[:2]), d)

    def project(self, d: Array, response: LeadingResponse) -> tuple[Projection, ...]:
        _, s, levels = self._rest(d, self._first(self._leading_d(d), response))
        p, out = s.shape[0] - 1, {}
        # of the ancestors of each group, finest first: β (Q, p + 1, G) and K (Q, Q, G)
        beta: Array = jnp.zeros((0, p + 1, self.n_groups[-1]), s.dtype)
        joint: Array = jnp.zeros((0, 0, self.n_groups[-1]), s.dtype)
        for level in range(len(self.levels) - 1, 0, -1):
            one, big_d = levels[level - 1], self._matrices(d, level)[..., None]
            fixed = one.b.shape[1] - (p + 1)
            shrink = jnp.eye(one.a.shape[0], dtype=s.dtype)[..., None] - matmul(one.a, one.k)
            rest = one.b[:, fixed:]
            u = matmul(shrink, one.a)
            own, cross = one.k, None
            if fixed:
                rest = rest - matmul(one.b[:, :fixed], beta)
                f = matmul(shrink, one.b[:, :fixed])
                u = u - matmul(matmul(f, joint), transpose(f))
                g = matmul(one.k, one.b[:, :fixed])
                cross = -matmul(g, joint)
                own = own - matmul(cross, transpose(g))
            t = matmul(shrink, rest)
            out[level] = (u, t)
            mine = matmul(big_d, t)
            beta = jnp.concatenate([mine, beta])
            if cross is not None:
                top = jnp.concatenate([own, cross], axis=1)
                own = jnp.concatenate([top, jnp.concatenate([transpose(cross), joint], axis=1)])
            joint = own
            owner = self.parents[level - 1]
            beta, joint = beta[..., owner], joint[..., owner]
        _, _, j = self.leading._blocks(self._leading_d(d))
        f = matmul(j, self.up)
        t = matmul(j, response.leading.columns(self.leading) - matmul(self.up, beta))
        u = matmul(j, transpose(self.leading.r)) - matmul(matmul(f, joint), transpose(f))
        out[0] = (u, t)
        return self._by_term(out, p)

    def _by_term(self, blocks: dict[int, tuple[Array, Array]], p: int) -> tuple[Projection, ...]:
        projections = {}
        for level, terms in enumerate(self.levels):
            u, t = blocks[level]
            column = 0
            for k in terms:
                own = slice(column, column + self.structure.terms[k].q)
                projections[k] = Projection(u[own, own], t[own, :p], t[own, p])
                column = own.stop
        return tuple(projections[k] for k in range(len(projections)))


@record
class _Level:
    """A (q, q, G), B (q, Q′ + p + 1, G) and K (q, q, G) of one factor."""

    a: Array
    b: Array
    k: Array


def _sum_into(values: Array, owner: Array, groups: int) -> Array:
    """Sums over the groups with one parent: (..., G) → (..., G′)."""
    flat = values.reshape(-1, values.shape[-1])
    return jax.ops.segment_sum(flat.T, owner, groups).T.reshape(*values.shape[:-1], groups)


def _precision(a: Array, d: Array) -> tuple[Array, Array]:
    """log|I + AD| (G,) and K = (D⁻¹ + A)⁻¹ (q, q, G), smooth in d (q, q, 1) where D is singular too.

    With A = LLᵀ:  K = D − DL(I + LᵀDL)⁻¹LᵀD.
    """
    if a.shape[0] == 1:
        m = 1.0 + a * d
        return jnp.log(m[0, 0]), d / m
    factor = _block_cholesky(a)
    dl = matmul(d, factor)
    eye = jnp.eye(a.shape[0], dtype=a.dtype)[..., None]
    logdet, inverse = sweep(eye + matmul(transpose(factor), dl))
    return logdet, d - matmul(matmul(dl, inverse), transpose(dl))


def _block_cholesky(a: Array) -> Array:
    """Lower factors of positive semi-definite blocks (q, q, G); a dependent column gets zeros."""
    q = a.shape[0]
    least = [1e-12 * a[j, j] for j in range(q)]
    columns = []
    for j in range(q):
        good = a[j, j] > least[j]
        root = jnp.sqrt(jnp.where(good, a[j, j], 1.0))
        rows = [jnp.where(good, a[i, j] / root, 0.0) if i >= j else jnp.zeros_like(root) for i in range(q)]
        column = jnp.stack(rows)
        columns.append(column)
        a = a - column[:, None] * column[None, :]
    return jnp.stack(columns, axis=1)
