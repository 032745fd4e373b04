"""The factor that is eliminated first: an orthonormal basis of its columns within every group."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace, record
from lmmjax.design import Rows, Structure
from lmmjax.gram.base import ResponseProducts
from lmmjax.gram.factors import Factor
from lmmjax.gram.grouped.prepare import Segments, orthogonalise
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse


class Leading:
    """Rows sorted by one factor.

    Attributes
    ----------
    order : (n,) the sorted rows; rows : the rows in that order; segments : its groups.
    basis : (q, n) columns Q; r : (q, q, G) lower triangular R; x_within : (p, n).
    products : with X, uncompressed.
    """

    def __init__(self, factor: Factor, structure: Structure, rows: Rows):
        self.order = np.argsort(factor.codes, kind="stable")
        self.segments = Segments(factor.codes[self.order], factor.n_groups)
        self.rows = rows = rows.take(self.order)
        xp = namespace(rows.x, *rows.z)
        basis, r = orthogonalise(xp, xp.concatenate([rows.z[k] for k in factor.terms]), self.segments)
        self.basis = xp.stack(basis)
        c_x = self.sums(rows.x.T)
        self.x_within = rows.x - self.between(c_x).T
        self.products = GroupedProducts(
            xp.swapaxes(r, 0, 1),
            np.ones(factor.n_groups, rows.x.dtype),
            self.x_within @ self.x_within.T,
            xp.swapaxes(c_x, 1, 2),
            rows.logdet_r,
            Structure(tuple(structure.terms[k] for k in factor.terms)),
            False,
        )

    def sums(self, v: Array) -> Array:
        """Qᵀv within groups, (q, G, ...) for v (n, ...)."""
        lanes = (None,) * (v.ndim - 1)
        xp = namespace(v, self.basis)
        return xp.stack([self.segments.sum(column[(..., *lanes)] * v) for column in self.basis])

    def between(self, c: Array) -> Array:
        """The part (n, ...) of the rows that lies in the columns of the factor, from c (q, G, ...)."""
        lanes = (None,) * (c.ndim - 2)
        pairs = zip(self.basis, c, strict=True)
        return sum(column[(..., *lanes)] * self.segments.spread(one) for column, one in pairs)

    def respond(self, residual: Array, factor: Array) -> GroupedResponse:
        """Products of factor · residual (n, ...)."""
        xp = namespace(residual, self.basis)
        c_y = self.sums(residual)
        within_xy = xp.tensordot(self.x_within, residual, axes=1)
        within = residual - self.between(c_y)
        within_yy = xp.einsum("n...,n...->...", within, within)
        return GroupedResponse(
            within_xy * factor,
            within_yy * factor * factor,
            c_y * factor,
            xp.zeros((0, *within_yy.shape), c_y.dtype),
        )


@record
class LeadingResponse(ResponseProducts):
    """Products of a response: those with the leading factor, and `base_y` with the columns of the others.

    `base_y` is (N,) for the crossed backend, (Q, G₂) within the groups of factor 2 for the nested one.
    """

    leading: GroupedResponse
    base_y: Array
