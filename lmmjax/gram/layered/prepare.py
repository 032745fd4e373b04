"""From rows to the products of the layered backend."""

from __future__ import annotations

import dataclasses

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.crossed.dense_columns import DenseColumns, check_size
from lmmjax.gram.factors import grouping_factors, longest_chain
from lmmjax.gram.layered.products import LayeredProducts
from lmmjax.gram.leading import LeadingResponse
from lmmjax.gram.nested.prepare import NestedPrepared

LARGE = 2**30
"""Bytes that products with the finest factor may take in any case."""


def pays(design: Design) -> bool:
    """Whether a nested chain is worth eliminating level by level rather than in its finest factor only."""
    factors = grouping_factors(design)
    chain = longest_chain(factors)
    if len(chain) < 2:
        return False
    dense = sum(f.size for f in factors) - max(f.size for f in factors)
    rest = dense - sum(f.size for f in chain[1:])
    finest, m = (
        chain[0],
        sum(design.terms[k].family.n_params(design.terms[k].q) for f in chain for k in f.terms),
    )
    columns = rest + design.p + 1
    crossed = dense**3 * (4 / 3 + 2 * finest.q)
    layered = rest**3 * (4 / 3 + 2 * m) + 2 * (1 + m + m**2) * finest.size * finest.q * columns**2
    memory = 8.0 * finest.size * columns * (2 + finest.q**2)
    return layered < crossed and memory < max(LARGE, 80.0 * dense**2)


class LayeredPrepared(Prepared):
    """Rows sorted by the finest factor of the longest nested chain."""

    def __init__(self, design: Design, rows: Rows):
        factors = grouping_factors(design)
        chain = longest_chain(factors)
        if len(chain) < 2 or len(chain) == len(factors):
            raise ValueError("the layered backend needs factors nested in each other and one that is not")
        terms = tuple(sorted(k for factor in chain for k in factor.terms))
        inner = dataclasses.replace(design, terms=tuple(design.terms[k] for k in terms))
        self.nested = nested = NestedPrepared(
            inner, dataclasses.replace(rows, z=tuple(rows.z[k] for k in terms))
        )
        self.order = order = nested.leading.order
        check_size(design, terms)
        self.dense = dense = DenseColumns(design, rows.take(order), terms, order)
        shared = nested.shared
        leading = shared.leading
        xp = namespace(leading.r, *dense.values)
        # c (q, N, G₁) = QᵀZ₂
        codes = nested.leading.segments.codes
        c = xp.stack([dense.by_group(codes, leading.r.shape[-1], row) for row in nested.leading.basis])
        flat = xp.swapaxes(c, 0, 1).reshape(dense.width, -1)
        own = dense.products() - flat @ flat.T
        across = dense.sum(nested.leading.x_within.T)
        within = xp.concatenate(
            [xp.concatenate([own, across], axis=1), xp.concatenate([across.T, leading.within_xx], axis=1)]
        )
        leading = dataclasses.replace(
            leading, within_xx=within, between_xx=xp.concatenate([c, leading.between_xx], axis=1)
        )
        groups, up = shared.base.shape[-1], shared.up.shape[1]
        owner = nested.owner
        base = xp.stack([dense.by_group(owner, groups, row) for row in nested.up_within])
        base = xp.concatenate([shared.base[:, :up], base, shared.base[:, up:]], axis=1)
        self.shared = LayeredProducts(
            dataclasses.replace(shared, leading=leading, base=base),
            design.structure,
            terms,
            tuple(term.n_groups for term in design.terms),
        )

    def respond(self, residual: Array, factor: Array) -> LeadingResponse:
        made = self.nested.respond(residual, factor)
        leading = self.nested.leading
        xp = namespace(residual, leading.basis)
        within = self.dense.sum(residual - leading.between(leading.sums(residual))) * factor
        inner = dataclasses.replace(made.leading, within_xy=xp.concatenate([within, made.leading.within_xy]))
        return dataclasses.replace(made, leading=inner)
