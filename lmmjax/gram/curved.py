"""Structured covariances of random effects above any backend that knows unstructured ones.

With e(d) the free entries of all D, of which log|H| and WᵀH⁻¹W have derivatives from the backend below,

    ∂_a = Σ_i ∂_a e_i ∂_i,      ∂_ab = ΣΣ ∂_a e_i ∂_b e_j ∂_ij + Σ_i ∂_ab e_i ∂_i.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, derivatives, record, static
from lmmjax.covariance import Unstructured
from lmmjax.design import Design, Rows, Structure
from lmmjax.gram.base import (
    AroundProducts,
    CrossProducts,
    Gram,
    GramJet,
    Prepared,
    Projection,
    ResponseProducts,
)


@record
class CurvedProducts(AroundProducts):
    """Products of the backend below, and the structure above it."""

    inner: CrossProducts
    structure: Structure = static()

    def gram(self, d: Array, response: ResponseProducts) -> Gram:
        return self.inner.gram(self.structure.free_entries(d), response)

    def project(self, d: Array, response: ResponseProducts) -> tuple[Projection, ...]:
        return self.inner.project(self.structure.free_entries(d), response)

    def jet(self, d: Array, response: ResponseProducts) -> GramJet:
        return self._chained(d, self.inner.jet(self.structure.free_entries(d), response), bend=True)

    def linear_jet(self, d: Array, response: ResponseProducts) -> GramJet:
        jet = self.inner.linear_jet(self.structure.free_entries(d), response)
        return self._chained(d, jet, bend=False)

    def _chained(self, d: Array, jet: GramJet, bend: bool) -> GramJet:
        if bend:
            _, jacobian, curve = derivatives(self.structure.free_entries, d)
        else:
            jacobian, curve = jax.jacfwd(self.structure.free_entries)(d), None

        def along(a: Array) -> Array:
            return jnp.tensordot(jacobian.T, a, axes=1)

        def twice(a: Array) -> Array:
            return jnp.moveaxis(jnp.tensordot(jacobian.T, along(a), axes=((1,), (1,))), 0, 1)

        second = jax.tree.map(twice, jet.second)
        if curve is not None:
            second = jax.tree.map(
                lambda a, b: a + jnp.tensordot(jnp.moveaxis(curve, 0, -1), b, axes=1), second, jet.first
            )
        return GramJet(jet.value, jax.tree.map(along, jet.first), second)


class CurvedPrepared(Prepared):
    """The backend that covers the design with unstructured terms, below the structured ones."""

    def __init__(self, design: Design, rows: Rows, below: Callable[..., Prepared], **options):
        terms = tuple(
            term if term.family.linear else dataclasses.replace(term, family=Unstructured())
            for term in design.terms
        )
        self.inner = below(dataclasses.replace(design, terms=terms), rows, **options)
        self.order = self.inner.order
        self.shared = CurvedProducts(self.inner.shared, design.structure)

    @property
    def compressed(self) -> bool:
        """Whether only sums over the groups of a pattern are kept."""
        return getattr(self.inner, "compressed", False)

    def respond(self, residual: Array, factor: Array) -> ResponseProducts:
        return self.inner.respond(residual, factor)
