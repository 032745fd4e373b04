"""From rows to the products of the crossed backend: the entries of c = QᵀZ₂ and their pairs."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.crossed.dense_columns import DenseColumns, check_size, scatter
from lmmjax.gram.crossed.incidence import Incidence
from lmmjax.gram.crossed.products import CrossedProducts
from lmmjax.gram.factors import grouping_factors
from lmmjax.gram.leading import Leading, LeadingResponse

HEAVY = 0.1
"""A group with entries in more than this share of the dense columns is multiplied as a dense row.

A pair costs about 1 ns, a multiplication of the dense product 0.01 ns: equal at k²/2 pairs for k = 0.15 N.
"""


class CrossedPrepared(Prepared):
    """Rows sorted by the leading factor, the one with most random coefficients."""

    def __init__(self, design: Design, rows: Rows):
        factors = grouping_factors(design)
        if len(factors) < 2:
            raise ValueError("the crossed backend needs two or more grouping factors")
        factor = max(factors, key=lambda f: f.size)
        self.leading = leading = Leading(factor, design.structure, rows)
        self.order, rows = leading.order, leading.rows
        check_size(design, factor.terms)
        self.dense = dense = DenseColumns(design, rows, factor.terms, self.order)
        xp = namespace(leading.basis, *dense.values)
        width, groups = dense.width, factor.n_groups
        entries = _entries(xp, leading.segments.codes, leading.basis, dense)
        self.shared = CrossedProducts(
            leading.products,
            dense.products(),
            dense.sum(rows.x.T),
            _incidence(xp, *entries, groups, width),
            design.structure,
            factor.terms,
            tuple(term.n_groups for term in design.terms),
        )

    def respond(self, residual: Array, factor: Array) -> LeadingResponse:
        return LeadingResponse(self.leading.respond(residual, factor), self.dense.sum(residual) * factor)


def _entries(
    xp, codes: np.ndarray, basis: Array, dense: DenseColumns
) -> tuple[np.ndarray, np.ndarray, Array]:
    """Group (E,), column (E,) and values (q, E) of c = QᵀZ₂, by group and then by column."""
    width = dense.width
    keys = np.concatenate([codes * np.int64(width) + column for column in dense.columns])
    unique, where = np.unique(keys, return_inverse=True)
    sums = []
    for q_row in basis:
        products = xp.concatenate([q_row * value for value in dense.values])
        sums.append(scatter(xp, xp.zeros(len(unique), products.dtype), where.ravel(), products))
    return (unique // width).astype(np.int32), (unique % width).astype(np.int32), xp.stack(sums)


def _incidence(xp, group: np.ndarray, column: np.ndarray, value: Array, groups: int, width: int) -> Incidence:
    """Entries and every two of them in a group; groups with many as dense rows instead."""
    count = np.bincount(group, minlength=groups)
    many = count > HEAVY * width
    inside, q = many[group], value.shape[0]
    row = (np.cumsum(many) - 1)[group[inside]]
    empty = xp.zeros(int(many.sum()) * width, value.dtype)
    where = row * np.int64(width) + column[inside]
    heavy = xp.stack([scatter(xp, empty, where, v[inside]) if len(where) else empty for v in value])
    light = group[~inside], column[~inside], value[:, ~inside]
    return Incidence(
        *light,
        *_pairs(xp, *light, groups, width),
        np.flatnonzero(many).astype(np.int32),
        heavy.reshape(q, int(many.sum()), width),
        width,
        groups,
    )


def _pairs(
    xp, group: np.ndarray, column: np.ndarray, value: Array, groups: int, width: int
) -> tuple[np.ndarray, np.ndarray, Array]:
    """Every two entries of a group: its number, their place in the lower triangle, their products."""
    count = np.bincount(group, minlength=groups)
    start = np.cumsum(count) - count
    chosen: list[list[np.ndarray]] = [[], []]
    for k in np.unique(count):
        high, low = np.tril_indices(k)
        first = start[count == k]
        chosen[0].append((first[:, None] + high).ravel())
        chosen[1].append((first[:, None] + low).ravel())
    one, two = (np.concatenate([np.zeros(0, np.int64), *part]) for part in chosen)
    order = np.argsort(group[one], kind="stable")
    one, two = one[order], two[order]
    q = value.shape[0]
    products = [
        value[a][one] * value[b][two] + (value[b][one] * value[a][two] if a != b else 0.0)
        for a in range(q)
        for b in range(a, q)
    ]
    # N² may exceed 32 bits only where the dense matrix does not fit memory anyway
    target = (column[one].astype(np.int64) * width + column[two]).astype(np.int32)
    return group[one], target, xp.stack(products)
