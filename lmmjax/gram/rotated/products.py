"""What the levels of a kernel see, above a backend that has them rotated and independent."""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, record, static
from lmmjax.design import Structure
from lmmjax.gram.base import (
    AroundProducts,
    CrossProducts,
    Gram,
    GramCurve,
    GramJet,
    Projection,
    ResponseProducts,
)


@record
class RotatedProducts(AroundProducts):
    """Products below, with the way back to the levels.

    Attributes
    ----------
    inner : of the rotated levels.
    reach : per term (G, g), from rotated levels to effects: KZᵀH⁻¹ of all G levels.
    own : per term (G,) the diagonal of K, None where groups are independent.
    """

    inner: CrossProducts
    reach: tuple[Array, ...]
    own: tuple[Array | None, ...]
    structure: Structure = static()

    def gram(self, d: Array, response: ResponseProducts) -> Gram:
        return self.inner.gram(d, response)

    def jet(self, d: Array, response: ResponseProducts) -> GramJet:
        return self.inner.jet(d, response)

    def linear_jet(self, d: Array, response: ResponseProducts) -> GramJet:
        return self.inner.linear_jet(d, response)

    def curve(self, d: Array, response: ResponseProducts) -> GramCurve:
        return self.inner.curve(d, response)

    def project(self, d: Array, response: ResponseProducts) -> tuple[Projection, ...]:
        out = []
        inner = self.inner.project(d, response)
        for seen, reach, own in zip(inner, self.reach, self.own, strict=True):
            g = reach.shape[1]

            def through(a: Array, r: Array, g: int = g) -> Array:
                # groups that only fill up a bucket come last
                return jnp.tensordot(a[..., :g], r, axes=((-1,), (1,)))

            square = reach * reach
            u, tx, ty = through(seen.u, square), through(seen.tx, reach), through(seen.ty, reach)
            out.append(Projection(u, tx, ty, own))
        return tuple(out)
