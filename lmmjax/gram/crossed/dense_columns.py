"""The columns of the terms that share a dense matrix, as what every row touches: nothing of size n × N."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.arrays.memory import available_memory
from lmmjax.design import Design, Rows

MATRICES = 10
"""Matrices N × N that one evaluation with its derivatives holds at once."""


class DenseColumns:
    """Z₂ (n, N): positions (n,) and values (n,) of the columns each row touches.

    `rows` are in the order `order` of the rows of the design; the terms at positions `others` are left out.
    """

    def __init__(self, design: Design, rows: Rows, others: tuple[int, ...], order: np.ndarray):
        self.columns, self.values, self.width = [], [], 0
        for k, term in enumerate(design.terms):
            if k not in others:
                codes = term.codes[order].astype(np.int64)
                for a in range(term.q):
                    self.columns.append(self.width + codes * term.q + a)
                    self.values.append(rows.z[k][a])
                self.width += term.n_groups * term.q

    def sum(self, v: Array) -> Array:
        """Z₂ᵀv (N, ...) for v (n, ...)."""
        xp = namespace(v, *self.values)
        out = xp.zeros((self.width, *v.shape[1:]), v.dtype)
        lanes = (None,) * (v.ndim - 1)
        for column, value in zip(self.columns, self.values, strict=True):
            out = scatter(xp, out, column, value[(..., *lanes)] * v)
        return out

    def by_group(self, codes: np.ndarray, groups: int, v: Array) -> Array:
        """Z₂ᵀv within every group (N, G), for v (n,) and the group (n,) of every row."""
        xp = namespace(v, *self.values)
        out = xp.zeros(self.width * groups, v.dtype)
        for column, value in zip(self.columns, self.values, strict=True):
            out = scatter(xp, out, column * groups + codes, value * v)
        return out.reshape(self.width, groups)

    def products(self) -> Array:
        """Z₂ᵀZ₂ (N, N)."""
        xp = namespace(*self.values)
        flat = xp.zeros(self.width**2, self.values[0].dtype)
        for one, left in zip(self.columns, self.values, strict=True):
            for two, right in zip(self.columns, self.values, strict=True):
                flat = scatter(xp, flat, one * self.width + two, left * right)
        return flat.reshape(self.width, self.width)


def check_size(design: Design, others: tuple[int, ...]) -> None:
    """Refuse a dense part that memory cannot hold; it has the terms that are not at positions `others`."""
    terms = [term for k, term in enumerate(design.terms) if k not in others]
    width = sum(term.n_groups * term.q for term in terms)
    needed = MATRICES * 8 * width**2
    have = available_memory()
    if needed <= have and width**2 < 2**31:
        return
    sizes = ", ".join(f"{term.name} {term.n_groups} × {term.q}" for term in terms)
    raise ValueError(
        f"this model would need dense matrices of {width} × {width}, about {needed / 2**30:.1f} GiB in all; "
        f"{have / 2**30:.1f} GiB are available. Their columns come from {sizes}. Leave out or coarsen the "
        "largest of these terms, or use a factor that is nested in another in its place"
    )


def scatter(xp, out: Array, where: np.ndarray, values: Array) -> Array:
    """out with values (n, ...) added at positions (n,) of its first axis."""
    if xp is not np:
        return out.at[where].add(values)
    if values.ndim == 1:
        return out + np.bincount(where, weights=values, minlength=len(out))
    flat = values.reshape(len(values), -1)
    sums = [np.bincount(where, weights=flat[:, k], minlength=len(out)) for k in range(flat.shape[1])]
    return out + np.stack(sums, axis=1).reshape(out.shape)
