"""ρ² of all candidates and responses in float32, tile by tile, of which only hits are kept.

c = g'Pg depends on a response through its ratio alone, and on that little. With w and w₀ the weights at two
ratios, c lies between the smallest and the largest w/w₀ times c₀, so that responses in the order of their
ratios share c₀ with their neighbours, and one product,

    ρ̂ = (w∘ỹ)'g̃ / √(a c₀),     ρ² = ρ̂² c₀/c,

bounds ρ². A tile is a few responses by all candidates of a block. What float32 and the bounds leave undecided
is kept: hits are looked at again in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from lmmjax.arrays.processors import cores, mapped

TILE = 1 << 20
"""Numbers of a tile, 4 MiB."""

CHUNK, NARROW = 1 << 17, 256
"""Numbers of a tile that are worked on while they are in cache, and coordinates up to which that pays."""

GROUP = 16
"""Candidates of which the strongest stands for all, a power of two."""

WIDTH = 0.05
"""Range of log w/w₀ of responses that share c₀."""

UNSURE = 4e-6
"""Differences of ρ² that float32 does not tell."""

Hits = tuple[np.ndarray, np.ndarray]
"""Places of candidates and of responses, (Q,) each."""


@dataclasses.dataclass(frozen=True, eq=False)
class Wanted:
    """Which pairs of a block are hits.

    Attributes
    ----------
    share : (T,) ρ² from which on all pairs are, None: no such pairs.
    top : how many of each response, 0: none; best : whether the best response of each candidate.
    slack : factor of 1 − ρ² within which `top` and `best` keep pairs behind: 1, or above for refits.
    """

    share: np.ndarray | None
    top: int
    best: bool
    slack: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Sweepable:
    """T responses, whose y'Pg/√(y'Py) is a product and whose g'Pg depends on the ratio alone.

    Attributes
    ----------
    y : (T, m); a, h : (T,) V ∝ aI + hK; mu : the least and the largest eigenvalue of K.
    squares : (candidates, (J,) some responses) → (J, k) c of the candidates under these, in the units of
        their coordinates in float32.
    alone : whether c depends on more than the ratio, so that no response shares it.
    """

    y: np.ndarray
    a: np.ndarray
    h: np.ndarray
    mu: tuple[float, float]
    squares: Callable[[Any, np.ndarray], np.ndarray]
    alone: bool = False

    @cached_property
    def logs(self) -> np.ndarray:
        """(T, 2) log(a + hμ) at the ends of μ."""
        return np.log(self.a[:, None] + self.h[:, None] * np.array(self.mu))

    @cached_property
    def order(self) -> np.ndarray:
        """(T,) the responses by their ratio."""
        return np.argsort(self.logs[:, 1] - self.logs[:, 0], kind="stable")

    @cached_property
    def sorted(self) -> np.ndarray:
        """y in that order, in float32."""
        return self.y[self.order].astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """Neighbours in the order of ratios.

    Attributes
    ----------
    part : their places in that order; at : (t,) their numbers.
    run : (t,) which of J responses has theirs, `of` (J,).
    low, high : (t,) between which c/c₀ lies.
    """

    part: slice
    at: np.ndarray
    run: np.ndarray
    of: np.ndarray
    low: np.ndarray
    high: np.ndarray


def tiles(of: Sweepable, size: int) -> list[Tile]:
    """The responses in tiles of at most `size`."""
    logs, out = of.logs[of.order], []
    spread = logs[:, 1] - logs[:, 0]
    for first in range(0, len(spread), size):
        part = slice(first, min(first + size, len(spread)))
        own, run, start = spread[part], np.zeros(part.stop - first, int), 0
        middle = []
        while start < len(own):
            stop = start + 1
            if not of.alone:
                stop = max(stop, int(np.searchsorted(own, own[start] + WIDTH, "right")))
            run[start:stop] = len(middle)
            middle.append((start + stop) // 2)
            start = stop
        at = of.order[part]
        which = at[middle]
        apart = of.logs[which][run] - logs[part]
        low, high = np.exp(apart.min(axis=1)), np.exp(apart.max(axis=1))
        out.append(Tile(part, at, run, which, low, high))
    return out


class Sweep:
    """Candidates against tiles of responses.

    Parameters
    ----------
    of : the responses; candidates : as `of.squares` takes them; g : (m, k) their coordinates, in float32.
    lost : (k,) those that X determines.
    """

    def __init__(self, of: Sweepable, candidates: Any, g: np.ndarray, lost: np.ndarray):
        self.of, self.candidates, self.lost, self.k = of, candidates, lost, g.shape[1]
        m, k = g.shape
        rows = max(1, min(TILE // k, -(-len(of.a) // cores())))
        count = -(-k * rows // CHUNK) if m <= NARROW else 1
        # chunks of as many candidates each, in whole groups; what fills them up is zero
        self.width = -(-k // (count * GROUP)) * GROUP
        self.count = -(-k // self.width)
        self.g = np.zeros((m, self.width * self.count), np.float32)
        self.g[:, :k] = g
        self.tiles = tiles(of, rows)
        self.free: list[np.ndarray] = []

    def roots(self, tile: Tile) -> np.ndarray:
        """1/√c₀ (J, width × count) in float32, 0 of what X determines and of no candidates."""
        c = self.of.squares(self.candidates, tile.of)
        out = np.zeros((len(c), self.g.shape[1]), np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[:, : self.k] = np.where((c > 0) & ~self.lost, 1.0 / np.sqrt(c), 0.0)
        return out

    def shares(self, tile: Tile, out: np.ndarray) -> np.ndarray:
        """|ρ̂| (count, t, width) of a tile, written to a buffer; (t, groups) the largest of each group."""
        y, roots = self.of.sorted[tile.part], self.roots(tile)
        shared = len(roots) == 1
        ahead = shared and len(y) > len(self.g)
        starts = np.flatnonzero(np.diff(tile.run, prepend=-1))
        most = np.empty((len(y), self.count, self.width // GROUP), np.float32)
        half = np.empty((len(y), self.width // 2), np.float32)
        for i in range(self.count):
            part = slice(i * self.width, (i + 1) * self.width)
            g = self.g[:, part]
            if ahead:
                g = g * roots[0, part]
            b = out[i]
            np.matmul(y, g, out=b)
            if shared and not ahead:
                b *= roots[0, part]
            elif not shared:
                for j, (start, stop) in enumerate(zip(starts, [*starts[1:], len(y)], strict=True)):
                    b[start:stop] *= roots[j, part]
            np.abs(b, out=b)
            most[:, i] = _largest(b, half)
        return most.reshape(len(y), -1)

    def buffer(self, t: int) -> np.ndarray:
        """(count, t, width), of those that were given back where there is one."""
        size = self.count * t * self.width
        try:
            whole = self.free.pop()
        except IndexError:
            whole = np.empty(self.count * len(self.tiles[0].at) * self.width, np.float32)
        return whole[:size].reshape(self.count, t, self.width)

    def give_back(self, buffer: np.ndarray) -> None:
        """A buffer that is no longer needed."""
        self.free.append(buffer.base if buffer.base is not None else buffer.ravel())


def _largest(b: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(t, w / GROUP) the largest of columns j, j + w/GROUP, … of b (t, w), written to `half` (t, w / 2)."""
    width = b.shape[1] // 2
    out = np.maximum(b[:, :width], b[:, width:], out=half)
    while width > b.shape[1] // GROUP:
        width //= 2
        out = np.maximum(out[:, :width], out[:, width:], out=out[:, :width])
    return out


