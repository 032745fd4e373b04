"""From rows to the products of a kernel of small blocks: rows rotated within blocks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.block.decomposition import closed, kept_blocks
from lmmjax.gram.block.products import BlockProducts, Reach
from lmmjax.gram.spectral.decomposition import OneKernel
from lmmjax.gram.spectral.products import SpectralResponse


class BlockPrepared(Prepared):
    """The rotation of the rows of a design, block by block.

    Parameters
    ----------
    design, rows : the design, of one column with a sparse kernel, and its standardised rows.
    compress : False for products that have the levels apart, for conditional modes.

    Attributes
    ----------
    u : (n, n) sparse; x : (n, p) UᵀX.
    closed : whether X has all that K is zero in, which is the spectral backend's.
    """

    shared: BlockProducts

    def __init__(self, design: Design, rows: Rows, compress: bool | None = None):
        own, self.compressed = OneKernel.of(design, rows), compress is not False
        found = kept_blocks(own)
        self.u, self.turn, self.x = found.u, found.u.T.tocsr(), found.u.T @ own.x
        self.closed = closed(found.mu, self.x)
        apart: dict[str, Any] = {}
        if not self.compressed:
            reach = (own.kernel.factor @ (own.columns.T @ found.u)).tocoo()
            apart = {"reach": Reach.of(reach), "own": own.kernel.diagonal}
        self.shared = BlockProducts(found.mu, self.x, rows.logdet_r, design.structure, **apart)

    def respond(self, residual: Array, factor: Array) -> SpectralResponse:
        if isinstance(residual, np.ndarray):
            y = self.turn @ residual
            return SpectralResponse(y * factor, np.zeros(y.shape[1:], y.dtype))
        turn = self.turn.tocoo()
        y = Reach.of(turn).times(jnp.asarray(residual))
        return SpectralResponse(y * factor, jnp.zeros(y.shape[1:], y.dtype))
