"""From rows to the products of a linear model."""

from __future__ import annotations

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.fixed.products import FixedProducts, FixedResponse


class FixedPrepared(Prepared):
    """Rows of a design without random terms, whose residuals are independent."""

    shared: FixedProducts

    def __init__(self, design: Design, rows: Rows):
        if design.terms or design.residual is not None:
            raise ValueError(
                "the fixed backend is for models without random terms, with independent residuals: use None"
            )
        self.x = rows.x
        self.shared = FixedProducts(rows.x @ rows.x.T, rows.logdet_r)

    def respond(self, residual: Array, factor: Array) -> FixedResponse:
        xp = namespace(residual, self.x)
        squares = xp.einsum("n...,n...->...", residual, residual)
        return FixedResponse(xp.tensordot(self.x, residual, axes=1) * factor, squares * factor * factor)
