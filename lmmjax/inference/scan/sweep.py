"""ρ² of all candidates and responses of one kernel in float32, tile by tile, of which only hits are kept.

A tile is a few responses by all candidates of a block: two products, then comparisons while it is in cache.
What float32 leaves undecided is kept: hits are looked at again in float64.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lmmjax.inference.scan.spectral import Block, SpectralEngine

TILE = 1 << 20
"""Numbers of a tile, 4 MiB."""

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
    scale : (T,) what log(1 − ρ²) of a response counts beside others, n.
    """

    share: np.ndarray | None
    top: int
    best: bool
    slack: np.ndarray
    scale: np.ndarray


def sweep(engine: SpectralEngine, block: Block, wanted: Wanted) -> Hits:
    """The hits of a block of candidates among the responses of an engine."""
    kept = np.flatnonzero(~block.lost)
    total, k = len(engine.null.a), len(kept)
    if not k:
        return np.zeros(0, int), np.zeros(0, int)
    whole = k == len(block.lost)
    # as (m, k): what the products of a tile read lies in one piece
    g, squares = (part if whole else np.ascontiguousarray(part[:, kept]) for part in block.single)
    rest = None
    if block.rest is not None:
        rest = block.rest if whole else block.rest[kept]
    size = max(1, min(total, TILE // k))
    starts = range(0, total, size)
    uneven = bool(np.ptp(wanted.scale) > 0)

    def one(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        part = slice(start, min(start + size, total))
        rho2 = _shares(engine, g, squares, rest, part)
        return _hits(rho2, wanted, part, uneven)

    with _threads() as run:
        found = list(run(one, starts))
    marker = [kept[columns] for columns, _, _ in found]
    response = [rows for _, rows, _ in found]
    if wanted.best:
        level = np.stack([best for _, _, best in found if best is not None])
        most = level.max(axis=0)
        for i, start in enumerate(starts):
            close = np.flatnonzero(level[i] >= most - _unsure(most, wanted, uneven))
            part = slice(start, min(start + size, total))
            # few columns, again
            rho2 = _shares(engine, g[:, close], squares[:, close], _some(rest, close), part)
            rho2 = _strength(rho2, wanted, part, uneven)
            row, column = np.nonzero(rho2 >= (most[close] - _unsure(most[close], wanted, uneven)))
            marker.append(kept[close[column]])
            response.append(row + start)
    return np.concatenate(marker), np.concatenate(response)


def _some(rest: np.ndarray | None, at: np.ndarray) -> np.ndarray | None:
    return None if rest is None else rest[at]


def _shares(
    engine: SpectralEngine, g: np.ndarray, squares: np.ndarray, rest: np.ndarray | None, part: slice
) -> np.ndarray:
    """ρ² (t, k) in float32."""
    weights, weighted = engine.single
    b, c = weighted[part] @ g, weights[part] @ squares
    if rest is not None and engine.rest is not None:
        scale = engine.inverse_a[part] / np.sqrt(engine.null.a[part])
        b += ((engine.rest[part] * scale[:, None]) @ rest.T).astype(np.float32)
        c += (engine.inverse_a[part][:, None] * np.sum(rest**2, axis=1)).astype(np.float32)
    np.multiply(b, b, out=b)
    return np.divide(b, c, out=b)


def _strength(rho2: np.ndarray, wanted: Wanted, part: slice, uneven: bool) -> np.ndarray:
    """What responses are compared by: ρ², or −n log(1 − ρ²) where n differs."""
    if not uneven:
        return rho2
    return -wanted.scale[part, None] * np.log1p(-np.minimum(rho2.astype(float), 1.0 - 1e-15))


def _unsure(most: np.ndarray, wanted: Wanted, uneven: bool) -> np.ndarray:
    slack = float(np.max(wanted.slack))
    if uneven:
        n = float(wanted.scale.max())
        return n * (np.log(slack) + UNSURE * np.exp(np.minimum(most / wanted.scale.min(), 30.0)))
    return (1.0 - most) * (slack - 1.0) + UNSURE


def _hits(
    rho2: np.ndarray, wanted: Wanted, part: slice, uneven: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    t, k = rho2.shape
    best = _strength(rho2, wanted, part, uneven).max(axis=0) if wanted.best else None
    level = np.full(t, np.inf)
    if wanted.share is not None:
        level = wanted.share[part] - UNSURE
    if wanted.top:
        if k <= wanted.top:
            level = np.full(t, -np.inf)
        else:
            at = k - wanted.top
            last = rho2.max(axis=1) if wanted.top == 1 else np.partition(rho2, at, axis=1)[:, at]
            slack = wanted.slack[part]
            level = np.minimum(level, 1.0 - (1.0 - last) * slack - UNSURE)
    if np.all(level == np.inf):
        return np.zeros(0, int), np.zeros(0, int), best
    place = np.flatnonzero(rho2 >= level.astype(np.float32)[:, None])
    return place % k, place // k + (part.start or 0), best


@contextlib.contextmanager
def _threads() -> Iterator[Callable[..., Any]]:
    """`map` over as many threads as there are processors, each with a BLAS of one thread."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        yield pool.map
