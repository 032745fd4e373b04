"""Products of a grouped design and one response without one part of the rows at a time: a group, or a row.

With y and X in the coordinates of all rows the products are sums over groups, so those without group i are
the sums less its own,

    S_w − (Q_i^⊥W_i)ᵀ(Q_i^⊥W_i),     Σ C_jᵀH_jC_j − C_iᵀH_iC_i,     log|R| − log|R_i|.

Without a row the rest of its group comes back as a group of its own pattern. Where a part holds nearly all
there is of a column or of y the difference loses digits, and `exact` says that it must not be used.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Rows
from lmmjax.gram.grouped.prepare import GroupedPrepared, Segments, bucket, orthogonalise
from lmmjax.gram.grouped.products import GroupedProducts, GroupedResponse

LEFT = 1e-4
"""Least share of a sum of squares that must be left for the difference to keep its digits."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What each of P sets of rows, all of one group, adds to the products; arrays trail with P.

    Attributes
    ----------
    group : (P,) the group that the rows belong to.
    r : (q, q, P) lower triangular; c_x : (q, p, P); c_y : (q, P).
    within_xx : (p, p, P); within_xy : (p, P); within_yy : (P,).
    logdet_r : (P,) −Σ log w; n : (P,) rows.
    """

    group: Array
    r: Array
    c_x: Array
    c_y: Array
    within_xx: Array
    within_xy: Array
    within_yy: Array
    logdet_r: Array
    n: Array

    def squares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """XᵀX (P, p, p), yᵀy (P,) and the diagonal of ZᵀZ (P, q) of the rows."""
        xx = self.within_xx + np.einsum("apg,arg->prg", self.c_x, self.c_x)
        yy = self.within_yy + np.einsum("ag,ag->g", self.c_y, self.c_y)
        return np.moveaxis(xx, -1, 0), yy, np.einsum("abg,abg->ga", self.r, self.r)

    def take(self, part: np.ndarray) -> Pieces:
        """Some of the sets."""
        return Pieces(*(a[..., part] for a in self.arrays()))

    def arrays(self) -> list[Array]:
        """All arrays, in the order of the fields."""
        return [getattr(self, f.name) for f in dataclasses.fields(self)]


def pieces(rows: Rows, z: np.ndarray, y: np.ndarray, group: np.ndarray, segments: Segments) -> Pieces:
    """The pieces of rows sorted by set, as `segments` has them; z (q, n), y (n,), groups of the sets (P,)."""
    q_rows, r = orthogonalise(np, z, segments)
    x = rows.x
    c_x = np.stack([segments.sum((q * x).T).T for q in q_rows])
    c_y = np.stack([segments.sum(q * y) for q in q_rows])
    x_within, y_within = x.copy(), y.copy()
    for q, cx, cy in zip(q_rows, c_x, c_y, strict=True):
        x_within -= q * segments.spread(cx.T).T
        y_within -= q * segments.spread(cy)
    root = rows.root_weight
    return Pieces(
        group,
        np.swapaxes(r, 0, 1),
        c_x,
        c_y,
        np.stack([[segments.sum(a * b) for b in x_within] for a in x_within]).reshape(
            len(x), len(x), segments.groups
        ),
        np.stack([segments.sum(a * y_within) for a in x_within]).reshape(len(x), segments.groups),
        segments.sum(y_within * y_within),
        np.zeros(segments.groups) if root is None else -2.0 * segments.sum(np.log(root)),
        segments.sum(np.ones(x.shape[1])),
    )


class LeaveOut:
    """The products of all rows and those of the parts, for one response.

    Parameters
    ----------
    prepared, rows : the design, every group of which has each column of Z once; its rows in the order of
        `prepared`.
    y : (n,) residuals in the same order, scaled to unit mean square.
    single : leave out rows one at a time; else groups.

    Attributes
    ----------
    part : (n,) by row of the data, the number of the part that it is in.
    exact : (P,) whether the products without the part keep their digits and the model is still estimable.
    """

    def __init__(self, prepared: GroupedPrepared, rows: Rows, y: np.ndarray, single: bool):
        segments = prepared.segments
        z = np.concatenate(rows.z)
        groups = pieces(rows, z, y, np.arange(segments.groups), segments)
        self.prepared = prepared
        self.response = prepared.respond(y, np.ones(()))
        label = np.arange(len(y)) if single else segments.codes
        assert prepared.order is not None
        self.part = np.empty_like(label)
        self.part[prepared.order] = label
        self.back: Pieces | None = None
        out = groups
        if single:
            out = groups.take(segments.codes)
            chosen, owner = _companions(segments)
            inner = rows.take(chosen)
            self.back = pieces(
                inner, z[:, chosen], y[chosen], segments.codes, Segments(owner, len(segments.codes))
            )
        self.out = out
        self.exact = self._exact(groups)

    def _exact(self, groups: Pieces) -> np.ndarray:
        """Shares left of every direction of X, of y, of y within groups, and of every column of Z."""
        xx, yy, zz = (a.sum(axis=0) for a in groups.squares())
        within = self.out.within_yy
        left_x, left_y, left_z = (
            total - a for total, a in zip((xx, yy, zz), self.out.squares(), strict=True)
        )
        n = groups.n.sum() - self.out.n
        occupied = np.sum(groups.n > 0) - np.ones(len(n))
        if self.back is not None:
            own = self.back.squares()
            left_x, left_y, left_z = (a + b for a, b in zip((left_x, left_y, left_z), own, strict=True))
            within = within - self.back.within_yy
            n, occupied = n + self.back.n, occupied + (self.back.n > 0)
        q, p = self.out.c_x.shape[:2]
        fine = (n > p) & (occupied >= 2) & (occupied * q < n) & (left_y > LEFT * yy)
        fine &= np.all(left_z > LEFT * zz, axis=1)
        fine &= groups.within_yy.sum() - within > LEFT * groups.within_yy.sum()
        if p:
            # X̃ᵀX̃ = I over all rows
            fine &= np.linalg.eigvalsh(left_x)[:, 0] > LEFT
        return fine

    def elements(self) -> int:
        """Numbers that the products without one part take."""
        q, p = self.out.c_x.shape[:2]
        return self._patterns() * (
            q * (q + 1) // 2 * (p + 1) ** 2 if self.prepared.compressed else q * (p + q)
        )

    def _patterns(self) -> int:
        return bucket(self.prepared.k + (self.back is not None))

    def __call__(self, part: np.ndarray) -> tuple[GroupedProducts, GroupedResponse, np.ndarray]:
        """Products without the parts `part` (T,), whose arrays trail with T, and the rows left (T,)."""
        return self.formed(self.out.take(part), None if self.back is None else self.back.take(part))

    def formed(self, out: Pieces, back: Pieces | None) -> tuple[GroupedProducts, GroupedResponse, Array]:
        """The products of all rows less those of `out`, with those of `back`; NumPy's or traced."""
        xp, shared, response = namespace(out.n), self.prepared.shared, self.response
        compressed, lanes, k = self.prepared.compressed, len(out.n), self.prepared.k
        at = xp.asarray(self._pattern())[out.group]
        r = _spread(xp, shared.r[..., :k], self._patterns(), lanes, 2)
        count = _spread(xp, shared.count[:k], self._patterns(), lanes, 0)
        every = np.arange(lanes)
        count = _added(count, (at, every), -1.0)
        if compressed:
            between = [
                _spread(xp, a[:, :k], self._patterns(), lanes, 1)
                for a in (shared.between_xx, response.between_xy, response.between_yy)
            ]
            between = [
                _added(total, (slice(None), at, ..., every), -xp.moveaxis(own, -1, 0))
                for total, own in zip(between, _products(xp, out), strict=True)
            ]
        else:
            between = [
                _spread(xp, shared.between_xx[..., :k], self._patterns(), lanes, 2),
                _spread(xp, response.between_xy[:, :k], self._patterns(), lanes, 1),
                xp.zeros((0, lanes)),
            ]
            between[0] = _set(between[0], (slice(None), slice(None), at, every), 0.0)
            between[1] = _set(between[1], (slice(None), at, every), 0.0)
            r = _set(r, (slice(None), slice(None), at, every), 0.0)
        within = [
            xp.asarray(total)[..., None] - own
            for total, own in (
                (shared.within_xx, out.within_xx),
                (response.within_xy, out.within_xy),
                (response.within_yy, out.within_yy),
                (shared.logdet_r, out.logdet_r),
                (float(len(self.part)), out.n),
            )
        ]
        if back is not None:
            own = (back.within_xx, back.within_xy, back.within_yy, back.logdet_r, back.n)
            within = [a + b for a, b in zip(within, own, strict=True)]
            r, count = _set(r, (slice(None), slice(None), k), back.r), _set(count, (k,), 1.0)
            if compressed:
                pairs = zip(between, _products(xp, back), strict=True)
                between = [_set(total, (slice(None), k), mine) for total, mine in pairs]
            else:
                between[0] = _set(between[0], (slice(None), slice(None), k), back.c_x)
                between[1] = _set(between[1], (slice(None), k), back.c_y)
        products = dataclasses.replace(
            shared,
            r=r,
            count=count,
            within_xx=within[0],
            between_xx=between[0],
            logdet_r=within[3],
        )
        return products, GroupedResponse(within[1], within[2], between[1], between[2]), within[4]

    def _pattern(self) -> np.ndarray:
        """The pattern of each group (G,)."""
        if not self.prepared.compressed:
            return np.arange(self.prepared.k)
        return np.repeat(np.arange(self.prepared.k), np.diff(self.prepared.bounds))


