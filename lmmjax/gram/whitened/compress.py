"""Groups on a schedule, gathered by pattern: from rows to the few that hold all of X, and sums of squares.

In a pattern of g groups the columns of X at U occasions are vectors (g,), often few different ones: of a
factor between groups and a covariate, at every occasion the same. With an orthonormal basis Q of them, QᵀX
has as many rows of occasions as Q has columns, and what Q leaves of y enters by its sums of squares.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import ResidualDesign
from lmmjax.gram.grouped.prepare import bucket
from lmmjax.gram.whitened.blocks import WhitenedResponse
from lmmjax.gram.whitened.patterns import Patterns, rounded, stationary
from lmmjax.gram.whitened.schedule import ScheduleProducts, operations

MOST = 256
"""Most occasions of a schedule."""

NOTHING = 1e-13
"""Length of what is left of a column of X, of length 1 over all rows, that counts as none."""

GREEDY = 32
"""Columns of a basis that are looked for one by one."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The occasions of rows sorted by group, and the patterns of groups.

    Attributes
    ----------
    occasions, mask : as in `ScheduleProducts`, (L, U) and (L, K, U).
    rows : (g, U) the row of each group at each occasion, n where there is none.
    sheet, pattern : (g,) of each group.
    """

    occasions: Patterns
    mask: np.ndarray
    rows: np.ndarray
    sheet: np.ndarray
    pattern: np.ndarray

    def members(self) -> list[tuple[int, int, np.ndarray]]:
        """Sheet, pattern and its groups."""
        code = self.sheet * self.mask.shape[1] + self.pattern
        order = np.argsort(code, kind="stable")
        ends = np.flatnonzero(np.diff(code[order])) + 1
        return [(int(self.sheet[g[0]]), int(self.pattern[g[0]]), g) for g in np.split(order, ends)]

    def pays(self, k: int, p: int) -> bool:
        """Whether an evaluation for k parameters takes fewer operations than with a matrix for each group."""
        sheets, count, size = self.mask.shape
        members = np.bincount(self.sheet * count + self.pattern, minlength=sheets * count)
        rows = int(np.minimum(members, size * p).sum())
        own = operations(k, p + 1, sheets, int((members > 0).sum()), size, rows)
        seen = self.mask.sum(axis=-1)[self.sheet, self.pattern].astype(float)
        return own <= (1 + k + k**2) * 2.0 * (p + 1) * float(np.sum(seen**2 + (p + 1) * seen))


def schedule_of(own: ResidualDesign) -> Schedule | None:
    """The schedule of rows sorted by group and place; None where there are more than `MOST` occasions."""
    n = len(own.codes)
    first = np.concatenate([[True], own.codes[1:] != own.codes[:-1]])
    begin, group = np.flatnonzero(first), np.cumsum(first) - 1
    place = own.place - own.place[begin][group] if stationary(own.structure) else own.place
    places = list(rounded(place).reshape(n, -1).T)
    levels = [rounded(v) for v in own.covariates]
    constant = [bool(np.all(v == v[begin][group])) for v in levels]
    sheet_of_row = numbered([v for v, same in zip(levels, constant, strict=True) if same], n)
    kind = numbered([*places, *(v for v, same in zip(levels, constant, strict=True) if not same)], n)
    sheets = int(sheet_of_row.max()) + 1
    if kind.max() >= MOST * sheets:
        return None
    kind = numbered([kind, _repeats(group, kind)], n)
    cell, index, slot = np.unique(
        np.column_stack([sheet_of_row, kind]), axis=0, return_index=True, return_inverse=True
    )
    within = np.arange(len(cell)) - np.searchsorted(cell[:, 0], cell[:, 0])
    size = int(within.max()) + 1
    if size > MOST or sheets * size > 4 * n:
        return None
    there = np.zeros((sheets, size), int)
    there[cell[:, 0], within] = index
    real = np.zeros((sheets, size), bool)
    real[cell[:, 0], within] = True
    occasions = Patterns(place[there], tuple(v[there] for v in own.covariates), real)
    rows = np.full((len(begin), size), n)
    rows[group, within[slot.ravel()]] = np.arange(n)
    sheet = sheet_of_row[begin]
    table = np.column_stack([sheet, np.packbits(rows < n, axis=1)])
    found, chosen, pattern = np.unique(table, axis=0, return_index=True, return_inverse=True)
    number = np.arange(len(found)) - np.searchsorted(found[:, 0], found[:, 0])
    mask = np.zeros((sheets, bucket(int(number.max()) + 1), size), bool)
    mask[found[:, 0], number] = rows[chosen] < n
    return Schedule(occasions, mask, rows, sheet, number[pattern.ravel()])


def numbered(columns: list[np.ndarray], n: int) -> np.ndarray:
    """(n,) the number of each distinct combination of values of columns (n,), in their order."""
    code = np.zeros(n, int)
    for column in columns:
        values, own = np.unique(column, return_inverse=True)
        _, code = np.unique(code * len(values) + own.ravel(), return_inverse=True)
    return code.ravel()


def _repeats(group: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """(n,) how many rows of the same group and kind come before each."""
    order = np.lexsort((kind, group))
    new = np.concatenate([[True], (np.diff(group[order]) != 0) | (np.diff(kind[order]) != 0)])
    begin = np.flatnonzero(new)
    out = np.empty(len(group), int)
    out[order] = np.arange(len(group)) - begin[np.cumsum(new) - 1]
    return out


class PreparedSchedule:
    """Products of rows w (p, n), sorted by group and place; of y by `respond`.

    What is traced is not gathered: every group keeps its rows.
    """

    def __init__(self, schedule: Schedule, w: Array):
        self.schedule, self.size = schedule, schedule.mask.shape[-1]
        xp, p = namespace(w), w.shape[0]
        sheets, count, _ = schedule.mask.shape
        x = self._take(w.T)
        self.parts, ends = [], np.zeros(sheets, int)
        for sheet, pattern, groups in schedule.members():
            basis = None if xp is jnp else orthonormal(x[groups].reshape(len(groups), -1))
            kept = len(groups) if basis is None else basis.shape[1]
            self.parts.append((sheet, pattern, groups, int(ends[sheet]), basis))
            ends[sheet] += kept
        self.shape = sheets, bucket(int(ends.max()))
        number = np.zeros(self.shape, np.int32)
        for sheet, pattern, groups, start, basis in self.parts:
            kept = len(groups) if basis is None else basis.shape[1]
            number[sheet, start : start + kept] = pattern
        seen = np.bincount(schedule.sheet * count + schedule.pattern, minlength=sheets * count)
        self.products = ScheduleProducts(
            schedule.occasions,
            schedule.mask,
            seen.reshape(sheets, count).astype(float),
            self._gathered(x)[0].reshape(*self.shape, self.size, p),
            number,
        )

    def _take(self, values: Array) -> Array:
        """(g, U, ...) of values (n, ...), zero where a group has no row."""
        xp = namespace(values)
        zero = xp.zeros((1, *values.shape[1:]), values.dtype)
        return xp.take(xp.concatenate([values, zero]), self.schedule.rows, axis=0)

    def _gathered(self, own: Array) -> tuple[Array, Array]:
        """QᵀY (L · N, U, ...) for Y (g, U, ...), and what is left of it, (g, U, ...)."""
        shape = (self.shape[0] * self.shape[1], *own.shape[1:])
        if namespace(own) is jnp:
            weight, target = self._spread
            lanes = (...,) + (None,) * (own.ndim - 1)
            moved = jnp.asarray(weight)[lanes] * own[:, None]
            out = jax.ops.segment_sum(moved.reshape(-1, *own.shape[1:]), target.ravel(), shape[0])
            return out, own - jnp.sum(jnp.asarray(weight)[lanes] * out[target], axis=1)
        out, left = np.zeros(shape), np.zeros(own.shape)
        for sheet, _, groups, start, basis in self.parts:
            at = sheet * self.shape[1] + start
            if basis is None:
                out[at : at + len(groups)] = own[groups]
                continue
            flat = own[groups].reshape(len(groups), -1)
            product = basis.T @ flat
            out[at : at + len(product)] = product.reshape(-1, *own.shape[1:])
            left[groups] = (flat - basis @ product).reshape(-1, *own.shape[1:])
        return out, left

    @property
    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight and target (g, b) of each group in the rows that its pattern keeps."""
        most = max(1 if basis is None else basis.shape[1] for *_, basis in self.parts)
        weight, target = np.zeros((2, len(self.schedule.sheet), most))
        for sheet, _, groups, start, basis in self.parts:
            at = sheet * self.shape[1] + start
            if basis is None:
                weight[groups, 0], target[groups, 0] = 1.0, at + np.arange(len(groups))
            else:
                weight[groups, : basis.shape[1]] = basis
                target[groups, : basis.shape[1]] = at + np.arange(basis.shape[1])
        return weight, target.astype(np.int32)

    def respond(self, y: Array) -> WhitenedResponse:
        """Rows (L, N, U, ...) and sums of squares of the others (L, K, U, U, ...) of responses y (n, ...)."""
        xp, lanes = namespace(y), y.shape[1:]
        rows, left = self._gathered(self._take(y))
        sheets, count, size = self.schedule.mask.shape
        if xp is jnp:
            code = self.schedule.sheet * count + self.schedule.pattern
            squares = jax.ops.segment_sum(left[:, :, None] * left[:, None], code, sheets * count)
        else:
            squares = np.zeros((sheets * count, size, size, *lanes))
            for sheet, pattern, groups, _, basis in self.parts:
                if basis is not None:
                    own = np.moveaxis(left[groups].reshape(len(groups), size, -1), -1, 0)
                    square = np.moveaxis(np.swapaxes(own, 1, 2) @ own, 0, -1)
                    squares[sheet * count + pattern] = square.reshape(size, size, *lanes)
        return WhitenedResponse(
            rows.reshape(*self.shape, size, *lanes),
            squares.reshape(sheets, count, size, size, *lanes),
            xp.sum(y * y, axis=0),
        )


def orthonormal(x: np.ndarray) -> np.ndarray | None:
    """An orthonormal basis (g, b) of the columns of x (g, c), to `NOTHING`; None where b would be about g."""
    groups, columns = x.shape
    rest, q = x.copy(), np.zeros((groups, 0))
    while 2 * q.shape[1] < groups:
        length = np.sqrt(np.sum(rest * rest, axis=0))
        j = int(np.argmax(length))
        if length[j] <= NOTHING:
            return q
        if q.shape[1] == GREEDY:
            return np.linalg.qr(x)[0] if 2 * columns < groups else None
        one = rest[:, j] / length[j]
        one = one - q @ (q.T @ one)
        one = one / np.sqrt(one @ one)
        rest = rest - one[:, None] * (one @ rest)[None]
        q = np.concatenate([q, one[:, None]], axis=1)
    return None