def sweep(of: Sweepable, candidates: Any, g: np.ndarray, lost: np.ndarray, wanted: Wanted) -> Hits:
    """The hits among candidates, whose coordinates are g (m, k), but those that are `lost` (k,)."""
    kept = ~lost
    if not kept.any() or not len(of.a):
        return np.zeros(0, int), np.zeros(0, int)
    own = Sweep(of, candidates, g, lost)

    def one(tile: Tile) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        buffer = own.buffer(len(tile.at))
        most = own.shares(tile, buffer)
        column, row = _hits(own, tile, buffer, most, wanted, int(kept.sum()))
        fine = kept[column]
        best = None
        if wanted.best:
            whole = buffer / np.sqrt(tile.high).astype(np.float32)[:, None]
            best = whole.max(axis=1).ravel()[: own.k].astype(float) ** 2
        own.give_back(buffer)
        return column[fine], tile.at[row[fine]], best

    found = mapped(one, own.tiles)
    marker, response = [column for column, _, _ in found], [row for _, row, _ in found]
    if wanted.best:
        level = np.stack([best for _, _, best in found if best is not None])
        needed = 1.0 - (1.0 - level.max(axis=0)) * float(np.max(wanted.slack)) - UNSURE

        def again(which: tuple[Tile, np.ndarray]) -> Hits:
            tile, best = which
            close = np.flatnonzero(kept & (best * float(np.max(tile.high / tile.low)) >= needed))
            roots = own.roots(tile)[:, close][tile.run]
            rho2 = (of.sorted[tile.part] @ own.g[:, close] * roots) ** 2
            row, column = np.nonzero(rho2 >= needed[close] * tile.low[:, None])
            return close[column], tile.at[row]

        for column, row in mapped(again, list(zip(own.tiles, level, strict=True))):
            marker.append(column)
            response.append(row)
    return np.concatenate(marker), np.concatenate(response)


def _hits(own: Sweep, tile: Tile, shares: np.ndarray, most: np.ndarray, wanted: Wanted, kept: int) -> Hits:
    """Candidates and rows (Q,) of a tile that may be hits, by `share` and `top`."""
    t = len(tile.at)
    level = np.full(t, np.inf)
    if wanted.share is not None:
        level = wanted.share[tile.at] * tile.low
    if wanted.top >= kept:
        level = np.full(t, -np.inf)
    elif wanted.top:
        last = _nth(shares, most, wanted.top).astype(float) ** 2
        needed = 1.0 - (1.0 - last / tile.high) * wanted.slack[tile.at]
        level = np.minimum(level, needed * tile.low)
    if np.all(level == np.inf):
        return np.zeros(0, int), np.zeros(0, int)
    bar = np.sqrt(np.maximum(level - UNSURE, 0.0)).astype(np.float32)
    row, group = np.nonzero(most >= bar[:, None])
    per = own.width // GROUP
    chunk, place = group // per, group % per
    members = shares.reshape(own.count, t, GROUP, per)[chunk, row, :, place]
    at, number = np.nonzero(members >= bar[row][:, None])
    column = chunk[at] * own.width + number * per + place[at]
    real = column < own.k
    return column[real], row[at][real]


def _nth(shares: np.ndarray, most: np.ndarray, n: int) -> np.ndarray:
    """(t,) what the n-th largest of each row is not below."""
    if n == 1:
        return most.max(axis=1)
    values = most
    if 2 * n > most.shape[1]:
        values = np.moveaxis(shares, 0, 1).reshape(len(most), -1)
    at = values.shape[1] - n
    return np.partition(values, at, axis=1)[:, at]
