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

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax._linalg import matmul, psd_cholesky, transpose
from lmmjax._types import Array, record, static
from lmmjax.covariance import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts
from lmmjax.gram.grouped import GroupedProducts, GroupedResponse
from lmmjax.gram.spd import inverse_from_factor

NEAR_SINGULAR = 1e-4
"""Below this pivot of D₂ its inverse is not used: I − M⁻¹ would have lost too many digits."""

COSTLY = 300
"""From so many dense columns on an evaluation takes more than some milliseconds."""


@record
class CrossedProducts(CrossProducts):
    """Shared products of a design with crossed factors; N columns in the dense part.

    Attributes
    ----------
    leading : uncompressed products of the leading factor with X.
    base : (N, N) Z₂ᵀZ₂; base_x : (N, p) Z₂ᵀX.
    entry_group, entry_column : (E,) where c is not zero; entry_value : (q, E).
    pair_group, pair_target : (P,) for every two entries of a group its number and a position in the flat
        lower triangle of B; pair_value : (q(q+1)/2, P) their products.
    heavy_group : (L,) groups with many entries, which have no pairs; heavy : (q, L, N) their c.
    terms : positions of the leading terms in the design.
    """

    leading: GroupedProducts
    base: Array
    base_x: Array
    entry_group: Array
    entry_column: Array
    entry_value: Array
    pair_group: Array
    pair_target: Array
    pair_value: Array
    heavy_group: Array
    heavy: Array
    structure: Structure = static()
    terms: tuple[int, ...] = static()
    n_groups: tuple[int, ...] = static()

    @property
    def sequential(self) -> bool:
        return True

    @property
    def costly(self) -> bool:
        return self.base.shape[0] > COSTLY

    def cost(self) -> Cost:
        n, lead = self.base.shape[0], len(self._leading_entries)
        q, heavy = self.heavy.shape[0], self.heavy.shape[1]
        dense = n**3 * (4 / 3 + 2 * lead)
        sparse = (2 + lead) * (2.0 * self.pair_value.size + 2.0 * (q * n) ** 2 * heavy)
        roles = [f"in a dense matrix {n} × {n}"] * len(self.structure.terms)
        for k in self.terms:
            roles[k] = "group by group"
        return Cost(dense + sparse, 8.0 * n**2 * (6 + 2 * lead), tuple(roles))

    # --- where things lie ----------------------------------------------------------------------------

    @property
    def _leading_entries(self) -> np.ndarray:
        """Positions of the leading terms' entries in d."""
        slices = self.structure.slices()
        return np.concatenate([np.arange(slices[k].start, slices[k].stop) for k in self.terms])

    @property
    def _trailing(self) -> list[tuple[int, slice, slice]]:
        """(term, its entries in d, its columns among the N) of every other term."""
        slices, out, column = self.structure.slices(), [], 0
        for k, term in enumerate(self.structure.terms):
            if k not in self.terms:
                width = self.n_groups[k] * term.q
                out.append((k, slices[k], slice(column, column + width)))
                column += width
        return out

    # --- sparse products -----------------------------------------------------------------------------

    def _pair_sum(self, weights: Array) -> Array:
        """Σ c_gᵀ w_g c_g (N, N) for symmetric weights (q, q, G)."""
        n, q = self.base.shape[0], weights.shape[0]
        per_pair = sum(
            weights[a, b][self.pair_group] * self.pair_value[k] for k, (a, b) in enumerate(_upper(q))
        )
        flat = jnp.zeros(n * n, self.base.dtype).at[self.pair_target].add(per_pair)
        lower = flat.reshape(n, n)
        total = lower + jnp.tril(lower, -1).T
        if not self.heavy.shape[1]:
            return total
        heavy = weights[:, :, self.heavy_group]
        return total + sum(
            self.heavy[a].T @ (heavy[a, b][:, None] * self.heavy[b]) for a in range(q) for b in range(q)
        )

    def _quadratic(self, c: Array) -> Array:
        """c_g C c_gᵀ (q, q, G) for a symmetric C (N, N)."""
        q, groups = self.entry_value.shape[0], self.leading.r.shape[-1]
        # pairs of different entries count twice
        twice = jnp.where(self.pair_target % (c.shape[0] + 1) == 0, 1.0, 2.0).astype(c.dtype)
        doubled = twice * c.reshape(-1)[self.pair_target]
        out = jnp.zeros((q, q, groups), c.dtype)
        for k, (a, b) in enumerate(_upper(q)):
            share = 1.0 if a == b else 0.5
            block = jax.ops.segment_sum(
                share * doubled * self.pair_value[k], self.pair_group, groups, indices_are_sorted=True
            )
            if self.heavy.shape[1]:
                moved = jnp.sum((self.heavy[a] @ c) * self.heavy[b], axis=1)
                block = block.at[self.heavy_group].add(moved)
            out = out.at[a, b].set(block)
            if a != b:
                out = out.at[b, a].set(block)
        return out

    def _to_columns(self, w: Array) -> Array:
        """Σ c_gᵀw_g (N, k) for w (q, k, G)."""
        per_entry = sum(self.entry_value[a][:, None] * w[a].T[self.entry_group] for a in range(w.shape[0]))
        return jax.ops.segment_sum(per_entry, self.entry_column, self.base.shape[0])

    def _to_groups(self, v: Array) -> Array:
        """c_gv (q, k, G) for v (N, k)."""
        rows = v[self.entry_column]
        groups = self.leading.r.shape[-1]
        return jnp.stack(
            [
                jax.ops.segment_sum(
                    value[:, None] * rows, self.entry_group, groups, indices_are_sorted=True
                ).T
                for value in self.entry_value
            ]
        )

    # --- block-diagonal products ---------------------------------------------------------------------

    def _scale_rows(self, matrices: dict[int, Array], a: Array) -> Array:
        """blockdiag(matrices) a, for a (N, k)."""
        pieces = []
        for k, _, columns in self._trailing:
            matrix, block = matrices[k], a[columns]
            if matrix.shape[0] == 1:
                pieces.append(matrix[0, 0] * block)
            else:
                stacked = block.reshape(self.n_groups[k], matrix.shape[0], -1)
                pieces.append(jnp.einsum("ij,gjk->gik", matrix, stacked).reshape(block.shape))
        return jnp.concatenate(pieces)

    def _sandwich(self, matrices: dict[int, Array], a: Array) -> Array:
        """t a tᵀ for t = blockdiag(matrices) and a symmetric (N, N)."""
        if all(m.shape[0] == 1 for m in matrices.values()):
            sizes = [columns.stop - columns.start for _, _, columns in self._trailing]
            scales = jnp.concatenate(
                [
                    jnp.broadcast_to(matrices[k][0, 0], (size,))
                    for (k, _, _), size in zip(self._trailing, sizes, strict=True)
                ]
            )
            return scales[:, None] * a * scales[None, :]
        return self._scale_rows(matrices, self._scale_rows(matrices, a).T).T

    def _block_sums(self, k: int, columns: slice, left: Array, right: Array) -> Array:
        """The diagonal blocks (q, q, G) of left · rightᵀ, both (N, N), for one trailing term."""
        q = self.structure.terms[k].q
        a = left[columns].reshape(self.n_groups[k], q, -1)
        b = right[columns].reshape(self.n_groups[k], q, -1)
        return jnp.stack(
            [jnp.stack([jnp.sum(a[:, i] * b[:, j], axis=1) for j in range(q)]) for i in range(q)]
        )

    # --- evaluation ----------------------------------------------------------------------------------

    def _evaluate(self, d: Array, response: CrossedResponse) -> _Evaluation:
        _, h, j = self.leading._blocks(d[self._leading_entries])
        matrices = self.structure.matrices(d)
        factors = {k: psd_cholesky(matrices[k], 1e-15) for k, _, _ in self._trailing}
        c_w = jnp.concatenate([self.leading.between_xx, response.leading.between_xy[:, None]], axis=1)
        hc = matmul(h, c_w)
        b = self.base + self._pair_sum(h - jnp.eye(h.shape[0], dtype=h.dtype)[..., None])
        b_w = jnp.concatenate([self.base_x, response.base_y[:, None]], axis=1) + self._to_columns(hc - c_w)
        m = jnp.eye(b.shape[0], dtype=b.dtype) + self._sandwich({k: f.T for k, f in factors.items()}, b)
        factor = jax.lax.linalg.cholesky(m, symmetrize_input=False)
        c = self._sandwich(factors, inverse_from_factor(factor))
        v = c @ b_w
        first = self.leading.gram(d[self._leading_entries], response.leading)
        s = b_w.T @ v
        p = self.base_x.shape[1]
        gram = Gram(
            first.logdet + 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor))),
            first.xx - s[:p, :p],
            first.xy - s[:p, p],
            first.yy - s[p, p],
        )
        t_1 = matmul(j, c_w - self._to_groups(v))
        return _Evaluation(gram, h, j, factors, b, c, t_1, b_w - b @ v)

    def gram(self, d: Array, response: CrossedResponse) -> Gram:
        return self._evaluate(d, response).gram

    def jet(self, d: Array, response: CrossedResponse) -> GramJet:
        e = self._evaluate(d, response)
        c, m, p = e.c, self.structure.n_params, self.base_x.shape[1]
        lead, trail = self._leading_entries, self._trailing
        units = jnp.asarray(self.leading.units, d.dtype)
        u, x = self._leading_blocks(e)
        # F_gᵀEF_g = c_gᵀ(JᵀEJ)c_g
        g = [self._pair_sum(matmul(transpose(e.j), matmul(unit[..., None], e.j))) for unit in units]
        y = [c @ one for one in g]
        u_22, crossed = self._trailing_blocks(e, g, y)

        first = [jnp.zeros((), d.dtype)] * m
        second = [[jnp.zeros((), d.dtype)] * m for _ in range(m)]
        for a, i in enumerate(lead):
            first[i] = jnp.sum((u - x) * units[a][..., None])
            for b, k in enumerate(lead[: a + 1]):
                eu = [matmul(units[s][..., None], u) for s in (a, b)]
                ex = [matmul(units[s][..., None], x) for s in (a, b)]
                traces = jnp.sum(eu[0] * transpose(eu[1])) - jnp.sum(ex[0] * transpose(eu[1]))
                traces = traces - jnp.sum(eu[0] * transpose(ex[1])) + jnp.sum(y[a] * y[b].T)
                second[i][k] = second[k][i] = -traces
        blocks = {k: jnp.asarray(self.structure.terms[k].units, d.dtype) for k, _, _ in trail}
        for k, entries, columns in trail:
            diagonal = _diagonal_blocks(u_22[columns, columns], self.n_groups[k])
            for a, i in enumerate(range(entries.start, entries.stop)):
                first[i] = jnp.sum(diagonal * blocks[k][a][..., None])
                for b, j in enumerate(lead):
                    second[i][j] = second[j][i] = -jnp.sum(crossed[b][k] * blocks[k][a])
            for other, others, over in trail:
                product = _block_products(u_22[columns, over], self.n_groups[k], self.n_groups[other])
                pairs = jnp.einsum("aij,bkl,ikjl->ab", blocks[k], blocks[other], product)
                for a, i in enumerate(range(entries.start, entries.stop)):
                    for b, j in enumerate(range(others.start, others.stop)):
                        second[i][j] = -pairs[a, b]

        s_first, s_second = self._quadratic_derivatives(e, u, u_22)
        logdet = (jnp.stack(first), jnp.stack([jnp.stack(row) for row in second]))
        derivatives = [
            Gram(ld, s[..., :p, :p], s[..., :p, p], s[..., p, p])
            for ld, s in zip(logdet, (s_first, s_second), strict=True)
        ]
        return GramJet(e.gram, *derivatives)

    def _leading_blocks(self, e: _Evaluation) -> tuple[Array, Array]:
        """Z_gᵀH₁⁻¹Z_g and F_gCF_gᵀ, both (q, q, G)."""
        return matmul(e.j, transpose(self.leading.r)), matmul(
            matmul(e.j, self._quadratic(e.c)), transpose(e.j)
        )

    def _trailing_blocks(
        self, e: _Evaluation, g: list[Array], y: list[Array]
    ) -> tuple[Array, list[dict[int, Array]]]:
        """U₂₂ (N, N), and for every G_E the sums of the diagonal blocks of U₂₁EU₁₂, a (q, q) a term."""
        b, c = e.b, e.c

        def safe(_):
            inverses = {k: _lower_inverse(f) for k, f in e.factors.items()}
            precisions = {k: f.T @ f for k, f in inverses.items()}
            # U₂₂ = D⁻¹ − D⁻¹CD⁻¹, (I − BC) = D⁻¹C
            u = -self._sandwich(precisions, c)
            pieces = []
            for k, _, columns in self._trailing:
                u = _add_diagonal_blocks(u, precisions[k], columns)
                sums = [jnp.sum(self._block_sums(k, columns, one, c), axis=-1) for one in y]
                pieces.append([precisions[k] @ s @ precisions[k] for s in sums])
            return u, pieces

        def general(_):
            left = jnp.eye(b.shape[0], dtype=c.dtype) - b @ c
            moved = [left @ one for one in g]
            pieces = [
                [jnp.sum(self._block_sums(k, columns, one, left), axis=-1) for one in moved]
                for k, _, columns in self._trailing
            ]
            return left @ b, pieces

        least = jnp.min(jnp.stack([jnp.min(jnp.diagonal(f)) ** 2 for f in e.factors.values()]))
        u_22, pieces = jax.lax.cond(least > NEAR_SINGULAR, safe, general, None)
        terms = [k for k, _, _ in self._trailing]
        return u_22, [{k: piece[a] for k, piece in zip(terms, pieces, strict=True)} for a in range(len(g))]

    def _quadratic_derivatives(self, e: _Evaluation, u: Array, u_22: Array) -> tuple[Array, Array]:
        """∂S (m, p+1, p+1) and ∂²S (m, m, p+1, p+1), from β_E = ET_k and β_EᵀU_klβ_F."""
        m, w = self.structure.n_params, e.t_1.shape[1]
        lead = list(self._leading_entries)
        units = jnp.asarray(self.leading.units, e.t_1.dtype)
        inside = [matmul(unit[..., None], e.t_1) for unit in units]
        # h_E = Fᵀβ_E, side by side
        h = self._to_columns(jnp.concatenate([matmul(transpose(e.j), b) for b in inside], axis=1))
        beta = jnp.zeros((e.c.shape[0], m * w), h.dtype)
        first: list[Array] = [jnp.zeros((w, w), h.dtype)] * m
        for a, i in enumerate(lead):
            first[i] = -jnp.einsum("ajg,akg->jk", e.t_1, inside[a])
        for k, entries, columns in self._trailing:
            t = e.t_2[columns].reshape(self.n_groups[k], -1, w)
            for a, i in enumerate(range(entries.start, entries.stop)):
                unit = jnp.asarray(self.structure.terms[k].units[a], t.dtype)
                moved = jnp.einsum("ij,gjw->giw", unit, t)
                first[i] = -jnp.einsum("giv,giw->vw", t, moved)
                beta = beta.at[columns, i * w : (i + 1) * w].set(moved.reshape(-1, w))
        # leading columns of `beta` are zero: all trailing pairs at once; then h takes their place
        both = beta.T @ (u_22 @ beta)
        ch = e.c @ h
        out = h - e.b @ ch
        place = np.concatenate([np.arange(i * w, (i + 1) * w) for i in lead])
        both = both.at[place].add(out.T @ beta).at[:, place].add(beta.T @ out)
        own = jnp.concatenate(inside, axis=1)
        uown = matmul(u, own)
        corner = jnp.einsum("ajg,akg->jk", own, uown) - h.T @ ch
        both = both.at[place[:, None], place[None, :]].add(corner)
        both = both.reshape(m, w, m, w).transpose(0, 2, 1, 3)
        return jnp.stack(first), both + jnp.swapaxes(both, -1, -2)

    def project(self, d: Array, response: CrossedResponse) -> tuple[Projection, ...]:
        e = self._evaluate(d, response)
        p = self.base_x.shape[1]
        u, x = self._leading_blocks(e)
        u_22, _ = self._trailing_blocks(e, [], [])
        out: list[Projection | None] = [None] * len(self.structure.terms)
        column = 0
        for k in self.terms:
            block = slice(column, column + self.structure.terms[k].q)
            own = (u - x)[block, block]
            out[k] = Projection(own, e.t_1[block, :p], e.t_1[block, p])
            column = block.stop
        for k, _, columns in self._trailing:
            t = e.t_2[columns].reshape(self.n_groups[k], -1, p + 1)
            own = _diagonal_blocks(u_22[columns, columns], self.n_groups[k])
            out[k] = Projection(own, t[..., :p].transpose(1, 2, 0), t[..., p].T)
        return tuple(one for one in out if one is not None)


