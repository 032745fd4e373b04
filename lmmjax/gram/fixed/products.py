"""The Gram of a linear model: XᵀX, Xᵀy and yᵀy of rows times √w; there are no parameters of H."""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, record
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts


@record
class FixedProducts(CrossProducts):
    """Shared products of a design without random terms.

    Attributes
    ----------
    xx : (p, p) X̃ᵀX̃, the identity up to rounding.
    logdet_r : log|R|.
    """

    xx: Array
    logdet_r: Array

    @property
    def size(self) -> float:
        return self.xx.shape[0] ** 2

    def cost(self) -> Cost:
        p = self.xx.shape[0]
        return Cost(2.0 * p**3, 8.0 * p**2, ())

    def gram(self, d: Array, response: FixedResponse) -> Gram:
        return Gram(self.logdet_r, self.xx, response.xy, response.yy)

    def jet(self, d: Array, response: FixedResponse) -> GramJet:
        p, dtype = self.xx.shape[0], self.xx.dtype

        def none(*axes: int) -> Gram:
            shapes = ((), (p, p), (p,), ())
            return Gram(*(jnp.zeros((*axes, *own), dtype) for own in shapes))

        return GramJet(self.gram(d, response), none(0), none(0, 0))

    def project(self, d: Array, response: FixedResponse) -> tuple[Projection, ...]:
        return ()


@record
class FixedResponse(ResponseProducts):
    """Products of standardised responses: xy (p, ...) and yy (...)."""

    xy: Array
    yy: Array
