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
        term, x, z = design.terms[0], np.asarray(rows.x).T, np.asarray(rows.z[0])
        assert term.kernel is not None
        self.compressed = compress is not False
        columns = term.expand(z.T)
        found = kept_blocks(design, z, columns)
        self.u, self.turn, self.x = found.u, found.u.T.tocsr(), found.u.T @ x
        self.closed = closed(found.mu, self.x)
        apart: dict[str, Any] = {}
        if not self.compressed:
            reach = (term.kernel.factor @ (columns.T @ found.u)).tocoo()
            apart = {"reach": Reach.of(reach), "own": term.kernel.diagonal}
        self.shared = BlockProducts(found.mu, self.x, rows.logdet_r, design.structure, **apart)

    def respond(self, residual: Array, factor: Array) -> SpectralResponse:
        if isinstance(residual, np.ndarray):
            y = self.turn @ residual
            return SpectralResponse(y * factor, np.zeros(y.shape[1:], y.dtype))
        turn = self.turn.tocoo()
        y = Reach.of(turn).times(jnp.asarray(residual))
        return SpectralResponse(y * factor, jnp.zeros(y.shape[1:], y.dtype))
