"""Families of responses that each have weights of their own, missing values among them (weight zero).

A row of weight zero has no part in H and nothing in W, as places of a stack without a row. The coordinates
of X are those of all rows: with A = X̃ᵀWX̃ of a response β₀ = A⁻¹X̃ᵀWy is taken off. Where weights are 0 and 1,
families with the same V and the same rows are one pattern, whatever the response.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.design import Basis, Design, Origin, Rows, solve_upper
from lmmjax.design.kernels import CLEAR
from lmmjax.gram.families.layout import between_rows
from lmmjax.gram.families.patterns import Summed, pay
from lmmjax.gram.families.prepare import FamiliesPrepared
from lmmjax.gram.families.products import FamilyProducts, FamilyResponse, Part
from lmmjax.gram.families.small import PatternResponse, Patterns, SmallResponse

DETERMINED = 1e-8
"""Smallest eigenvalue of A, of 1 with all rows, from which on rows determine β."""

NUMBERS = 1 << 22
"""Numbers of rows, responses and columns of X that are looked at at a time."""

LARGER = 2
"""Times as many patterns as of complete families may be."""


class OwnFamilies:
    """A design of families, ready for responses with weights of their own."""

    def __init__(self, design: Design, rows: Rows, basis: Basis, prepared: FamiliesPrepared):
        self.design, self.rows, self.basis, self.prepared = design, rows, basis, prepared
        self.apart: FamiliesPrepared | None = None
        self.covariances: list[Any] | None = None
        self.x = np.asarray(rows.x)

    @property
    def structure(self):
        return self.design.structure

    @property
    def known(self) -> float | None:
        return self.design.known

    def __call__(
        self, y: np.ndarray, w: np.ndarray
    ) -> tuple[FamilyProducts, FamilyResponse, Origin, Basis, np.ndarray, np.ndarray, np.ndarray]:
        """Products of responses y (n, T) with weights w (n, T), as of `grouped.own_weights.OwnWeights`."""
        bad = np.any(~np.isfinite(w) & ~np.isnan(y), axis=0)
        present = ~np.isnan(y) & (w > 0) & ~bad
        w, y = np.where(present, w, 0.0), np.where(present, y, 0.0)
        finite = np.isfinite(np.sum(w * y * y, axis=0))
        y = np.where(finite, y, 0.0)
        root = np.sqrt(w)
        residual, origin, factor, estimable = self._standardised(y, root, present)
        weights = np.where(present, w, 1.0)
        if self.rows.root_weight is not None:
            weights = np.where(present, weights * self.rows.root_weight[:, None] ** 2, 1.0)
        logdet = -np.sum(np.log(weights), axis=0)
        whole = ((w == 0) | (w == 1)).all()
        y = residual * factor
        shared, parts = self._gaps(y, present) if whole else self._weighted(y, root)
        n = present.sum(axis=0).astype(float)
        return shared, FamilyResponse(parts, logdet), origin, self.basis, n, finite, estimable & ~bad

    def _standardised(
        self, y: np.ndarray, root: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, Origin, np.ndarray, np.ndarray]:
        """√w(y − Xβ₀) (n, T), their origin and factor (T,), and which responses determine all (T,)."""
        offset, own = self.rows.offset, self.rows.root_weight
        y = y if offset is None else y - offset[:, None]
        y = (y if own is None else y * own[:, None]) * root
        p, lanes = len(self.x), y.shape[1]
        a = np.empty((lanes, p, p))
        for i in range(p):
            for j in range(i + 1):
                a[:, i, j] = a[:, j, i] = (self.x[i] * self.x[j]) @ (root * root)
        fine = present.sum(axis=0) > p + 1
        if p:
            fine &= np.linalg.eigvalsh(a)[:, 0] > DETERMINED
            a[~fine] = np.eye(p)
        for term in self.design.terms:
            if term.kernel is None:
                fine &= np.array([self._repeats(term.codes, term.q, rows) for rows in present.T])
        for k in self._kernels():
            fine &= self._differs(k, root, a)
        beta, residual = np.zeros((p, lanes)), y
        for _ in range(2):
            step = np.linalg.solve(a, (self.x @ (residual * root)).T[..., None])[..., 0].T
            beta, residual = beta + step, residual - root * (self.x.T @ step)
        left, taken = np.sum(residual**2, axis=0), np.sum(y**2, axis=0)
        exact = left <= (64 * np.finfo(float).eps) ** 2 * taken
        scale = np.where(exact, 1.0, np.sqrt(left / np.maximum(present.sum(axis=0), 1)))
        origin = Origin(solve_upper(self.basis.x_factor, beta), scale)
        return residual, origin, np.where(exact, 0.0, 1.0 / scale), fine & ~exact

    @staticmethod
    def _repeats(codes: np.ndarray, q: int, rows: np.ndarray) -> bool:
        """Whether the rows are more than q for every level that they have, and there are two levels."""
        occupied = np.count_nonzero(np.bincount(codes[rows]))
        return bool(occupied > 1 and occupied * q < np.count_nonzero(rows))

    def _kernels(self) -> list[Any]:
        """W = ZKZᵀ of terms of one column with a kernel, sparse (n, n)."""
        if self.covariances is None:
            own: list[Any] = []
            for term, z in zip(self.design.terms, self.rows.z, strict=True):
                if term.kernel is not None and term.q == 1:
                    values = np.asarray(z)[0]
                    entries = between_rows(term).tocsr()
                    own.append(entries.multiply(values[:, None]).multiply(values).tocsr())
            self.covariances = own
        return self.covariances

    def _differs(self, k: Any, root: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Whether W (n, n), beside X, is neither nothing nor a multiple of I on the rows of responses (T,).

        As `design.kernels.is_plain`, for all √w (n, T) with A = X̃ᵀX̃ (T, p, p): with S = X̃ᵀWX̃,
        |PWP|² = |W|² − 2 tr A⁻¹X̃ᵀW²X̃ + tr (A⁻¹S)² and tr PWP = tr W − tr A⁻¹S.
        """
        (p, n), lanes = self.x.shape, root.shape[1]
        out, squares, diagonal = np.empty(lanes, bool), k.power(2), k.diagonal()
        step = max(1, NUMBERS // ((p + 4) * n))
        for first in range(0, lanes, step):
            at = slice(first, first + step)
            own, rows = a[at], root[:, at]
            # weights up to their largest, which has no say and may be beyond squaring
            scaled = rows / np.maximum(rows.max(axis=0), np.finfo(float).tiny)
            left = np.count_nonzero(rows, axis=0) - p
            w, x = scaled**2, self.x[..., None] * rows
            half = np.stack([scaled * (k @ (scaled * column)) for column in x]) if p else x
            with np.errstate(over="ignore", invalid="ignore"):
                across = np.linalg.solve(own, np.einsum("int,jnt->tij", x, half))
                seen = np.linalg.solve(own, np.einsum("int,jnt->tij", half, half))
                size, trace = np.sum(w * (squares @ w), axis=0), diagonal @ w - np.einsum("tii->t", across)
                square = size - 2.0 * np.einsum("tii->t", seen) + np.einsum("tij,tji->t", across, across)
                apart = square - trace**2 / np.maximum(left, 1) > CLEAR * square
                out[at] = (square > CLEAR * size) & (apart | (self.known is not None))
        return out

    def _weighted(self, y: np.ndarray, root: np.ndarray) -> tuple[FamilyProducts, tuple]:
        """Families apart, with weights on rows."""
        apart = self._apart()
        stacks = zip(apart.stacks_of(y), apart.stacks_of(root), strict=True)
        return apart.shared, tuple(SmallResponse(*own) for own in stacks)

    def _apart(self) -> FamiliesPrepared:
        if self.apart is None:
            self.apart = FamiliesPrepared(self.design, self.rows, by_pattern=False)
        return self.apart

    def _gaps(self, y: np.ndarray, present: np.ndarray) -> tuple[FamilyProducts, tuple]:
        """Families by pattern where they are, of the rows that each response has."""
        prepared = self.prepared
        parts: list[Part] = []
        own: list[SmallResponse | PatternResponse] = []
        pairs = zip(prepared.stacks_of(y), prepared.stacks_of(present.astype(float)), strict=True)
        for part, summed, (values, rows) in zip(prepared.shared.parts, prepared.summed, pairs, strict=True):
            if summed is None:
                parts.append(part)
                own.append(SmallResponse(values, rows))
                continue
            found = _by_rows(summed, values, rows > 0)
            made, response = found or (self._apart().shared.parts[len(parts)], SmallResponse(values, rows))
            parts.append(made)
            own.append(response)
        return dataclasses.replace(prepared.shared, parts=tuple(parts)), tuple(own)


def _by_rows(summed: Summed, y: np.ndarray, rows: np.ndarray) -> tuple[Patterns, PatternResponse] | None:
    """Patterns of families of which some rows (s, B, T) are there, and what responses (s, B, T) have there.

    None if these are too many.
    """
    s, b, lanes = y.shape
    p = len(summed.x)
    keys = (summed.code[:, None].astype(np.int64) << s) + np.tensordot(1 << np.arange(s), rows, axes=1)
    known, code = np.unique(keys, return_inverse=True)
    # few sizes, few programs: patterns that no family has fill up
    total = 1 << (len(known) - 1).bit_length()
    known = np.concatenate([known, np.full(total - len(known), known[0])])
    if not pay(total, s, p, LARGER * b):
        return None
    place = (code.reshape(b, lanes) * lanes + np.arange(lanes)).ravel()
    there = (((known & ((1 << s) - 1)) >> np.arange(s)[:, None]) & 1).astype(float)
    both = there[:, None] * there[None]

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values.ravel(), total * lanes).reshape(total, lanes)

    xx, xy = np.empty((p, p, s, s, total, lanes)), np.empty((p, s, s, total, lanes))
    yy = np.empty((s, s, total, lanes))
    for t, u in np.ndindex(s, s):
        yy[t, u] = sums(y[t] * y[u])
        for i, x in enumerate(summed.x):
            xy[i, t, u] = sums(x[t][:, None] * y[u])
            for j in range(p):
                own = np.broadcast_to((x[t] * summed.x[j, u])[:, None], (b, lanes))
                xx[i, j, t, u] = sums(own)
    xx, xy = (0.5 * both[..., None] * (a + np.swapaxes(a, -4, -3)) for a in (xx, xy))
    v = summed.part.v[..., known >> s] * both
    count = sums(np.ones((b, lanes)))
    return Patterns(v, np.zeros(total), np.zeros((p, p, s, s, 0))), PatternResponse(xy, yy, count, xx)
