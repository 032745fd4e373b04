"""The columns that share a dense matrix: block-diagonal products and the last elimination.

With B = Z₂ᵀH₁⁻¹Z₂ (N, N), H₁ without the terms of Z₂, and Λ₂ the factors of their covariances D₂,

    M = I + Λ₂ᵀBΛ₂,    log|H| = log|H₁| + log|M|,    C = Λ₂M⁻¹Λ₂ᵀ = (D₂⁻¹ + B)⁻¹,
    v = CB_w,    S = S₁ − B_wᵀv,    T₂ = Z₂ᵀH⁻¹W = B_w − Bv,
    U₂₂ = Z₂ᵀH⁻¹Z₂ = (I − BC)B = D₂⁻¹ − D₂⁻¹CD₂⁻¹,    I − BC = D₂⁻¹C,

the last forms where D₂ has an inverse.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import UNROLL, Array, inverse_by_products, matmul, psd_cholesky, record, side_by_side
from lmmjax.design import Structure
from lmmjax.gram.base import Gram, GramJet, Projection
from lmmjax.gram.crossed.spd import inverse_from_factor
from lmmjax.gram.grouped.many_columns import MANY

NEAR_SINGULAR = 1e-4
"""Below this pivot of D₂ its inverse is not used: I − M⁻¹ would have lost too many digits."""


@dataclasses.dataclass(frozen=True)
class Trailing:
    """Where the dense columns of some terms lie.

    Attributes
    ----------
    structure : of all terms; n_groups : of every term.
    before : positions of the terms that were eliminated before; the others have dense columns.
    mapped : whether the arithmetic is for many responses at once: without LAPACK and without branches.
    """

    structure: Structure
    n_groups: tuple[int, ...]
    before: tuple[int, ...]
    mapped: bool = False

    @property
    def terms(self) -> tuple[int, ...]:
        """Positions of the terms with dense columns."""
        return tuple(k for k in range(len(self.n_groups)) if k not in self.before)

    @property
    def entries_before(self) -> np.ndarray:
        """Positions in d of the entries of the terms that were eliminated before."""
        slices = self.structure.slices()
        return np.concatenate([np.arange(slices[k].start, slices[k].stop) for k in self.before])

    @functools.cached_property
    def places(self) -> list[tuple[int, slice, slice]]:
        """(term, its entries in d, its columns among the N) of every one."""
        slices, out, column = self.structure.slices(), [], 0
        for k in self.terms:
            width = self.n_groups[k] * self.structure.terms[k].q
            out.append((k, slices[k], slice(column, column + width)))
            column += width
        return out

    @property
    def width(self) -> int:
        """N."""
        return self.places[-1][2].stop

    def blocks(self, k: int, a: Array) -> Array:
        """The rows (N_k, w) of term k as (G, q, w)."""
        return a.reshape(self.n_groups[k], self.structure.terms[k].q, -1)

    def scaled(self, k: int, matrix: Array, rows: Array) -> Array:
        """blockdiag(matrix) rows, for the rows (N_k, w) of term k and a matrix (q, q)."""
        if matrix.shape[0] == 1:
            return matrix[0, 0] * rows
        moved = matmul(matrix[..., None, None], jnp.swapaxes(self.blocks(k, rows), 0, 1)[:, None])
        return jnp.swapaxes(moved[:, 0], 0, 1).reshape(rows.shape)

    def scale_rows(self, matrices: dict[int, Array], a: Array) -> Array:
        """blockdiag(matrices) a, for a (N, w)."""
        return jnp.concatenate([self.scaled(k, matrices[k], a[columns]) for k, _, columns in self.places])

    def sandwich(self, matrices: dict[int, Array], a: Array) -> Array:
        """t a tᵀ for t = blockdiag(matrices) and a symmetric (N, N)."""
        if all(m.shape[0] == 1 for m in matrices.values()):
            scales = jnp.concatenate(
                [jnp.broadcast_to(matrices[k][0, 0], (c.stop - c.start,)) for k, _, c in self.places]
            )
            return scales[:, None] * a * scales[None, :]
        return self.scale_rows(matrices, self.scale_rows(matrices, a).T).T

    def summed(self, left: Array, right: Array) -> dict[int, Array]:
        """Per term the sum of the diagonal blocks (q, q) of left · rightᵀ, both (N, N)."""
        out = {}
        for k, _, columns in self.places:
            a, b = self.blocks(k, left[columns]), self.blocks(k, right[columns])
            q = a.shape[1]
            if q >= MANY:
                out[k] = jnp.einsum("gik,gjk->ij", a, b)
                continue
            out[k] = jnp.stack([jnp.stack([jnp.sum(a[:, i] * b[:, j]) for j in range(q)]) for i in range(q)])
        return out

    def diagonal(self, k: int, a: Array) -> Array:
        """Blocks (q, q, G) of term k along the diagonal of a (N, N)."""
        columns = next(columns for term, _, columns in self.places if term == k)
        own, q = a[columns, columns], self.structure.terms[k].q
        if q >= MANY:
            groups = self.n_groups[k]
            return jnp.diagonal(own.reshape(groups, q, groups, q), axis1=0, axis2=2)
        return jnp.stack([jnp.stack([jnp.diagonal(own[i::q, j::q]) for j in range(q)]) for i in range(q)])

    def eliminate(self, d: Array, b: Array, b_w: Array) -> Eliminated:
        """The last step, from B (N, N) and B_w = Z₂ᵀH₁⁻¹W (N, w)."""
        matrices = self.structure.matrices(d)
        factors = {k: psd_cholesky(matrices[k], 1e-15) for k in self.terms}
        m = jnp.eye(b.shape[0], dtype=b.dtype) + self.sandwich({k: f.T for k, f in factors.items()}, b)
        if self.mapped:
            logdet, inverse = inverse_by_products(m)
        else:
            factor = jax.lax.linalg.cholesky(m, symmetrize_input=False)
            logdet, inverse = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor))), inverse_from_factor(factor)
        c = self.sandwich(factors, inverse)
        v = c @ b_w
        return Eliminated(logdet, b_w.T @ v, factors, b, c, v, b_w - b @ v)

    def inside(self, e: Eliminated, g: list[Array], cg: list[Array]) -> tuple[Array, list[dict[int, Array]]]:
        """U₂₂ (N, N), and for each symmetric G (N, N) of g, CG in cg, `summed` of (I − BC)G(I − CB)."""

        def product(a: Array, b: Array) -> Array:
            return a @ b if len(a) >= MANY else matmul(a, b)

        def safe(_):
            inverses = {k: _lower_inverse(f) for k, f in e.factors.items()}
            precisions = {k: product(f.T, f) for k, f in inverses.items()}
            u = -self.sandwich(precisions, e.c)
            for k, _, columns in self.places:
                u = _add_diagonal_blocks(u, precisions[k], columns)
            sums = [self.summed(one, e.c) for one in cg]
            return u, [
                {k: product(product(precisions[k], s), precisions[k]) for k, s in one.items()} for one in sums
            ]

        def general(_):
            left = jnp.eye(e.b.shape[0], dtype=e.c.dtype) - e.b @ e.c
            both = side_by_side(left, [e.b, *g])
            return both[0], [self.summed(one, left) for one in both[1:]]

        if self.mapped:
            return general(None)
        least = jnp.min(jnp.stack([jnp.min(jnp.diagonal(f)) ** 2 for f in e.factors.values()]))
        return jax.lax.cond(least > NEAR_SINGULAR, safe, general, None)

    def jet(self, value: Gram, e: Eliminated, below: Below) -> GramJet:
        """All derivatives, from those in the entries of the terms that were eliminated before.

        With β_F = FT₂ and h = −(∂B_w − ∂Bv):  ∂_F S = −T₂ᵀβ_F,  ∂_FF′ S = β_FᵀU₂₂β_F′ + its transpose,
        ∂_EF S = ((I − BC)h_E)ᵀβ_F + its transpose;  ∂_EF log|H| = −tr((I − BC)G_E(I − CB)F), G = −∂B.
        """
        dtype, w = e.c.dtype, e.t.shape[1]
        u, crossed = self.inside(e, below.g, below.cg)
        units = {k: jnp.asarray(self.structure.terms[k].units, dtype) for k in self.terms}
        first = [
            jnp.sum(units[k] * jnp.sum(self.diagonal(k, u), axis=-1)[None], axis=(1, 2)) for k in self.terms
        ]
        mixed = [
            jnp.stack([jnp.sum(units[k] * one[k][None], axis=(1, 2)) for one in crossed]) for k in self.terms
        ]
        mixed = -jnp.concatenate(mixed, axis=1)
        logdet = (
            jnp.concatenate([below.logdet[0], *first]),
            _bordered(below.logdet[1], mixed, -self.traces(u)),
        )

        beta = []
        for k, _, columns in self.places:
            around = ((columns.start, e.t.shape[0] - columns.stop), (0, 0))
            if len(units[k]) > UNROLL:
                moved = jnp.einsum("cab,gbw->gacw", units[k], self.blocks(k, e.t[columns]))
                wide = jnp.pad(moved.reshape(columns.stop - columns.start, -1), around)
                beta += jnp.split(wide, len(units[k]), axis=1)
                continue
            beta += [jnp.pad(self.scaled(k, unit, e.t[columns]), around) for unit in units[k]]
        m1, m2, flat = below.h.shape[1], len(beta), jnp.concatenate(beta, axis=1)
        h = below.h.reshape(flat.shape[0], -1)
        s_first = -(e.t.T @ flat).reshape(w, m2, w).transpose(1, 0, 2)
        own = (flat.T @ (u @ flat)).reshape(m2, w, m2, w).transpose(0, 2, 1, 3)
        across = ((h - e.b @ (e.c @ h)).T @ flat).reshape(m1, w, m2, w).transpose(0, 2, 1, 3)
        own, across = own + jnp.swapaxes(own, -1, -2), across + jnp.swapaxes(across, -1, -2)
        s = jnp.concatenate([below.s[0], s_first]), _bordered(below.s[1], across, own)
        # to the order of the design
        entries = [np.arange(place.start, place.stop) for _, place, _ in self.places]
        order = np.argsort(np.concatenate([below.entries, *entries]))
        return GramJet(
            value,
            Gram.of(logdet[0][order], s[0][order]),
            Gram.of(logdet[1][order][:, order], s[1][order][:, order]),
        )

    def traces(self, u: Array) -> Array:
        """tr(UEUF) (m₂, m₂) for the units E, F of all dense terms; u (N, N)."""
        rows = []
        for k, _, columns in self.places:
            row = []
            for other, _, over in self.places:
                one, two = self.structure.terms[k], self.structure.terms[other]
                block = u[columns, over]
                if one.q * two.q > UNROLL:
                    block = block.reshape(self.n_groups[k], one.q, self.n_groups[other], two.q)
                    flat = jnp.transpose(block, (1, 3, 0, 2)).reshape(one.q * two.q, -1)
                    product = (flat @ flat.T).reshape(one.q, two.q, one.q, two.q)
                    # Σ E_ij F_kl (i, k, j, l)
                    left = jnp.tensordot(jnp.asarray(one.units, u.dtype), product, axes=((1, 2), (0, 2)))
                    row.append(jnp.tensordot(left, jnp.asarray(two.units, u.dtype), axes=((1, 2), (1, 2))))
                    continue
                parts = [block[i :: one.q, j :: two.q] for i in range(one.q) for j in range(two.q)]
                product = jnp.stack([jnp.stack([jnp.sum(a * b) for b in parts]) for a in parts])
                product = product.reshape(one.q, two.q, one.q, two.q)
                # Σ E_ij F_kl (i, k, j, l)
                units = np.einsum("aij,bkl->abikjl", one.units, two.units)
                row.append(jnp.sum(jnp.asarray(units, u.dtype) * product[None, None], axis=(2, 3, 4, 5)))
            rows.append(jnp.concatenate(row, axis=1))
        return jnp.concatenate(rows)

    def projections(self, e: Eliminated) -> dict[int, Projection]:
        """What the conditional modes of every dense term need."""
        u, _ = self.inside(e, [], [])
        out = {}
        for k, _, columns in self.places:
            t = self.blocks(k, e.t[columns])
            out[k] = Projection(self.diagonal(k, u), t[..., :-1].transpose(1, 2, 0), t[..., -1].T)
        return out


@record
class Eliminated:
    """Numbers at d: log|M|, what S loses (w, w), factors of D₂, B, C, v = CB_w and T₂ = B_w − Bv (N, w)."""

    logdet: Array
    s: Array
    factors: dict[int, Array]
    b: Array
    c: Array
    v: Array
    t: Array


@record
class Below:
    """Derivatives in the m₁ entries of the terms eliminated before, at positions `entries` of d.

    Attributes
    ----------
    entries : (m₁,).
    logdet : first (m₁,) and second (m₁, m₁) of log|H|.
    s : first (m₁, w, w) and second (m₁, m₁, w, w) of S.
    g, cg : m₁ matrices G = −∂B (N, N), and CG.
    h : (N, m₁, w) −(∂B_w − ∂Bv).
    """

    entries: Array
    logdet: tuple[Array, Array]
    s: tuple[Array, Array]
    g: list[Array]
    cg: list[Array]
    h: Array


def _bordered(one: Array, across: Array, two: Array) -> Array:
    """[[one, across], [acrossᵀ, two]] in the first two axes."""
    top = jnp.concatenate([one, across], axis=1)
    return jnp.concatenate([top, jnp.concatenate([jnp.swapaxes(across, 0, 1), two], axis=1)])


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


def _add_diagonal_blocks(a: Array, block: Array, columns: slice) -> Array:
    """a (N, N) with a block (q, q) added at every level of a term."""
    q = block.shape[0]
    if q >= MANY:
        first = np.arange(columns.start, columns.stop, q)[:, None, None]
        return a.at[first + np.arange(q)[:, None], first + np.arange(q)[None]].add(block[None])
    for i in range(q):
        for j in range(q):
            a = a.at[
                np.arange(columns.start + i, columns.stop, q), np.arange(columns.start + j, columns.stop, q)
            ].add(block[i, j])
    return a
