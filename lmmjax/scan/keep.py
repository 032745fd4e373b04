"""Which pairs of a marker and a response a scan keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import chdtri, stdtrit

from lmmjax.arrays.other_arguments import Answering
from lmmjax.fitted import require_count
from lmmjax.inference.scan.statistics import LOD
from lmmjax.scan.pairs import Pairs

BEHIND = 2.0
"""LOD at the null that a pair may be behind and still be refitted."""


@dataclasses.dataclass(frozen=True)
class Top(Answering):
    """The `n` markers of the strongest association with each response."""

    n: int = 10

    def __post_init__(self) -> None:
        require_count("n of Top", self.n)


@dataclasses.dataclass(frozen=True)
class Best(Answering):
    """The response of the strongest association with each marker."""


@dataclasses.dataclass(frozen=True)
class Above(Answering):
    """All pairs with a LOD of at least `lod`, or a p of at most `p`: one of the two.

    p is that of the test of the scan, of Wald where it makes all; with `interaction=` LOD and p are those of
    all columns of a marker together.
    """

    lod: float | None = None
    p: float | None = None

    def __post_init__(self) -> None:
        if (self.lod is None) == (self.p is None):
            raise ValueError("Above: pass lod= or p=, one of them")
        if self.lod is not None and not self.lod >= 0:
            raise ValueError(f"Above: lod is at least 0, not {self.lod!r}")
        if self.p is not None and not 0 < self.p <= 1:
            raise ValueError(f"Above: p lies between 0 and 1, not {self.p!r}")

    def share(self, n: np.ndarray, df: np.ndarray, test: str | None, refit: bool, s: int = 1) -> np.ndarray:
        """ρ² (T,) at the null from which on pairs are looked at, of responses with n and df (T,)."""
        if self.lod is not None:
            lrt = self.lod * LOD
        else:
            p = float(self.p or 0.0)
            lrt = chdtri(float(s), p)
            if s == 1 and test != "lrt":
                f = stdtrit(df, 0.5 * p) ** 2
                # at a ratio of its own the score test has another ρ²: what a likelihood ratio of its p has
                lrt = n * np.log1p(f / df)
                if test == "score":
                    lrt = n * np.log1p(f / n / np.maximum(1.0 - f / n, 1e-3)) - BEHIND * LOD
        return -np.expm1(-np.maximum(lrt - BEHIND * LOD * refit, 0.0) / n)

    def is_above(self, values: Mapping[str, np.ndarray], test: str | None) -> np.ndarray:
        """Which pairs have such a p, by the statistics of their first column."""
        by_test = {"lrt": "p_lrt", "score": "p_score"}.get(test or "", "p_wald")
        return values["p_joint" if "p_joint" in values else by_test] <= self.p


Keep = Top | Above | Best


def keeps(keep: Any) -> tuple[Keep, ...]:
    """One or several of Top, Above and Best; ValueError for others."""
    given = tuple(keep) if isinstance(keep, Sequence) else (keep,)
    wrong = [one for one in given if not isinstance(one, Top | Above | Best)]
    if wrong or not given:
        raise ValueError(
            "keep is lmmjax.scan.Top(n), Above(lod=…), Above(p=…), Best() or a list of them, "
            f"not {keep!r:.60}"
        )
    return given


def chosen(pairs: Pairs, keep: tuple[Keep, ...], test: str | None) -> np.ndarray:
    """(Q,) which pairs are kept."""
    out, strength = np.zeros(len(pairs), bool), pairs.strength
    for one in keep:
        if isinstance(one, Above):
            by_lod = one.lod is not None
            out |= strength >= (one.lod or 0.0) * LOD if by_lod else one.is_above(pairs.terms[0], test)
        else:
            by, other = (pairs.at, pairs.place) if isinstance(one, Top) else (pairs.place, pairs.at)
            most = one.n if isinstance(one, Top) else 1
            level = np.where(np.isnan(strength), -1.0, strength)
            out[_first(by, other, level, most)] = True
    return out


def _first(by: np.ndarray, other: np.ndarray, level: np.ndarray, most: int) -> np.ndarray:
    """Which pairs are among the `most` highest of theirs, `by` (Q,); of equal ones the first by `other`."""
    some = np.arange(len(by))
    if most == 1 and len(by):
        highest = np.full(int(by.max()) + 1, -np.inf)
        np.maximum.at(highest, by, level)
        some = np.flatnonzero(level >= highest[by])
    order = some[np.lexsort((other[some], -level[some], by[some]))]
    new = np.diff(by[order], prepend=-1) != 0
    first = np.flatnonzero(new)
    rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return order[rank < most]
