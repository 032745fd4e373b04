"""Fits of many pairs of a response and columns that are added to X for it: as many designs as pairs.

Beside X̃, the orthonormal columns of X, a pair has ĝ, its own columns g made orthonormal to X̃ and each other.
Products of X̃ and Z are shared, those with ĝ are formed for all pairs at once, responses on the last axis;
the pairs are lanes of the batch engine, each with a design of its own. Designs that lanes cannot be made of
are fitted one after the other.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations_with_replacement

import jax
import numpy as np

from lmmjax.batch.device import fit_blocks
from lmmjax.batch.outcome import Outcome, failed, outcome
from lmmjax.batch.starts import Starts
from lmmjax.core import Problem, ProblemMaker, descents
from lmmjax.design import Basis, Origin, solve_upper
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse

DEPENDENT = 1e-9
"""Length that X and the columns before it must leave of a column, of 1."""

FEW = 24
"""Pairs up to which single fits, whose program there is already, are faster than lanes."""

WIDEST = 12
"""Columns of X and candidates together up to which lanes are faster than single fits."""

MOST = 100
"""Evaluations of a descent."""


def fit_added(maker: ProblemMaker, y: np.ndarray, g: np.ndarray, reml: bool) -> Outcome:
    """Fits of y (n, Q) with the columns g (n, k, Q) after those of X; arrays of the result lead with Q.

    Pairs whose columns depend on X or on each other have `Status.NOT_ESTIMABLE`.
    """
    design, k = maker.design, g.shape[1]
    fine = np.flatnonzero(_independent(maker, g))
    total, p = y.shape[1], design.p + k
    reason = "not estimable: the fixed effects determine the candidate"
    found = failed(total, p, design.structure.n_params, reason)
    if len(fine):
        fit = _lanes if _maps(maker, k) and len(fine) > FEW else _one_by_one
        found.put(fine, fit(maker, y[:, fine], g[:, :, fine], reml))
    return found


def _maps(maker: ProblemMaker, k: int) -> bool:
    prepared = maker.prepared
    return (
        isinstance(prepared, GroupedPrepared)
        and maker.design.p + k <= WIDEST
        and not (prepared.shared.wide or (prepared.shared.tied and not prepared.compressed))
    )


def _one_by_one(maker: ProblemMaker, y: np.ndarray, g: np.ndarray, reml: bool) -> Outcome:
    results = []
    for q in range(y.shape[1]):
        design = dataclasses.replace(maker.design, x=np.column_stack([maker.design.x, g[:, :, q]]))
        own = ProblemMaker(design, maker.backend)
        with jax.enable_x64(True), np.errstate(all="ignore"):
            results.append(descents(own(y[:, q], reml), Starts().outside(own, own=False), max_iter=MOST))
    found = jax.tree.map(lambda *arrays: np.stack(arrays), *(result for result, _ in results))
    return outcome(found, np.array([count for _, count in results]))


def _lanes(maker: ProblemMaker, y: np.ndarray, g: np.ndarray, reml: bool) -> Outcome:
    made, total = AddedColumns(maker), y.shape[1]

    def block(part: slice) -> Problem:
        return made.problem(y[:, part], g[:, :, part], reml)

    patterns = made.prepared.k + made.prepared.padding
    width = (maker.design.p + g.shape[1] + 1) ** 2 * patterns
    vector = max(maker.prepared.shared.vector, width)
    starts = Starts().inside(maker, own=False)
    return outcome(*fit_blocks(total, vector, block, MOST, starts))


def _independent(maker: ProblemMaker, g: np.ndarray) -> np.ndarray:
    """(Q,) whether columns (n, k, Q) add to X and to each other."""
    rows = maker.rows
    order = slice(None) if maker.prepared.order is None else maker.prepared.order
    g = g[order] if rows.root_weight is None else g[order] * np.asarray(rows.root_weight)[:, None, None]
    factor = orthonormal(np.asarray(rows.x), g)[1]
    p = len(rows.x)
    own = np.stack([factor[p + j, j] for j in range(g.shape[1])])
    return np.all(own > DEPENDENT * np.sqrt(np.einsum("nkq,nkq->kq", g, g)), axis=0)


class AddedColumns:
    """A grouped design, ready for pairs of a response and columns."""

    def __init__(self, maker: ProblemMaker):
        prepared = maker.prepared
        assert isinstance(prepared, GroupedPrepared)
        self.maker, self.prepared, self.rows = maker, prepared, maker.rows
        self.order = np.arange(maker.design.n) if prepared.order is None else prepared.order

    def problem(self, y: np.ndarray, g: np.ndarray, reml: bool) -> Problem:
        """The problem of y (n, Q) with g (n, k, Q) added to X; all arrays trail with Q."""
        rows, x = self.rows, np.asarray(self.rows.x)
        y, g = y[self.order], g[self.order]
        if rows.offset is not None:
            y = y - np.asarray(rows.offset)[:, None]
        if rows.root_weight is not None:
            root = np.asarray(rows.root_weight)[:, None]
            y, g = y * root, g * root[:, None]
        unit, added = orthonormal(x, g)
        p, (k, lanes) = len(x), g.shape[1:]
        left, projection = y, np.zeros((p + k, lanes))
        for _ in range(2):
            own = np.concatenate([x @ left, np.einsum("nkq,nq->kq", unit, left)])
            left = left - x.T @ own[:p] - np.einsum("nkq,kq->nq", unit, own[p:])
            projection += own
        squares = np.einsum("nq,nq->q", left, left)
        exact = squares <= (64 * np.finfo(float).eps) ** 2 * (squares + np.sum(projection**2, axis=0))
        scale = np.where(exact, 1.0, np.sqrt(squares / len(y)))
        left = left * np.where(exact, 0.0, 1.0 / scale)
        factor = np.zeros((p + k, p + k, lanes))
        factor[:p, :p] = np.asarray(self.maker.basis.x_factor)[:, :, None]
        factor[:, p:] = added
        shared, response = self._products(unit, left)
        basis = self.maker.basis
        spread = [tuple(_repeat(b, lanes) for b in side) for side in (basis.inward, basis.outward)]
        known = self.maker.design.known
        return Problem(
            shared,
            response,
            Origin(solve_upper(factor, projection), scale),
            Basis(factor, *spread),
            np.full(lanes, float(len(y))),
            np.asarray(float(reml)),
            self.maker.design.structure,
            None if known is None else np.asarray(float(known)),
        )

    def _products(self, g: np.ndarray, y: np.ndarray) -> tuple[GroupedProducts, GroupedResponse]:
        """Of orthonormal g (n, k, Q) and y (n, Q) with X, Z and each other."""
        prepared, shared = self.prepared, self.prepared.shared
        k, lanes = g.shape[1:]
        c_g = np.stack([column.sum(g) for column in prepared.columns])
        c_y = np.stack([column.sum(y) for column in prepared.columns])
        g_in, y_in = g - prepared.between(c_g), y - prepared.between(c_y)
        x_in, p = prepared.x_within, len(prepared.x_within)
        within_xx = np.zeros((p + k, p + k, lanes))
        within_xx[:p, :p] = np.asarray(shared.within_xx)[:, :, None]
        within_xx[:p, p:] = np.tensordot(x_in, g_in, axes=1)
        within_xx[p:, :p] = np.swapaxes(within_xx[:p, p:], 0, 1)
        within_xx[p:, p:] = np.einsum("naq,nbq->abq", g_in, g_in)
        within_xy = np.concatenate([x_in @ y_in, np.einsum("nkq,nq->kq", g_in, y_in)])
        within_yy = np.einsum("nq,nq->q", y_in, y_in)
        if prepared.compressed:
            between_xx, between_xy, between_yy = self._patterns(c_g, c_y)
        else:
            c_x = np.broadcast_to(prepared.c_x[..., None], (*prepared.c_x.shape, lanes))
            between_xx = prepared.pad(np.concatenate([c_x, np.moveaxis(c_g, 2, 1)], axis=1), 2)
            between_xy, between_yy = prepared.pad(c_y, 1), np.zeros((0, lanes))
        own = dataclasses.replace(
            shared,
            r=_repeat(shared.r, lanes),
            count=_repeat(shared.count, lanes),
            within_xx=within_xx,
            between_xx=between_xx,
            logdet_r=np.full(lanes, float(shared.logdet_r)),
            members=(),
        )
        return own, GroupedResponse(within_xy, within_yy, between_xy, between_yy)

    def _patterns(self, c_g: np.ndarray, c_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Products between groups, a sum for each pattern, as the compressed products keep them."""
        prepared, (k, lanes) = self.prepared, c_g.shape[2:]
        p, starts = prepared.c_x.shape[1], prepared.bounds[:-1]

        def sums(a: np.ndarray) -> np.ndarray:
            """Σ (K, ..., Q) over the groups of each pattern."""
            return np.add.reduceat(a, starts, axis=0)

        def crossed(a: int, b: int, one: np.ndarray, two: np.ndarray) -> np.ndarray:
            """Σ one_aᵀtwo_b (K, r, s, Q) for one (q, G, r, Q or 1) and two (q, G, s, Q)."""
            return sums(one[a][:, :, None] * two[b][:, None])

        c_x = np.swapaxes(prepared.c_x, 1, 2)[..., None]
        xx, xy, yy = [], [], []
        whole = np.asarray(prepared.shared.between_xx)[:, : prepared.k]
        for pair, (a, b) in enumerate(combinations_with_replacement(range(prepared.q), 2)):
            block = np.zeros((prepared.k, p + k, p + k, lanes))
            block[:, :p, :p] = whole[pair][..., None]
            edge, corner = crossed(a, b, c_x, c_g), crossed(a, b, c_g, c_g)
            cross = np.concatenate([c_x[a] * c_y[b][:, None], c_g[a] * c_y[b][:, None]], axis=1)
            square = c_y[a] * c_y[b]
            if a != b:
                edge = edge + crossed(b, a, c_x, c_g)
                corner = corner + np.swapaxes(corner, 1, 2)
                cross = cross + np.concatenate([c_x[b] * c_y[a][:, None], c_g[b] * c_y[a][:, None]], axis=1)
                square = 2.0 * square
            block[:, :p, p:] = edge
            block[:, p:, :p] = np.swapaxes(edge, 1, 2)
            block[:, p:, p:] = corner
            xx.append(block)
            xy.append(sums(cross))
            yy.append(sums(square))
        padded = (prepared.pad(np.stack(one), 1) for one in (xx, xy, yy))
        return tuple(padded)  # type: ignore[return-value]


def orthonormal(x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns ĝ (n, k, Q) orthonormal to the rows of x (p, n) and to each other, and R (p + k, k, Q).

    g = [xᵀ ĝ]R, by Gram–Schmidt done twice; a column that depends on those before it is zero.
    """
    p, (k, lanes) = len(x), g.shape[1:]
    out, factor = np.zeros(g.shape), np.zeros((p + k, k, lanes))
    for j in range(k):
        v = g[:, j]
        for _ in range(2):
            on_x = x @ v
            v = v - x.T @ on_x
            factor[:p, j] += on_x
            for i in range(j):
                c = np.einsum("nq,nq->q", out[:, i], v)
                v = v - c * out[:, i]
                factor[p + i, j] += c
        length = np.sqrt(np.einsum("nq,nq->q", v, v))
        factor[p + j, j] = length
        out[:, j] = v / np.where(length > 0, length, 1.0)
    return out, factor


def _repeat(matrix: np.ndarray, lanes: int) -> np.ndarray:
    return np.repeat(np.asarray(matrix)[..., None], lanes, axis=-1)
