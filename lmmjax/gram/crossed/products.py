"""Crossed backend: one grouping factor is eliminated group by group, the others share a dense matrix.

Let 1 be the leading factor and 2 the columns of all other terms. H₁ = R + Z₁D₁Z₁ᵀ is block-diagonal; within
group g the columns of Z₁ have the orthonormal basis Q_g and Z_g = Q_gR_gᵀ. With c_g = Q_gᵀZ₂ (sparse),
C_g = Q_gᵀW, H_g = (I + R_gᵀD₁R_g)⁻¹ and J_g = R_gH_g,

    B = Z₂ᵀH₁⁻¹Z₂ = Z₂ᵀZ₂ + Σ c_gᵀ(H_g − I)c_g,    B_w = Z₂ᵀH₁⁻¹W likewise,    S₁ = WᵀH₁⁻¹W,
    M = I + Λ₂ᵀBΛ₂,    C = Λ₂M⁻¹Λ₂ᵀ,    v = CB_w,
    log|H| = log|H₁| + log|M|,    S = S₁ − B_wᵀv.

With T₁ = Z₁ᵀH⁻¹W = J_g(C_g − c_gv), T₂ = Z₂ᵀH⁻¹W = B_w − Bv and U_kl = Z_kᵀH⁻¹Z_l, the derivatives in
directions E, F of D_k, D_l are those of every backend,

    ∂ log|H| = tr(U_kkE),     ∂² log|H| = −tr(U_klFU_lkE),
    ∂S = −T_kᵀET_k,           ∂²S = T_kᵀEU_klFT_l + its transpose,

where, for F_g = J_gc_g and G_E = Σ F_gᵀEF_g = −∂B,

    U₁₁ = diag(J_gR_gᵀ) − FCFᵀ,    U₂₁ = (I − BC)Fᵀ,    U₂₂ = (I − BC)B,
    tr(FCFᵀE FCFᵀE′) = tr(CG_E CG_E′),    U₂₁EU₁₂ = (I − BC)G_E(I − CB).
"""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import UNROLL, Array, matmul, record, side_by_side, static, transpose
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection
from lmmjax.gram.crossed.incidence import Incidence
from lmmjax.gram.crossed.trailing import Below, Eliminated, Trailing
from lmmjax.gram.grouped.many_columns import congruences, pair_sums, places
from lmmjax.gram.grouped.products import GroupedProducts
from lmmjax.gram.leading import LeadingResponse

COSTLY = 300
"""From so many dense columns on an evaluation takes more than some milliseconds."""


