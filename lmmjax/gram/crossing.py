"""From rows to the products of the crossed backend: the entries of c = QᵀZ₂ and their pairs."""

from __future__ import annotations

import numpy as np

from lmmjax._memory import available_memory
from lmmjax._types import Array, namespace
from lmmjax.basis import Rows
from lmmjax.design import Design
from lmmjax.gram.base import Prepared
from lmmjax.gram.crossed import CrossedProducts, CrossedResponse
from lmmjax.gram.factors import Factor, grouping_factors
from lmmjax.gram.leading import Leading

HEAVY = 0.1
"""A group with entries in more than this share of the dense columns is multiplied as a dense row.

A pair costs about 1 ns, a multiplication of the dense product 0.01 ns: equal at k²/2 pairs for k = 0.15 N.
"""

MATRICES = 10
"""Matrices N × N that one evaluation with its derivatives holds at once."""


class CrossedPrepared(Prepared):
    """Rows sorted by the leading factor, the one with most random coefficients."""

    def __init__(self, design: Design, rows: Rows):
        factors = grouping_factors(design)
        if len(factors) < 2:
            raise ValueError("the crossed backend needs two or more grouping factors")
        factor = max(factors, key=lambda f: f.size)
        self.leading = leading = Leading(factor, design.structure, rows)
        self.order, rows = leading.order, leading.rows
        self.columns, self.values, self.width = _dense_columns(design, rows, factor, self.order)
        _check_size(design, factor, self.width)
        xp = namespace(leading.basis, *self.values)
        codes = leading.segments.codes
        entries = _entries(xp, codes, leading.basis, self.columns, self.values, self.width)
        self.shared = CrossedProducts(
            leading.products,
            _products(xp, self.columns, self.values, self.width),
            self._dense_sum(rows.x.T),
            *entries,
            *_pairs(xp, *entries, factor.n_groups, self.width),
            design.structure,
            factor.terms,
            tuple(term.n_groups for term in design.terms),
        )

    def respond(self, residual: Array, factor: Array) -> CrossedResponse:
        return CrossedResponse(self.leading.respond(residual, factor), self._dense_sum(residual) * factor)

    def _dense_sum(self, v: Array) -> Array:
        """Z₂ᵀv (N, ...) for v (n, ...)."""
        xp = namespace(v, *self.values)
        out = xp.zeros((self.width, *v.shape[1:]), v.dtype)
        lanes = (None,) * (v.ndim - 1)
        for column, value in zip(self.columns, self.values, strict=True):
            out = _add(xp, out, column, value[(..., *lanes)] * v)
        return out


def _check_size(design: Design, leading: Factor, width: int) -> None:
    """Refuse a dense part that memory cannot hold."""
    needed = MATRICES * 8 * width**2
    have = available_memory()
    if needed <= have and width**2 < 2**31:
        return
    sizes = ", ".join(
        f"{term.name} {term.n_groups} × {term.q}"
        for k, term in enumerate(design.terms)
        if k not in leading.terms
    )
    raise ValueError(
        f"this model would need dense matrices of {width} × {width}, about {needed / 2**30:.1f} GiB in all; "
        f"{have / 2**30:.1f} GiB are available. Their columns come from {sizes}. Leave out or coarsen the "
        "largest of these terms, or use a factor that is nested in another in its place"
    )


def _add(xp, out: Array, where: np.ndarray, values: Array) -> Array:
    """out with values (n, ...) added at positions (n,) of its first axis."""
    if xp is not np:
        return out.at[where].add(values)
    if values.ndim == 1:
        return out + np.bincount(where, weights=values, minlength=len(out))
    flat = values.reshape(len(values), -1)
    sums = [np.bincount(where, weights=flat[:, k], minlength=len(out)) for k in range(flat.shape[1])]
    return out + np.stack(sums, axis=1).reshape(out.shape)


def _dense_columns(
    design: Design, rows: Rows, leading: Factor, order: np.ndarray
) -> tuple[list[np.ndarray], list[Array], int]:
    """The columns of Z₂ that each row touches: their positions (n,) and values (n,), and N."""
    positions, values, width = [], [], 0
    for k, term in enumerate(design.terms):
        if k not in leading.terms:
            codes = term.codes[order].astype(np.int64)
            for a in range(term.q):
                positions.append(width + codes * term.q + a)
                values.append(rows.z[k][a])
            width += term.n_groups * term.q
    return positions, values, width


def _entries(
    xp, codes: np.ndarray, basis: Array, columns: list[np.ndarray], values: list[Array], width: int
) -> tuple[np.ndarray, np.ndarray, Array]:
    """Group (E,), column (E,) and values (q, E) of c = QᵀZ₂, by group and then by column."""
    keys = np.concatenate([codes * np.int64(width) + column for column in columns])
    unique, where = np.unique(keys, return_inverse=True)
    sums = []
    for q_row in basis:
        products = xp.concatenate([q_row * value for value in values])
        sums.append(_add(xp, xp.zeros(len(unique), products.dtype), where.ravel(), products))
    return (unique // width).astype(np.int32), (unique % width).astype(np.int32), xp.stack(sums)


def _pairs(
    xp, group: np.ndarray, column: np.ndarray, value: Array, groups: int, width: int
) -> tuple[np.ndarray, np.ndarray, Array, np.ndarray, Array]:
    """Every two entries of a group: its number, their place in the lower triangle, their products.

    Groups with many entries come back as dense rows instead: their numbers (L,) and entries (q, L, N).
    """
    count = np.bincount(group, minlength=groups)
    start = np.cumsum(count) - count
    many = count > HEAVY * width
    chosen: list[list[np.ndarray]] = [[], []]
    for k in np.unique(count[~many]):
        high, low = np.tril_indices(k)
        first = start[(count == k) & ~many]
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
    heavy_groups = np.flatnonzero(many).astype(np.int32)
    row = np.cumsum(many) - 1
    inside = many[group]
    where = row[group[inside]] * np.int64(width) + column[inside]
    empty = xp.zeros(len(heavy_groups) * width, value.dtype)
    heavy = xp.stack([_add(xp, empty, where, v[inside]) for v in value]) if len(heavy_groups) else None
    shape = (q, len(heavy_groups), width)
    heavy = xp.zeros(shape, value.dtype) if heavy is None else heavy.reshape(shape)
    return group[one], target, xp.stack(products), heavy_groups, heavy


def _products(xp, columns: list[np.ndarray], values: list[Array], width: int) -> Array:
    """Z₂ᵀZ₂ (N, N)."""
    flat = xp.zeros(width * width, values[0].dtype)
    for one, left in zip(columns, values, strict=True):
        for two, right in zip(columns, values, strict=True):
            flat = _add(xp, flat, one * width + two, left * right)
    return flat.reshape(width, width)
