"""From rows to the products of the nested backend."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.factors import grouping_factors, nested_chain
from lmmjax.gram.grouped.prepare import Segments
from lmmjax.gram.leading import Leading, LeadingResponse
from lmmjax.gram.nested.products import NestedProducts


class NestedPrepared(Prepared):
    """Rows sorted by the finest factor."""

    shared: NestedProducts

    def __init__(self, design: Design, rows: Rows):
        factors = grouping_factors(design)
        chain = nested_chain(factors)
        if not chain:
            raise ValueError("the nested backend needs two or more grouping factors, each within the next")
        self.leading = leading = Leading(factors[0], design.structure, rows)
        self.order, rows = leading.order, leading.rows
        xp = namespace(leading.basis, *rows.z)
        up = xp.concatenate([rows.z[k] for factor in factors[1:] for k in factor.terms])
        c_up = leading.sums(up.T)
        # rows in the order of the groups of factor 2, for sums over them
        self.owner = chain[0][leading.segments.codes]
        self.by_owner = np.argsort(self.owner, kind="stable")
        self.segments = Segments(self.owner[self.by_owner], factors[1].n_groups)
        self.up_within = up - leading.between(c_up).T
        x_within = leading.x_within
        base = [self._sums(self.up_within * column[None]) for column in [*self.up_within, *x_within]]
        self.shared = NestedProducts(
            leading.products,
            xp.swapaxes(c_up, 1, 2),
            xp.stack(base, axis=1),
            tuple(chain),
            design.structure,
            tuple(factor.terms for factor in factors),
            tuple(factor.n_groups for factor in factors),
        )

    def _sums(self, v: Array) -> Array:
        """Sums (k, G₂, ...) over the rows of each group of factor 2, of v (k, n, ...)."""
        xp = namespace(v)
        return xp.stack([self.segments.sum(xp.take(one, self.by_owner, axis=0)) for one in v])

    def respond(self, residual: Array, factor: Array) -> LeadingResponse:
        xp = namespace(residual, self.up_within)
        lanes = (None,) * (residual.ndim - 1)
        base = xp.concatenate(
            [self._sums((column[(..., *lanes)] * residual)[None]) for column in self.up_within]
        )
        return LeadingResponse(self.leading.respond(residual, factor), base * factor)