def _products(xp: Any, own: Pieces) -> tuple[Array, Array, Array]:
    """Between-group products of the pieces as compressed products have them, trailing with P."""
    xx, xy, yy = [], [], []
    for a in range(len(own.c_x)):
        for b in range(a, len(own.c_x)):
            one = own.c_x[a][:, None] * own.c_x[b][None]
            cross = own.c_x[a] * own.c_y[b][None]
            both = own.c_y[a] * own.c_y[b]
            xx.append(one if a == b else one + xp.swapaxes(one, 0, 1))
            xy.append(cross if a == b else cross + own.c_x[b] * own.c_y[a][None])
            yy.append(both if a == b else 2.0 * both)
    return xp.stack(xx), xp.stack(xy), xp.stack(yy)


def _spread(xp: Any, a: Array, length: int, lanes: int, axis: int) -> Array:
    """A copy for every lane, on the last axis, padded with zeros to `length` along `axis`."""
    shape = (*a.shape[:axis], length, *a.shape[axis + 1 :], lanes)
    at = (slice(None),) * axis + (slice(a.shape[axis]),)
    return _set(xp.zeros(shape), at, xp.asarray(a)[..., None])


def _set(a: Array, at: tuple, values: Any) -> Array:
    """An array of the caller's own with other values at some places: of NumPy, itself."""
    if namespace(a) is not np:
        return a.at[at].set(values)
    a[at] = values
    return a


def _added(a: Array, at: tuple, values: Any) -> Array:
    """`_set` of a sum, at places that are there once."""
    if namespace(a) is not np:
        return a.at[at].add(values)
    a[at] += values
    return a


def _companions(segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """For every row in turn the other rows of its group: (their numbers, the row they are companions of)."""
    size = np.bincount(segments.codes, minlength=segments.groups)
    start = np.cumsum(size) - size
    own = size[segments.codes]
    owner = np.repeat(np.arange(len(own)), own)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(own) - own, own) + start[segments.codes][owner]
    other = number != owner
    return number[other], owner[other]
