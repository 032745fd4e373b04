"""Products of responses that each have weights of their own, missing values among them (weight zero).

With its weights each response has a design of its own, √w X and √w Z, so nothing is shared but the raw
columns. All arrays keep the responses on the last axis; a block of them stays in cache. Products of columns
of X are linear in w, those with y in wy: with X₀ an orthonormal basis of X without weights,

    X₀ᵀWX₀ = RᵀR,    X̃ = √w X₀R⁻¹,    e = y − X₀R⁻¹R⁻ᵀX₀ᵀWy,    V = [X̃ √w e],    C = QᵀV,    S_w = VᵀV − CᵀC,

Q the Gram–Schmidt basis of √w Z within every group. Responses that would lose digits so, because R is nearly
singular or e lies in the columns of Z, take `ownweights_exact`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmjax.design import Basis, Design, Origin, solve_upper
from lmmjax.gram.grouped.expansion import expand_nested
from lmmjax.gram.grouped.own_weights_exact import Raw, dots, exact
from lmmjax.gram.grouped.prepare import CANCELLATION, RANK_TOL
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse
from lmmjax.gram.grouped.settle import SHARE as SETTLED
from lmmjax.gram.grouped.settle import within_fit

BLOCK = 128
"""Responses at a time."""

DIFFERENCE = 1e-12
"""Squares of a column of X within groups, of 1 in all, that count as none if formed by difference."""

SHARE = 1e-4
"""Least share of the squares of a column of √w X₀ that the columns before it may leave."""


class OwnWeights:
    """A grouped design, ready for responses with weights."""

    def __init__(self, design: Design, basis: Basis):
        pairs = zip(design.terms, basis.outward, strict=True)
        z = tuple((term.z @ back).T for term, back in pairs)
        plan = expand_nested(design, z)
        self.order = np.argsort(plan.codes, kind="stable")
        self.codes, self.groups, self.first_columns = (
            plan.codes[self.order],
            plan.n_groups,
            plan.first_columns,
        )
        n = design.n
        self.by_group = sp.csr_array((np.ones(n), (self.codes, np.arange(n))), shape=(self.groups, n))
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
        self.terms: list[tuple[int, Any]] = [
            (term.q, sp.csr_array((np.ones(n), (term.codes[self.order], np.arange(n)))))
            for term in design.terms
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
        joined = [np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)]
        lanes = y.shape[1]
        r, within_xx, c_x, logdet_r, within_xy, within_yy, c_y, beta, scale, x_factor, n, finite, fine = (
            joined
        )
        shared = GroupedProducts(
            r,
            np.ones((self.groups, lanes)),
            within_xx,
            c_x,
            logdet_r,
            self.structure,
            False,
            self.first_columns,
        )
        response = GroupedResponse(within_xy, within_yy, c_y, np.zeros((0, lanes)))
        spread = [tuple(_repeat(b, lanes) for b in side) for side in (self.basis.inward, self.basis.outward)]
        return shared, response, Origin(beta, scale), Basis(x_factor, *spread), n, finite, fine

    def _block(self, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
        w = np.where(np.isnan(y), 0.0, w if self.weights is None else w * self.weights)
        finite = np.isfinite(w).all(axis=0) & (w >= 0).all(axis=0)
        finite &= ~np.isinf(y).any(axis=0)
        if not finite.all():
            y, w = np.where(finite, y, 0.0), np.where(finite, w, 1.0)
        observed, root, p = w > 0, np.sqrt(w), len(self.x)
        n = observed.sum(axis=0).astype(float)
        logdet_r = -np.log(np.where(observed, w, 1.0)).sum(axis=0)
        y = np.where(observed, y if self.offset is None else y - self.offset, 0.0)
        factor, share = self._factor(w)
        projection = _forward(factor, self.x @ (w * y))
        e = y - self.x.T @ solve_upper(factor, projection)
        we = w * e
        left = dots(e, we)
        total = left + dots(projection, projection)
        still = left <= (64 * np.finfo(float).eps) ** 2 * total
        scale = np.where(still, 1.0, np.sqrt(left / np.maximum(n, 1.0)))
        per = np.where(still, 0.0, 1.0 / scale)

        q_rows, r = self._random(root)
        c_x, c_y = [], []
        for q in q_rows:
            weighted = root * q
            raw = [self.by_group @ (weighted * column[:, None]) for column in self.x]
            c_x.append(_forward(factor, np.stack(raw)) if raw else np.zeros((0, self.groups, len(n))))
            c_y.append(self.by_group @ (weighted * e))
        c_x, c_y = np.stack(c_x), np.stack(c_y)
        within_xx = np.zeros((p, p, len(n)))
        for a, b in self.upper:
            within_xx[a, b] = within_xx[b, a] = float(a == b) - np.einsum("qgt,qgt->t", c_x[:, a], c_x[:, b])
        within_xy = _forward(factor, self.x @ we) - np.einsum("qpgt,qgt->pt", c_x, c_y)
        within_yy = left - np.einsum("qgt,qgt->t", c_y, c_y)
        occupied = ((self.by_group @ observed.astype(float)) > 0).sum(axis=0)
        fine = (n > p) & (occupied >= 2) & ~self._saturated(w, n)
        x_factor = np.einsum("ijt,jk->ikt", factor, self.x_factor)
        done: tuple[Any, ...] = (
            r,
            within_xx,
            c_x,
            logdet_r,
            within_xy * per,
            within_yy * per**2,
            c_y * per,
            solve_upper(x_factor, projection),
            scale,
            x_factor,
            n,
            finite,
            fine,
        )
        _, rest, _ = within_fit(within_xx, within_xy, within_yy, DIFFERENCE)
        whole = (within_yy > CANCELLATION * left) & (rest > SETTLED * within_yy)
        inexact = np.flatnonzero(~((share > SHARE).all(axis=0) & whole))
        if len(inexact):
            rows = [q[:, inexact] for q in q_rows]
            again = exact(self.raw, y[:, inexact], root[:, inexact], n[inexact], rows)
            places = (within_xx, c_x, done[4], done[5], done[6], done[7], scale, x_factor)
            *again, independent = again
            for old, better in zip(places, again, strict=True):
                old[..., inexact] = better
            fine[inexact] &= independent
        return done

    def _saturated(self, w: np.ndarray, n: np.ndarray) -> np.ndarray:
        """Whether a term has as many random coefficients as there are observations, all of equal weight."""
        out = np.zeros(len(n), bool)
        for q, by_group in self.terms:
            close = np.flatnonzero(n <= q * by_group.shape[0])
            if len(close):
                some = w[:, close]
                occupied = ((by_group @ (some > 0).astype(float)) > 0).sum(axis=0)
                least = np.where(some > 0, some, np.inf).min(axis=0)
                out[close] |= (occupied * q >= n[close]) & (some.max(axis=0) == least)
        return out

    def _factor(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """R (p, p, T) of X₀ᵀWX₀ = RᵀR, and the share (p, T) that each column has to itself."""
        p, lanes = len(self.x), w.shape[1]
        gram, factor = self.products @ w, np.zeros((p, p, lanes))
        share = np.zeros((p, lanes))
        for (a, b), product in zip(self.upper, gram, strict=True):
            rest = product - dots(factor[:a, a], factor[:a, b])
            if a == b:
                share[a] = rest / np.where(product > 0, product, 1.0)
                factor[a, a] = np.sqrt(np.where(rest > 0, rest, 1.0))
            else:
                factor[a, b] = rest / factor[a, a]
        return factor, share

    def _random(self, root: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Q as q rows (n, T), and R (q, q, G, T) with Z_i = Q_iR_iᵀ, lower triangular."""
        q, lanes = len(self.z), root.shape[1]
        columns: list[np.ndarray] = []
        r = np.zeros((q, q, self.groups, lanes))
        for j in range(q):
            v = root * self.z[j][:, None]
            size = self.by_group @ (v * v)
            for _ in range(2):
                for i, column in enumerate(columns):
                    c = self.by_group @ (column * v)
                    v = v - column * c[self.codes]
                    r[j, i] += c
            rest = self.by_group @ (v * v)
            good = rest > RANK_TOL**2 * size
            length = np.sqrt(np.where(good, rest, 1.0))
            r[j, j] = np.where(good, length, 0.0)
            columns.append(v * np.where(good, 1.0 / length, 0.0)[self.codes])
        return columns, r


def _forward(factor: np.ndarray, a: np.ndarray) -> np.ndarray:
    """R⁻ᵀa for upper triangular R (p, p, T) and a (p, ..., T)."""
    rows: list[np.ndarray] = []
    for j, row in enumerate(a):
        for i, known in enumerate(rows):
            row = row - factor[i, j] * known
        rows.append(row / factor[j, j])
    return np.stack(rows) if rows else a


def _repeat(matrix: np.ndarray, lanes: int) -> np.ndarray:
    return np.repeat(np.asarray(matrix)[..., None], lanes, axis=-1)
