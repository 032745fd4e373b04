"""Layered backend: nested factors are eliminated into each other, the others share a dense matrix.

The nested backend sees the N columns Z₂ of the other terms as fixed effects, W′ = [Z₂ W]: its Gram
S′ = W′ᵀH₁⁻¹W′ holds B = Z₂ᵀH₁⁻¹Z₂, B_w and S₁, from which `trailing` goes on. With T = [−v; I], so that
S = TᵀS′T − vᵀD₂⁻¹v, and v = CB_w, derivatives in the entries of the nested terms are

    ∂ log|H| = ∂ log|H₁| + tr(C∂B),    ∂² log|H| = ∂² log|H₁| + tr(C∂²B) − tr(C∂B C∂′B),
    ∂S = Tᵀ(∂S′)T,    ∂²S = Tᵀ(∂²S′)T − (hᵀCh′ + its transpose),    −h the first N rows of (∂S′)T.

For the conditional modes, with F_k = Z_kᵀH₁⁻¹Z₂,  T_k = Z_kᵀH₁⁻¹W − F_kv  and  U_k = Z_kᵀH₁⁻¹Z_k − F_kCF_kᵀ.
"""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, record, side_by_side, static
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection
from lmmjax.gram.crossed.trailing import Below, Eliminated, Trailing
from lmmjax.gram.leading import LeadingResponse
from lmmjax.gram.nested.products import NestedProducts


@record
class LayeredProducts(CrossProducts):
    """Shared products of a design with a nested chain of factors, crossed with others.

    Attributes
    ----------
    nested : products of the chain with [Z₂ X].
    terms : positions of the terms of the chain in the design.
    """

    nested: NestedProducts
    structure: Structure = static()
    terms: tuple[int, ...] = static()
    n_groups: tuple[int, ...] = static()

    @property
    def sequential(self) -> bool:
        return True

    @property
    def costly(self) -> bool:
        return True

    def cost(self) -> Cost:
        below, n = self.nested.cost(), self._trailing.width
        m = len(self._trailing.entries_before)
        roles = [f"in a dense matrix {n} × {n}"] * len(self.structure.terms)
        for k, role in zip(self.terms, below.roles, strict=True):
            roles[k] = role
        dense = n**3 * (4 / 3 + 2 * m)
        return Cost(below.operations + dense, below.memory + 8.0 * n**2 * (6 + m + m**2), tuple(roles))

    @property
    def _trailing(self) -> Trailing:
        return Trailing(self.structure, self.n_groups, self.terms)

    def _eliminate(self, d: Array, below: Gram) -> tuple[Gram, Eliminated]:
        s, n = below.s, self._trailing.width
        last = self._trailing.eliminate(d, s[:n, :n], s[:n, n:])
        return Gram.of(below.logdet + last.logdet, s[n:, n:] - last.s), last

    def gram(self, d: Array, response: LeadingResponse) -> Gram:
        return self._eliminate(d, self.nested.gram(d[self._trailing.entries_before], response))[0]

    def jet(self, d: Array, response: LeadingResponse) -> GramJet:
        below = self.nested.jet(d[self._trailing.entries_before], response)
        value, last = self._eliminate(d, below.value)
        n, w = last.t.shape
        turn = jnp.concatenate([-last.v, jnp.eye(w, dtype=d.dtype)])
        first, second = below.first.s, below.second.s
        moved = first @ turn
        h = -moved[:, :n]
        g = [-one for one in first[:, :n, :n]]
        cg = side_by_side(last.c, g)
        traces = jnp.stack([jnp.stack([jnp.sum(a * b.T) for b in cg]) for a in cg])
        logdet = (
            below.first.logdet + jnp.sum(first[:, :n, :n] * last.c[None], axis=(1, 2)),
            below.second.logdet + jnp.sum(second[..., :n, :n] * last.c[None, None], axis=(2, 3)) - traces,
        )
        half = jnp.einsum("avj,bvk->abjk", h, last.c @ h)
        s_second = turn.T @ second @ turn - half - jnp.swapaxes(half, -1, -2)
        s = (turn.T @ moved, s_second)
        return self._trailing.jet(
            value, last, Below(self._trailing.entries_before, logdet, s, g, cg, jnp.moveaxis(h, 0, 1))
        )

    def project(self, d: Array, response: LeadingResponse) -> tuple[Projection, ...]:
        _, last = self._eliminate(d, self.nested.gram(d[self._trailing.entries_before], response))
        out, n = self._trailing.projections(last), self._trailing.width
        for k, one in zip(
            self.terms, self.nested.project(d[self._trailing.entries_before], response), strict=True
        ):
            f = one.tx[:, :n]
            t = jnp.concatenate([one.tx[:, n:], one.ty[:, None]], axis=1) - jnp.einsum(
                "ang,nw->awg", f, last.v
            )
            u = one.u - jnp.einsum("ang,bng->abg", f, jnp.einsum("nm,bmg->bng", last.c, f))
            out[k] = Projection(u, t[:, :-1], t[:, -1])
        return tuple(out[k] for k in range(len(out)))
