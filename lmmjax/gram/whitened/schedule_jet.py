"""Derivatives of the Gram in the parameters of R where groups keep to a schedule."""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, derivatives, namespace, record
from lmmjax.gram.base import Curve, Gram, GramCurve, GramJet
from lmmjax.gram.whitened.blocks import Tangent, WhitenedResponse
from lmmjax.gram.whitened.schedule import (
    ScheduleProducts,
    Solved,
    between,
    by_pattern,
    of_rows,
    twice,
    twice_between,
)
from lmmjax.residual import ResidualStructure


@record
class ScheduleCurve(Curve):
    """The second derivatives of Sxx along directions E of R, from E (k, L, U, U), c and the rows z_x."""

    e: Array
    c: Array
    z: Array
    pattern: Array

    def traced(self, phi: Array) -> Array:
        weights = by_pattern(self.z, self.z @ phi, self.pattern, self.c.shape[1])
        return 2.0 * twice(self.e, self.c, weights)

    def weighted(self, w: Array) -> Array:
        xp = namespace(self.e, w)
        k, sheets, size, _ = self.e.shape
        turned = xp.tensordot(w, self.e, axes=1)
        # Σ_a E_a c Σ_b w_ab E_b by pattern
        left = xp.moveaxis(self.e[:, :, None] @ self.c[None], 0, 3).reshape(sheets, -1, size, k * size)
        middle = left @ xp.moveaxis(turned, 0, 1).reshape(sheets, 1, k * size, size)
        moved = of_rows(middle + xp.swapaxes(middle, -1, -2), self.pattern) @ self.z
        width = self.z.shape[-1]
        return self.z.reshape(-1, width).T @ moved.reshape(-1, width)


def _start(
    products: ScheduleProducts, matrix: Array, e: Array, response: WhitenedResponse
) -> tuple[Solved, Array, Gram, Gram]:
    """Everything at R (L, U, U), n c, and the Gram with its first derivatives along E (k, L, U, U)."""
    there = products.solve(matrix, response)
    nc = jnp.asarray(products.count)[..., None, None] * there.c
    flat, cyc = e.reshape(len(e), -1), there.c @ response.yy @ there.c
    first = -between(e, there.z)
    first = first.at[:, -1, -1].add(-flat @ jnp.sum(cyc, axis=1).reshape(-1))
    logdet = flat @ jnp.sum(nc, axis=1).reshape(-1)
    return there, nc, Gram.of(there.logdet, there.s), Gram.of(logdet, first)


def schedule_curve(
    products: ScheduleProducts, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse
) -> GramCurve:
    """The Gram at r (k,), its first derivatives, and the second along the tangent of R."""
    matrix, e = products.with_slopes(structure, r)
    there, nc, value, first = _start(products, matrix, e, response)
    curve = ScheduleCurve(e, there.c, there.z[..., :-1], jnp.asarray(products.pattern))
    return GramCurve(value, first, -twice(e, there.c, nc), curve)


def schedule_jet(
    products: ScheduleProducts, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse
) -> GramJet:
    """The Gram at r (k,) with first and second derivatives."""
    matrix, e, bend = derivatives(lambda r: products.covariance(structure, r), r)
    e, bend = jnp.moveaxis(e, -1, 0), jnp.moveaxis(bend, (-1, -2), (0, 1))
    there, nc, value, first = _start(products, matrix, e, response)
    k, c = len(e), there.c
    bend = bend.reshape(k * k, *e.shape[1:])
    cyc = c @ response.yy @ c

    def along(weights: Array) -> Array:
        return (bend.reshape(k * k, -1) @ jnp.sum(weights, axis=1).reshape(-1)).reshape(k, k)

    second = twice_between(e, c, there.z, products.pattern)
    second = second - between(bend, there.z).reshape(second.shape)
    second = second.at[..., -1, -1].add(2.0 * twice(e, c, cyc) - along(cyc))
    return GramJet(value, first, Gram.of(along(nc) - twice(e, c, nc), second))
