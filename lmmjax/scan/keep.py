"""Which pairs of a marker and a response a scan keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtri, stdtrit

from lmmjax.fitted import require_count
from lmmjax.inference.scan.statistics import LOD

BEHIND = 2.0
"""LOD at the null that a pair may be behind and still be refitted."""


@dataclasses.dataclass(frozen=True)
class Top:
    """The `n` markers of the strongest association with each response."""

    n: int = 10

    def __post_init__(self) -> None:
        require_count("n of Top", self.n)


@dataclasses.dataclass(frozen=True)
class Best:
    """The response of the strongest association with each marker."""


@dataclasses.dataclass(frozen=True)
class Above:
    """All pairs with a LOD of at least `lod`, or a p of at most `p`: one of the two.

    p is that of the test of the scan, of Wald where it makes all.
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

    def share(self, n: np.ndarray, df: np.ndarray, test: str | None, refit: bool) -> np.ndarray:
        """ρ² (T,) at the null from which on pairs are looked at, of responses with n and df (T,)."""
        if self.lod is not None:
            lrt = self.lod * LOD
        else:
            p = float(self.p or 0.0)
            f = stdtrit(df, 0.5 * p) ** 2
            # at a ratio of its own the score test has another ρ²: what a likelihood ratio of its p has, less
            lrt = chdtri(1.0, p) if test == "lrt" else n * np.log1p(f / df)
            if test == "score":
                lrt = n * np.log1p(f / n / np.maximum(1.0 - f / n, 1e-3)) - BEHIND * LOD
        return -np.expm1(-np.maximum(lrt - BEHIND * LOD * refit, 0.0) / n)


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


def chosen(table: pd.DataFrame, keep: tuple[Keep, ...], test: str | None, strength: np.ndarray) -> np.ndarray:
    """(Q,) which rows of a table of pairs are kept, by their strength (Q,)."""
    out = np.zeros(len(table), bool)
    for one in keep:
        if isinstance(one, Above):
            if one.lod is not None:
                out |= strength >= one.lod * LOD
            else:
                column = {"lrt": "p_lrt", "score": "p_score"}.get(test or "", "p_wald")
                out |= table[column].to_numpy() <= one.p
        else:
            by = "response" if isinstance(one, Top) else "marker"
            most = one.n if isinstance(one, Top) else 1
            order = np.lexsort((table["place"].to_numpy(), -np.where(np.isnan(strength), -1.0, strength)))
            rank = pd.Series(order).groupby(table[by].to_numpy()[order], sort=False).cumcount().to_numpy()
            out[order[rank < most]] = True
    return out
