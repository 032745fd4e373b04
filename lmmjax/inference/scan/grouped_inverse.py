"""V⁻¹ of many responses with one grouped design, in the products of the grouped backend.

Rows times √w, group i with Z_i = Q_iR_iᵀ, and H_i = (I + R_iᵀDR_i)⁻¹ at the D of a response:

    σ²V⁻¹ = I − Q(I − H)Qᵀ,        σ²gᵀV⁻¹g = gᵀ(I − QQᵀ)g + Σ C_iᵀH_iC_i,      C_i = Q_iᵀg_i.

The products of C are the same for all responses, and those of a pattern of groups enter as their sum: one
product of matrices gives all forms of all responses. With J = RH the derivatives have J ᵀĊ_jJ in the place of
H, and for σ² its square.
"""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import sweep
from lmmjax.core import ProblemMaker
from lmmjax.design import Structure
from lmmjax.gram.curved import CurvedPrepared
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.inference.scan.covariance_slopes import CovarianceSlopes
from lmmjax.inference.scan.inverses import Features, Inverse


class GroupedRows:
    """The rows of a grouped design with independent residuals, as the backend has them.

    Parameters
    ----------
    maker : of such a design: `is_grouped`.
    """

    def __init__(self, maker: ProblemMaker):
        prepared = _prepared(maker)
        assert prepared is not None
        self.prepared, self.design, self.basis = prepared, maker.design, maker.basis
        n = self.design.n
        self.order = np.arange(n) if prepared.order is None else prepared.order
        self.back = np.argsort(self.order)
        weights = np.ones(n) if self.design.weights is None else np.asarray(self.design.weights)
        self.root = np.sqrt(weights)[self.order][:, None]
        self.r = np.asarray(prepared.shared.r)[:, :, : prepared.k]
        self.bounds = prepared.bounds if prepared.compressed else None
        # pattern of every group
        self.pattern = None if self.bounds is None else np.repeat(np.arange(prepared.k), np.diff(self.bounds))

    def inside(self, v: np.ndarray) -> np.ndarray:
        """Qᵀv (q, G, ...) of weighted rows in order (n, ...)."""
        return np.stack([column.sum(v) for column in self.prepared.columns])

    def features(self, g: np.ndarray) -> Features:
        """Products of candidates g (n, k, M)."""
        rows = g[self.order] * self.root[:, :, None]
        c = self.inside(rows)
        left = rows - self.prepared.between(c)
        pairs = c[:, None, :, :, None] * c[None, :, :, None]
        if self.bounds is not None:
            pairs = np.add.reduceat(pairs, self.bounds[:-1], axis=2)
        q = len(c)
        flat = pairs.reshape(q * q * pairs.shape[2], -1)
        return Features(g, flat, np.einsum("nam,nbm->abm", left, left))

    def placed(self, matrices: list[np.ndarray]) -> np.ndarray:
        """(t, ..., q, q) in the columns of a group, from matrices of the terms in the user's coordinates."""
        size = self.r.shape[0]
        out = np.zeros((*np.broadcast_shapes(*(m.shape[:-2] for m in matrices)), size, size))
        places = self.prepared.shared._first_columns()
        for term, own, b, copies in zip(self.design.terms, matrices, self.basis.inward, places, strict=False):
            inner = np.asarray(b) @ own @ np.asarray(b).T
            for first in copies:
                block = slice(first, first + term.q)
                out[..., block, block] = inner
        return out


def is_grouped(maker: ProblemMaker) -> bool:
    """Whether a maker's rows are those of the grouped backend, with independent residuals and no kernel."""
    plain = maker.design.residual is None and all(t.kernel is None for t in maker.design.terms)
    return plain and _prepared(maker) is not None


def _prepared(maker: ProblemMaker) -> GroupedPrepared | None:
    prepared = maker.prepared
    inner = prepared.inner if isinstance(prepared, CurvedPrepared) else prepared
    return inner if isinstance(inner, GroupedPrepared) else None


