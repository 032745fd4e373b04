"""What a scan is asked for, and what it says of a block of markers: a pure function of the block."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.batch.device.scan import DeviceEngine
from lmmjax.scan.beside import Beside
from lmmjax.scan.engines import Part
from lmmjax.scan.evaluate import How
from lmmjax.scan.hits import hits, is_swept, part_values
from lmmjax.scan.keep import Keep, chosen
from lmmjax.scan.markers import NUMBERS, Markers
from lmmjax.scan.nulls import Nulls, responses
from lmmjax.scan.pairs import Pairs, joined, labelled, no_pairs
from lmmjax.scan.tables import COLUMNS


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A scan.

    Attributes
    ----------
    nulls : the fits without markers; markers : on their rows; how : ratio and test.
    beside : what markers interact with; keep : which pairs stay, None for all.
    """

    nulls: Nulls
    markers: Markers
    how: How
    beside: Beside
    keep: tuple[Keep, ...] | None

    @property
    def labels(self) -> pd.Index:
        """(T,) of the responses."""
        return responses(self.nulls.fits)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the columns of statistics."""
        return wanted(self.how, self.beside)

    @property
    def facts(self) -> dict[str, Any]:
        """What holds for the whole table, its `attrs`."""
        criterion = "REML" if self.nulls.fits.reml else "ML"
        return {"loglik": criterion, "ratio": self.how.ratio, "test": self.how.test}

    def size(self, parts: list[Part] | None = None) -> int:
        """How many markers to take at a time."""
        swept = self.keep is not None and parts is not None
        if swept and all(is_swept(part, self.beside, self.keep or ()) for part in parts or ()):
            there = all(isinstance(part.engine, DeviceEngine) for part in parts or ())
            return self.markers.size(len(self.markers), NUMBERS << 3 if there else NUMBERS)
        pairs = NUMBERS // (len(self.labels) * self.beside.width**2)
        return max(1, min(pairs, self.markers.size(len(self.markers))))

    def block(self, places: np.ndarray, g: Any) -> Pairs:
        """The pairs of the markers g (N, k) at places (k,): all, or those that may be kept.

        Markers of NumPy, or `DeviceColumns`.
        """
        names = (*self.wanted, *(("joint",) if self.keep is not None and self.beside.width > 1 else ()))
        found = [no_pairs(names, self.beside.width)]
        for at, parts in self.nulls.of(places):
            mine = places[at]
            for first in range(0, len(mine), size := self.size(parts)):
                part = slice(first, first + size)
                found.append(self._block(parts, mine[part], g[:, at][:, part], names))
        whole = joined([one for one in found if len(one)] or found[:1])
        return (self.kept(whole) if len(found) > 2 else whole).ordered()

    def _block(self, parts: list[Part], places: np.ndarray, g: Any, names: tuple[str, ...]) -> Pairs:
        if self.keep is None:
            return self._all(parts, places, g)
        own = [hits(part, self.markers, places, g, self.beside, self.keep, self.how) for part in parts]
        terms = [[{name: values[name] for name in names} for values in one.terms] for one in own]
        own = [dataclasses.replace(one, terms=some) for one, some in zip(own, terms, strict=True)]
        return self.kept(joined([one for one in own if len(one)] or [no_pairs(names, self.beside.width)]))

    def _all(self, parts: list[Part], places: np.ndarray, g: Any) -> Pairs:
        k, total = g.shape[1], len(self.labels)
        terms = [
            {name: np.full((k, total), np.nan) for name in self.wanted} for _ in range(self.beside.width)
        ]
        for part in parts:
            found = part_values(part, self.markers, g, self.beside, self.how)
            for whole, own in zip(terms, found, strict=True):
                for name in whole:
                    whole[name][:, part.where] = own[name]
        flat = [{name: value.ravel() for name, value in own.items()} for own in terms]
        return Pairs(np.repeat(places, total), np.tile(np.arange(total), k), np.zeros(k * total), flat)

    def kept(self, pairs: Pairs) -> Pairs:
        """Those of some pairs that stay."""
        if self.keep is None or not len(pairs):
            return pairs
        return pairs.some(np.flatnonzero(self.chosen(pairs)))

    def chosen(self, pairs: Pairs) -> np.ndarray:
        """(Q,) which pairs stay."""
        return chosen(pairs, self.keep or (), self.how.test)

    def table(self, pairs: Pairs) -> dict[str, Any]:
        """Columns of the table, a row a pair and column of a marker."""
        return labelled(pairs.rows(self.wanted), self.markers.names, self.labels, self.beside.terms)


def wanted(how: How, beside: Beside) -> tuple[str, ...]:
    """Names of the columns of statistics."""
    return COLUMNS[how.test] if beside.width == 1 else (*COLUMNS[how.test], "p_joint")
