"""Which pairs of a marker and a response a scan keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import chdtri, stdtrit

from lmmjax.fitted import require_count
from lmmjax.inference.scan.statistics import LOD


@dataclasses.dataclass(frozen=True)
class Top:
    """The `n` markers of the strongest association with each response.

    Examples
    --------
    >>> import lmmjax as lj
    >>> lj.scan.Top(3)
    Top(n=3)
    """

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

    def share(self, n: np.ndarray, df: np.ndarray, test: str | None) -> np.ndarray:
        """ρ² (T,) from which on pairs are kept, of responses with n and df (T,)."""
        if self.lod is not None:
            return -np.expm1(-self.lod * LOD / n)
        p = float(self.p or 0.0)
        if test == "lrt":
            return -np.expm1(-chdtri(1.0, p) / n)
        f = stdtrit(df, 0.5 * p) ** 2
        if test == "score":
            return f / n
        return f / (f + df)


Keep = Top | Above | Best
