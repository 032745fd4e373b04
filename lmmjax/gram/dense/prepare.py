"""Rows as they are, for the backend that forms H from them."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.dense.products import DenseProducts, DenseResponse
from lmmjax.gram.whitened.patterns import Patterns

LARGEST = 8000
"""Most rows: beyond, the n × n matrices of one evaluation take gigabytes and minutes."""


class DensePrepared(Prepared):
    """Rows for the dense backend."""

    def __init__(self, design: Design, rows: Rows):
        if design.n > LARGEST:
            raise ValueError(
                f"the dense backend would need n × n matrices for n = {design.n} rows "
                f"({design.n**2 * 8 / 2**30:.1f} GiB each); it takes at most {LARGEST} rows: "
                "use random terms that share one grouping factor"
            )
        codes = tuple(np.asarray(term.codes) for term in design.terms)
        groups = tuple(term.n_groups for term in design.terms)
        kernels = tuple(None if t.kernel is None else t.kernel.whole for t in design.terms)
        patterns, same, own = None, None, design.residual
        if own is not None:
            same = np.asarray(own.codes)[:, None] == np.asarray(own.codes)[None]
            covariates = tuple(v[None] for v in own.covariates)
            patterns = Patterns(own.place[None], covariates, np.ones((1, design.n), bool))
        self.shared = DenseProducts(
            rows.x, rows.z, codes, rows.logdet_r, design.structure, groups, patterns, same, kernels
        )

    def respond(self, residual: Array, factor: Array) -> DenseResponse:
        return DenseResponse(residual * factor)
