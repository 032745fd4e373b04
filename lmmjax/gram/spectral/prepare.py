"""From rows to the products of the spectral backend: one decomposition, one product for all responses."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.spectral.decomposition import OneKernel, kept_decomposition
from lmmjax.gram.spectral.products import SpectralProducts, SpectralResponse


class SpectralPrepared(Prepared):
    """The rotation of the rows of a design.

    Parameters
    ----------
    design, rows : the design, of one column with a kernel, and its standardised rows.
    compress : False for products that have the levels apart, for conditional modes.
    """

    shared: SpectralProducts

    def __init__(self, design: Design, rows: Rows, compress: bool | None = None):
        own, self.compressed = OneKernel.of(design, rows), compress is not False
        found = kept_decomposition(own)
        self.b = found.b
        self.left_over = design.observations - design.p - len(found.mu)
        seen_x, seen_b = own.columns.T @ own.x, own.columns.T @ found.b
        apart = {}
        if not self.compressed:
            factor = own.kernel.factor
            apart = {"reach": factor @ seen_b, "reach_x": factor @ seen_x, "own": own.kernel.diagonal}
        self.shared = SpectralProducts(
            found.mu,
            seen_b.T @ seen_x,
            seen_x.T @ seen_x,
            np.asarray(float(self.left_over)),
            rows.logdet_r,
            design.structure,
            **apart,
        )

    def respond(self, residual: Array, factor: Array) -> SpectralResponse:
        xp = namespace(residual)
        y = xp.tensordot(xp.asarray(self.b), residual, axes=((0,), (0,)))
        if not self.left_over:
            return SpectralResponse(y * factor, xp.zeros(y.shape[1:], y.dtype))
        left = residual - xp.tensordot(xp.asarray(self.b), y, axes=1)
        return SpectralResponse(y * factor, xp.einsum("n...,n...->...", left, left) * factor * factor)
