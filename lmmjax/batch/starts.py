"""Where the descents of a batch begin."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from lmmjax.core import ProblemMaker, few_groups, further_points, further_starts
from lmmjax.gram.grouped.prepare import GroupedPrepared

SCARCE = 12
"""Groups from which on designs that differ by group, without weights and gaps, had no second optimum."""

MOST = 4
"""Standard starts, unless parameters of structures have more."""


@dataclasses.dataclass(frozen=True)
class Starts:
    """A rule, as the descents of some responses may begin elsewhere than those of others.

    Attributes
    ----------
    count : how many of the standard starts: moments, near zero, zero, large. None: one, and all of them where
        that is known to matter: with few groups and weights or gaps, with very few groups that differ, with
        patterned covariances.
    given : (k, m) θ in the user's coordinates, in place of the standard ones.
    gaps : whether designs that are shared are so by responses with missing values.
    """

    count: int | None = None
    given: np.ndarray | None = None
    gaps: bool = False

    @property
    def several(self) -> Starts:
        """The rule for responses with missing values."""
        return dataclasses.replace(self, gaps=True)

    def number(self, maker: ProblemMaker, own: bool) -> int | None:
        """How many of the standard starts, None for all; `own` where every response has its design."""
        if self.count is not None:
            return self.count
        prepared = maker.prepared
        odd = own or self.gaps or maker.design.weights is not None
        if isinstance(prepared, GroupedPrepared) and few_groups(maker, SCARCE):
            # groups that differ; where all are alike no response had a second optimum
            odd = odd or not prepared.compressed or prepared.k > 1
        # patterned covariances can have several optima with any number of groups
        bent = maker.design.structure.several
        return None if (bent or (odd and few_groups(maker))) and not prepared.shared.costly else 1

    def outside(self, maker: ProblemMaker, own: bool) -> list[np.ndarray]:
        """θ (m,) in the user's coordinates, NaN for moments."""
        if self.given is not None:
            return list(self.given)
        first, count = [np.full(maker.design.structure.n_params, np.nan)], self.number(maker, own)
        return first if count == 1 else [*first, *further_starts(maker)][:count]

    def inside(self, maker: ProblemMaker, own: bool) -> list[np.ndarray | None]:
        """The same in internal coordinates, None for moments."""
        structure, count = maker.design.structure, self.number(maker, own)
        if self.given is not None:
            with jax.enable_x64(True):
                return [np.asarray(structure.change_basis(s, maker.basis.inward)) for s in self.given]
        if count == 1:
            return [None]
        return [None, *(np.asarray(structure.encode(d)) for d in further_points(maker))][:count]


@dataclasses.dataclass(frozen=True)
class How:
    """How every response is fitted: criterion, most evaluations, dtype of the descents, where they start."""

    reml: bool
    max_iter: int
    dtype: Any
    starts: Starts
