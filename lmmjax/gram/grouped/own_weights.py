"""Products of responses that each have weights of their own, missing values among them (weight zero).

With its weights each response has a design of its own, √w X and √w Z, so nothing is shared but the raw
columns. All arrays keep the responses on the last axis; a block of them stays in cache. Products of columns
of X are linear in w, those with y in wy: with X₀ an orthonormal basis of X without weights,

    X₀ᵀWX₀ = RᵀR,    X̃ = √w X₀R⁻¹,    e = y − X₀R⁻¹R⁻ᵀX₀ᵀWy,    V = [X̃ √w e],    C = QᵀV,    S_w = VᵀV − CᵀC,

Q the Gram–Schmidt basis of √w Z within every group. Responses that would lose digits so, because R is nearly
singular or e lies in the columns of Z, take `ownweights_exact`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import scipy.sparse as sp

from lmmjax.arrays import Array, namespace
from lmmjax.design import Basis, Design, Origin, inner_columns, solve_upper
from lmmjax.gram.grouped.expansion import expand_nested
from lmmjax.gram.grouped.own_weights_exact import Raw, dots, exact
from lmmjax.gram.grouped.prepare import CANCELLATION, RANK_TOL, Segments
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse
from lmmjax.gram.grouped.settle import SHARE as SETTLED
from lmmjax.gram.grouped.settle import left_within

BLOCK = 128
"""Responses at a time."""

DIFFERENCE = 1e-12
"""Squares of a column of X within groups, of 1 in all, that count as none if formed by difference."""

SHARE = 1e-4
"""Least share of the squares of a column of √w X₀ that the columns before it may leave."""


EXACT = (1, 2, 4, 5, 6, 7, 8, 9)
"""Places among the products of what `exact` returns."""


@dataclasses.dataclass(frozen=True, eq=False)
class Formed:
    """Products of a block of T responses by sums.

    Attributes
    ----------
    products : r, within_xx, c_x, logdet_r, within_xy, within_yy, c_y, beta, scale, x_factor and n, whose last
        axis is that of responses.
    finite, fine : (T,) see `OwnWeights`; inexact : (T,) those that sums lose digits of.
    y, root : (n, T) the responses less their offset, and √w; q_rows : Q as q rows (n, T).
    """

    products: tuple[Any, ...]
    finite: Any
    fine: Any
    inexact: Any
    y: Any
    root: Any
    q_rows: list[Any]


class OwnWeights:
    """A grouped design, ready for responses with weights."""

    def __init__(self, design: Design, basis: Basis):
        pairs = zip(design.terms, basis.outward, strict=True)
        z = tuple(inner_columns(np.asarray(term.z), back).T for term, back in pairs)
        plan = expand_nested(design, z)
        self.order = np.argsort(plan.codes, kind="stable")
        self.codes, self.groups, self.first_columns = (
            plan.codes[self.order],
            plan.n_groups,
            plan.first_columns,
        )
        n = design.n
        self.by_group = sp.csr_array((np.ones(n), (self.codes, np.arange(n))), shape=(self.groups, n))
        self.segments = Segments(self.codes, self.groups)
        self.z = plan.expand(z)[:, self.order]
        x = np.asarray(design.x)[self.order]
        self.raw = Raw(x.T, self.by_group, self.codes, self.groups, design.known is not None)
        orthonormal, factor = np.linalg.qr(x)
        signs = np.where(np.diagonal(factor) < 0, -1.0, 1.0)
        self.x, self.x_factor = (orthonormal * signs).T.copy(), factor * signs[:, None]
        self.upper = [(a, b) for a in range(len(self.x)) for b in range(a, len(self.x))]
        products = [self.x[a] * self.x[b] for a, b in self.upper]
        self.products = np.stack(products) if products else np.zeros((0, n))
        self.offset, self.weights = (
            None if a is None else np.asarray(a)[self.order, None] for a in (design.offset, design.weights)
        )
        self.basis, self.structure, self.known = basis, design.structure, design.known
        self.terms: list[tuple[int, np.ndarray, Any]] = [
            (term.q, codes, sp.csr_array((np.ones(n), (codes, np.arange(n)))))
            for term, codes in ((term, term.codes[self.order]) for term in design.terms)
            if term.family.linear
        ]

    def __call__(self, y: np.ndarray, w: np.ndarray):
        """Products of y (n, T) with weights w (n, T), times those of the design.

        Returns
        -------
        shared, response, origin, basis : records whose arrays all trail with T.
        n : (T,) observations: rows whose y is not missing (NaN) and whose weight is not zero.
        finite : (T,) whether no other value is infinite and no weight negative, infinite or missing.
        estimable : (T,) whether X keeps its rank, with residual degrees of freedom, two groups and, unless
            weights tell them from residuals, fewer random coefficients than observations left.
        """
        parts = [slice(first, first + BLOCK) for first in range(0, y.shape[1], BLOCK)]
        # what overflows gets a status
        with np.errstate(all="ignore"):
            pieces = [self._block(y[:, part][self.order], w[:, part][self.order]) for part in parts]
        *products, finite, fine = (np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True))
        return *self.records(tuple(products)), finite, fine

    def records(self, products: tuple[Any, ...]) -> tuple:
        """The cross-products of designs and responses, origin and basis, and n (T,), of `Formed.products`."""
        r, within_xx, c_x, logdet_r, within_xy, within_yy, c_y, beta, scale, x_factor, n = products
        xp, lanes = namespace(n), len(n)
        shared = GroupedProducts(
            r,
            xp.ones((self.groups, lanes)),
            within_xx,
            c_x,
            logdet_r,
            self.structure,
            False,
            self.first_columns,
        )
        response = GroupedResponse(within_xy, within_yy, c_y, xp.zeros((0, lanes)))
        spread = [
            tuple(xp.repeat(xp.asarray(b)[..., None], lanes, axis=-1) for b in side)
            for side in (self.basis.inward, self.basis.outward)
        ]
        return shared, response, Origin(beta, scale), Basis(x_factor, *spread), n

    def _block(self, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
        made = self.formed(y, w)
        inexact = np.flatnonzero(made.inexact)
        if len(inexact):
            y, root, *rows = (a[:, inexact] for a in (made.y, made.root, *made.q_rows))
            *again, independent = exact(self.raw, y, root, made.products[-1][inexact], rows)
            for place, better in zip(EXACT, again, strict=True):
                made.products[place][..., inexact] = better
            made.fine[inexact] &= independent
        return *made.products, made.finite, made.fine

    def formed(self, y: Array, weights: Array | None) -> Formed:
        """Products by sums of y (n, T) and weights (n, T) or None, rows in `order`, perhaps traced."""
        xp = namespace(y)
        w = xp.ones_like(y) if weights is None else xp.asarray(weights)
        w = xp.where(xp.isnan(y), 0.0, w if self.weights is None else w * self.weights)
        finite = xp.isfinite(w).all(axis=0) & (w >= 0).all(axis=0)
        finite &= ~xp.isinf(y).any(axis=0)
        if xp is not np or not finite.all():
            y, w = xp.where(finite[None], y, 0.0), xp.where(finite[None], w, 1.0)
        observed, root, p = w > 0, xp.sqrt(w), len(self.x)
        n = observed.sum(axis=0).astype(float)
        logdet_r = -xp.log(xp.where(observed, w, 1.0)).sum(axis=0)
        y = xp.where(observed, y if self.offset is None else y - self.offset, 0.0)
        factor, share = self._factor(w)
        projection = _forward(factor, self.x @ (w * y))
        e = y - self.x.T @ solve_upper(factor, projection)
        we = w * e
        left = dots(e, we)
        total = left + dots(projection, projection)
        still = left <= (64 * np.finfo(float).eps) ** 2 * total
        scale = xp.where(still, 1.0, xp.sqrt(left / xp.maximum(n, 1.0)))
        per = xp.where(still, 0.0, 1.0 / scale)

        q_rows, r = self._random(root)
        c_x, c_y = [], []
        for q in q_rows:
            weighted = root * q
            raw = [self._sums(weighted * column[:, None]) for column in self.x]
            none = xp.zeros((0, self.groups, y.shape[1]))
            c_x.append(_forward(factor, xp.stack(raw)) if raw else none)
            c_y.append(self._sums(weighted * e))
        c_x, c_y = xp.stack(c_x), xp.stack(c_y)
        between = {(a, b): xp.einsum("qgt,qgt->t", c_x[:, a], c_x[:, b]) for a, b in self.upper}
        within_xx = [[float(a == b) - between[min(a, b), max(a, b)] for b in range(p)] for a in range(p)]
        within_xx = _stacked(within_xx, (p, p, y.shape[1]), xp)
        within_xy = _forward(factor, self.x @ we) - xp.einsum("qpgt,qgt->pt", c_x, c_y)
        within_yy = left - xp.einsum("qgt,qgt->t", c_y, c_y)
        occupied = (self._sums(observed.astype(float)) > 0).sum(axis=0)
        fine = (n > p) & (occupied >= 2) & ~self._saturated(w, n)
        x_factor = xp.einsum("ijt,jk->ikt", factor, self.x_factor)
        beta = solve_upper(x_factor, projection)
        response = within_xy * per, within_yy * per**2, c_y * per
        products = (r, within_xx, c_x, logdet_r, *response, beta, scale, x_factor, n)
        rest = left_within(within_xx, within_xy, within_yy, DIFFERENCE)
        whole = (within_yy > CANCELLATION * left) & (rest > SETTLED * within_yy)
        inexact = ~((share > SHARE).all(axis=0) & whole)
        return Formed(products, finite, fine, inexact, y, root, q_rows)

    def _sums(self, a: Array) -> Array:
        """Sums over the rows of every group: (n, T) → (G, T)."""
        return self.by_group @ a if namespace(a) is np else self.segments.sum(a)

    def _saturated(self, w: Array, n: Array) -> Array:
        """Whether a term has as many random coefficients as there are observations, all of equal weight."""
        xp = namespace(w)
        out = xp.zeros(n.shape, bool)
        for q, codes, by_group in self.terms:
            if xp is not np:
                counts = jax.ops.segment_sum((w > 0).astype(np.int32), codes, by_group.shape[0])
                out = out | _full(w, n, q * (counts > 0).sum(axis=0).astype(n.dtype))
                continue
            close = np.flatnonzero(n <= q * by_group.shape[0])
            if len(close):
                some = w[:, close]
                occupied = ((by_group @ (some > 0).astype(float)) > 0).sum(axis=0)
                out[close] |= _full(some, n[close], q * occupied)
        return out

    def _factor(self, w: Array) -> tuple[Array, Array]:
        """R (p, p, T) of X₀ᵀWX₀ = RᵀR, and the share (p, T) that each column has to itself."""
        xp, p, lanes = namespace(w), len(self.x), w.shape[1]
        gram, share = self.products @ w, []
        zero = xp.zeros(lanes)
        factor: list[list[Array]] = [[zero] * p for _ in range(p)]
        for k, (a, b) in enumerate(self.upper):
            rest = gram[k]
            for above in factor[:a]:
                rest = rest - above[a] * above[b]
            if a == b:
                share.append(rest / xp.where(gram[k] > 0, gram[k], 1.0))
                factor[a][a] = xp.sqrt(xp.where(rest > 0, rest, 1.0))
            else:
                factor[a][b] = rest / factor[a][a]
        return _stacked(factor, (p, p, lanes), xp), xp.stack(share) if p else xp.zeros((0, lanes))

    def _random(self, root: Array) -> tuple[list[Array], Array]:
        """Q as q rows (n, T), and R (q, q, G, T) with Z_i = Q_iR_iᵀ, lower triangular."""
        xp, q = namespace(root), len(self.z)
        columns: list[Array] = []
        zero = xp.zeros((self.groups, root.shape[1]))
        r: list[list[Array]] = [[zero] * q for _ in range(q)]
        for j in range(q):
            v = root * self.z[j][:, None]
            size = self._sums(v * v)
            for _ in range(2):
                for i, column in enumerate(columns):
                    c = self._sums(column * v)
                    v = v - column * c[self.codes]
                    r[j][i] = r[j][i] + c
            rest = self._sums(v * v)
            good = rest > RANK_TOL**2 * size
            length = xp.sqrt(xp.where(good, rest, 1.0))
            r[j][j] = xp.where(good, length, 0.0)
            columns.append(v * xp.where(good, 1.0 / length, 0.0)[self.codes])
        return columns, _stacked(r, (q, q, *zero.shape), xp)


def _full(w: Array, n: Array, coefficients: Array) -> Array:
    """Whether there are as many coefficients (T,) as observations n (T,), and weights w (n, T) are equal."""
    xp = namespace(w)
    least = xp.where(w > 0, w, np.inf).min(axis=0)
    return (coefficients >= n) & (w.max(axis=0) == least)


def _forward(factor: Array, a: Array) -> Array:
    """R⁻ᵀa for upper triangular R (p, p, T) and a (p, ..., T)."""
    rows: list[Array] = []
    for j, row in enumerate(a):
        for i, known in enumerate(rows):
            row = row - factor[i, j] * known
        rows.append(row / factor[j, j])
    return namespace(factor, a).stack(rows) if rows else a


def _stacked(rows: list[list[Array]], shape: tuple[int, ...], xp: Any) -> Array:
    """An array of that shape from its entries."""
    return xp.stack([entry for row in rows for entry in row]).reshape(shape) if rows else xp.zeros(shape)