class GroupedInverse(Inverse):
    """V⁻¹ of t responses at ψ (t, m + 1)."""

    def __init__(self, rows: GroupedRows, psi: np.ndarray):
        self.rows, self.sigma2 = rows, psi[:, -1]
        self.slopes = CovarianceSlopes(rows.design, psi)
        # (q, q, t, K)
        r = rows.r[:, :, None, :]
        big = rows.placed(relative_covariances(rows.design.structure, psi))
        inner = _matmul(np.swapaxes(r, 0, 1), _matmul(np.moveaxis(big, 0, -1)[..., None], r))
        self.h = sweep(np.eye(r.shape[1])[:, :, None, None] + inner)[1]
        self.j = _matmul(np.broadcast_to(r, (*r.shape[:2], *self.h.shape[2:])), self.h)
        # Ċ_j (m + 1, q, q, t)
        moved = rows.placed(self.slopes.terms)
        moved = np.moveaxis(np.broadcast_to(moved, (len(psi), *moved.shape[1:])), 0, -1)
        self.moved = moved

    def _solved(self, v: np.ndarray) -> np.ndarray:
        """V_t⁻¹ (n, t, r) of weighted rows in order, again in order and weighted."""
        rows = self.rows
        c = rows.inside(v)
        h = self.h if rows.pattern is None else self.h[..., rows.pattern]
        left = c - np.einsum("abtg,bgtr->agtr", h, c, optimize=True)
        return (v - rows.prepared.between(left)) / self.sigma2[None, :, None]

    def apply(self, a: np.ndarray) -> np.ndarray:
        rows = a[self.rows.order] * self.rows.root
        return self._placed(self._solved(np.repeat(rows[:, None], len(self.sigma2), axis=1)))

    def own(self, a: np.ndarray) -> np.ndarray:
        return self._placed(self._solved(np.moveaxis(a, 0, 1)[self.rows.order] * self.rows.root[:, :, None]))

    def _placed(self, v: np.ndarray) -> np.ndarray:
        return np.moveaxis((v * self.rows.root[:, :, None])[self.rows.back], 1, 0)

    def forms(self, found: Features, slopes: bool) -> tuple[np.ndarray, np.ndarray]:
        assert found.pairs is not None
        assert found.within is not None
        k, count = found.g.shape[1:]
        t, s = len(self.sigma2), self.sigma2[:, None, None, None]
        within = np.moveaxis(found.within, -1, 0)

        def contracted(weights: np.ndarray) -> np.ndarray:
            """Σ weights (q, q, t, K) × the products: (t, M, k, k)."""
            own = np.moveaxis(weights, 2, 0).reshape(t, -1) @ found.pairs
            return np.moveaxis(own.reshape(t, k, k, count), -1, 1)

        value = (within + contracted(self.h)) / s
        if not slopes:
            return value, np.zeros((t, count, 0, k, k))
        out = []
        for j, e in enumerate(self.moved):
            part = np.zeros((t, count, k, k))
            if np.any(e):
                weights = _matmul(np.swapaxes(self.j, 0, 1), _matmul(e[..., None], self.j))
                part = part + contracted(weights)
            if j == len(self.moved) - 1 and self.rows.design.known is None:
                part = part + within + contracted(_matmul(self.h, self.h))
            out.append(part / s**2)
        return value, np.stack(out, axis=2)


def relative_covariances(structure: Structure, psi: np.ndarray) -> list[np.ndarray]:
    """Per term D (t, q, q) of responses at ψ (t, m + 1)."""
    d, out = np.asarray(structure.relative(psi)), []
    for term, s in zip(structure.terms, structure.slices(), strict=True):
        if term.family.linear:
            out.append(np.tensordot(d[:, s], term.units, axes=1))
        else:
            out.append(np.stack([np.asarray(term.family.matrix(row[s], term.q)) for row in d]))
    return out


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of (p, q, ...) and (q, r, ...)."""
    return np.sum([a[:, j, None] * b[None, j] for j in range(a.shape[1])], axis=0)