@record
class CrossedProducts(CrossProducts):
    """Shared products of a design with crossed factors; N columns in the dense part.

    Attributes
    ----------
    leading : uncompressed products of the leading factor with X.
    base : (N, N) Z₂ᵀZ₂; base_x : (N, p) Z₂ᵀX.
    incidence : c.
    terms : positions of the leading terms in the design.
    mapped : see `Trailing`.
    """

    leading: GroupedProducts
    base: Array
    base_x: Array
    incidence: Incidence
    structure: Structure = static()
    terms: tuple[int, ...] = static()
    n_groups: tuple[int, ...] = static()
    mapped: bool = static(default=False)

    @property
    def sequential(self) -> bool:
        return True

    @property
    def together(self) -> bool:
        return self.base.shape[0] <= COSTLY

    @property
    def vector(self) -> int:
        return 3 * self.base.shape[0] ** 2

    @property
    def costly(self) -> bool:
        return self.base.shape[0] > COSTLY

    def cost(self) -> Cost:
        n, lead = self.base.shape[0], len(self._trailing.entries_before)
        q, heavy, _ = self.incidence.heavy.shape
        dense = n**3 * (4 / 3 + 2 * lead)
        sparse = (2 + lead) * (2.0 * self.incidence.pair_value.size + 2.0 * (q * n) ** 2 * heavy)
        roles = [f"in a dense matrix {n} × {n}"] * len(self.structure.terms)
        for k in self.terms:
            roles[k] = "group by group"
        return Cost(dense + sparse, 8.0 * n**2 * (6 + 2 * lead), tuple(roles))

    @property
    def _trailing(self) -> Trailing:
        return Trailing(self.structure, self.n_groups, self.terms, self.mapped)

    def _evaluate(self, d: Array, response: LeadingResponse) -> _Evaluation:
        _, h, j = self.leading._blocks(d[self._trailing.entries_before])
        c_w = response.leading.columns(self.leading)
        hc = matmul(h, c_w)
        (lost,) = self.incidence.sandwiches([h - jnp.eye(h.shape[0], dtype=h.dtype)[..., None]])
        b = self.base + lost
        b_w = jnp.concatenate([self.base_x, response.base_y[:, None]], axis=1)
        last = self._trailing.eliminate(d, b, b_w + self.incidence.to_columns(hc - c_w))
        first = self.leading.gram(d[self._trailing.entries_before], response.leading)
        gram = Gram.of(first.logdet + last.logdet, first.s - last.s)
        u = matmul(j, transpose(self.leading.r))
        x = matmul(matmul(j, self.incidence.quadratic(last.c)), transpose(j))
        return _Evaluation(gram, j, u, x, matmul(j, c_w - self.incidence.to_groups(last.v)), last)

    def gram(self, d: Array, response: LeadingResponse) -> Gram:
        return self._evaluate(d, response).gram

    def jet(self, d: Array, response: LeadingResponse) -> GramJet:
        e = self._evaluate(d, response)
        units = jnp.asarray(self.leading.units, d.dtype)
        # F_gᵀEF_g = c_gᵀ(JᵀEJ)c_g
        if len(units) > UNROLL:
            weights = [*congruences(e.j, places(self.leading.units))]
        else:
            weights = [matmul(transpose(e.j), matmul(unit[..., None], e.j)) for unit in units]
        g = self.incidence.sandwiches(weights)
        cg = side_by_side(e.last.c, g)
        logdet = self._logdet_derivatives(e, units, cg)

        m, w = len(units), e.t.shape[1]
        if m > UNROLL:
            beta = jnp.einsum("cab,bkg->ackg", units, e.t).reshape(e.t.shape[0], m * w, -1)
        else:
            beta = jnp.concatenate([matmul(unit[..., None], e.t) for unit in units], axis=1)
        # h_E = Fᵀβ_E, side by side
        h = self.incidence.to_columns(matmul(transpose(e.j), beta))
        s_first = -jnp.einsum("ajg,akg->jk", e.t, beta).reshape(w, m, w).transpose(1, 0, 2)
        # β_EᵀU₁₁β_F
        half = jnp.einsum("ajg,akg->jk", beta, matmul(e.u, beta)) - h.T @ (e.last.c @ h)
        half = half.reshape(m, w, m, w).transpose(0, 2, 1, 3)
        s = (s_first, half + jnp.swapaxes(half, -1, -2))
        below = Below(self._trailing.entries_before, logdet, s, g, cg, h.reshape(-1, m, w))
        return self._trailing.jet(e.gram, e.last, below)

    def _logdet_derivatives(self, e: _Evaluation, units: Array, cg: list[Array]) -> tuple[Array, Array]:
        """tr(U₁₁E) (m₁,) and −tr(U₁₁EU₁₁F) (m₁, m₁)."""
        if len(units) > UNROLL:
            at = places(self.leading.units)
            flat = jnp.stack(cg).reshape(len(units), -1)
            turned = jnp.stack([a.T for a in cg]).reshape(len(units), -1)
            own = pair_sums(e.u - e.x, e.u - e.x, at) - pair_sums(e.x, e.x, at)
            first = jnp.tensordot(units, jnp.sum(e.u - e.x, axis=-1), axes=((1, 2), (0, 1)))
            return first, -(own + flat @ turned.T)
        first = jnp.stack([jnp.sum((e.u - e.x) * unit[..., None]) for unit in units])
        eu = [matmul(unit[..., None], e.u) for unit in units]
        ex = [matmul(unit[..., None], e.x) for unit in units]

        def trace(a: int, b: int) -> Array:
            own = jnp.sum(eu[a] * transpose(eu[b])) - jnp.sum(ex[a] * transpose(eu[b]))
            return own - jnp.sum(eu[a] * transpose(ex[b])) + jnp.sum(cg[a] * cg[b].T)

        rows = [[trace(max(a, b), min(a, b)) for b in range(len(units))] for a in range(len(units))]
        return first, -jnp.stack([jnp.stack(row) for row in rows])

    def project(self, d: Array, response: LeadingResponse) -> tuple[Projection, ...]:
        e = self._evaluate(d, response)
        out, column = self._trailing.projections(e.last), 0
        for k in self.terms:
            block = slice(column, column + self.structure.terms[k].q)
            out[k] = Projection((e.u - e.x)[block, block], e.t[block, :-1], e.t[block, -1])
            column = block.stop
        return tuple(out[k] for k in range(len(out)))


@record
class _Evaluation:
    """The Gram at d; J_g (q, q, G), Z_gᵀH₁⁻¹Z_g, F_gCF_gᵀ (q, q, G) and T₁ (q, w, G); the dense part."""

    gram: Gram
    j: Array
    u: Array
    x: Array
    t: Array
    last: Eliminated