@record
class CrossedResponse(ResponseProducts):
    """Products of a response: those with the leading factor, and base_y (N,) Z₂ᵀy."""

    leading: GroupedResponse
    base_y: Array

    @property
    def within(self) -> Array:
        return self.leading.within_yy


@record
class _Evaluation:
    """The Gram at d, and what its derivatives take from there; see the module."""

    gram: Gram
    h: Array
    j: Array
    factors: dict[int, Array]
    b: Array
    c: Array
    t_1: Array
    t_2: Array


def _upper(q: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(q) for b in range(a, q)]


def _lower_inverse(factor: Array) -> Array:
    """Inverse of a small lower triangular matrix; pivots of zero are taken as 1."""
    q = factor.shape[0]
    safe = [jnp.where(factor[j, j] > 0, factor[j, j], 1.0) for j in range(q)]
    rows: list[Array] = []
    for i in range(q):
        row = jnp.zeros(q, factor.dtype).at[i].set(1.0)
        for k in range(i):
            row = row - factor[i, k] * rows[k]
        rows.append(row / safe[i])
    return jnp.stack(rows)


def _diagonal_blocks(a: Array, groups: int) -> Array:
    """Blocks (q, q, G) along the diagonal of a (Gq, Gq)."""
    q = a.shape[0] // groups
    return jnp.stack([jnp.stack([jnp.diagonal(a[i::q, j::q]) for j in range(q)]) for i in range(q)])


def _add_diagonal_blocks(a: Array, block: Array, columns: slice) -> Array:
    """a (N, N) with a block (q, q) added at every level of a term."""
    q = block.shape[0]
    for i in range(q):
        for j in range(q):
            a = a.at[
                np.arange(columns.start + i, columns.stop, q), np.arange(columns.start + j, columns.stop, q)
            ].add(block[i, j])
    return a


def _block_products(u: Array, groups: int, others: int) -> Array:
    """Σ_gh U[gi, hk] U[gj, hl] as (q, q′, q, q′), for u (Gq, G′q′)."""
    q, r = u.shape[0] // groups, u.shape[1] // others
    parts = [u[i::q, k::r] for i in range(q) for k in range(r)]
    product = [[jnp.sum(one * two) for two in parts] for one in parts]
    return jnp.stack([jnp.stack(row) for row in product]).reshape(q, r, q, r)
