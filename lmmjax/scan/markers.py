"""Candidate markers on the rows of a fit: matched, checked, filtered, imputed, a block at a time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import ModelData
from lmmjax.formula import Genotypes, nearest
from lmmjax.formula.matching import is_default, positions
from lmmjax.scan.device_markers import filled, looked_at
from lmmjax.scan.opened import opened

NUMBERS = 1 << 22
"""Numbers of a block, 32 MiB."""

MISSING = (-1, -9, -99, -999, -9999, -127, -128, 9, 99, 255)
"""What files of genotypes write for a missing one."""


MISSED, CONSTANT = "missing in all individuals", "constant"
DETERMINED = "determined by the fixed effects"
"""Why a marker has no results."""


@dataclasses.dataclass(frozen=True, eq=False)
class Filters:
    """Which markers are left out: a rarer allele below `maf`, a larger share missing than `max_missing`."""

    maf: float = 0.0
    max_missing: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.maf <= 0.5 or not 0.0 <= self.max_missing <= 1.0:
            raise ValueError(
                "maf is between 0 and 0.5, max_missing between 0 and 1, "
                f"not {self.maf} and {self.max_missing}"
            )

    def kept(self, g: np.ndarray) -> np.ndarray:
        """(k,) which of the markers g (n, k), NaN where missing, stay."""
        missing = np.isnan(g)
        return self.stay(missing.sum(axis=0), np.where(missing, 0.0, g).sum(axis=0), len(g))

    def stay(self, missing: np.ndarray, total: np.ndarray, size: int) -> np.ndarray:
        """(k,) which markers stay, of `size` values, so many `missing`, the others of such a `total`."""
        with np.errstate(invalid="ignore", divide="ignore"):
            frequency = total / (2.0 * (size - missing))
            good = missing / np.float64(size) <= self.max_missing
        rarer = np.minimum(frequency, 1.0 - frequency)
        return good & (rarer >= self.maf) if self.maf else good


@dataclasses.dataclass(frozen=True, eq=False)
class Markers:
    """Markers in the rows of a fit.

    Attributes
    ----------
    source : the markers with their labels; names : (M,) as results call them.
    rows : (N,) the place in the source of each of N individuals; codes : (n,) the individual of every row.
    filters : which markers are left out; counts : whether values have to be counts of an allele.
    """

    source: Genotypes
    names: pd.Index
    rows: np.ndarray
    codes: np.ndarray
    filters: Filters
    counts: bool

    def __len__(self) -> int:
        return len(self.names)

    def read_there(self, start: int, stop: int) -> tuple[np.ndarray, DeviceColumns]:
        """`read` of markers on a device, whose values stay there."""
        assert self.source.there is not None
        part = DeviceColumns(self.source.there)[:, start:stop]
        g, facts = looked_at(part.there, self.rows)
        names, size = self.names[start:stop], len(g)
        if (infinite := facts["infinite"] > 0).any():
            raise ValueError(has_infinite(names[int(np.argmax(infinite))]))
        beyond = (facts["least"] < 0) | (facts["most"] > 2)
        if self.filters.maf and beyond.any():
            raise ValueError(has_no_counts(names[int(np.argmax(beyond))]))
        few = (facts["others"] > 0) & (facts["others"] < 0.5 * size) & bool(beyond.any())
        alike = facts["least_other"] == facts["most_other"]
        for k in np.flatnonzero(few & alike):
            if is_code(code := float(facts["least_other"][k]), facts["twos"][k] > 0):
                raise ValueError(has_code(names[k], code))
        kept = self.filters.stay(facts["missing"], facts["sum"], size)
        return start + np.flatnonzero(kept), filled(g, kept, facts)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The places (k,) of the markers that stay, and their values (N, k), the mean where missing.

        ValueError names the marker that has an infinite value, one whose counts of an allele have a code of
        missing ones among them, or with `maf=` one that is no count.
        """
        g = self.source.read(start, stop)[self.rows]
        infinite = np.isinf(g).any(axis=0)
        if infinite.any():
            raise ValueError(has_infinite(self.names[start + int(np.argmax(infinite))]))
        if self.filters.maf and (np.nanmin(g, initial=0.0) < 0 or np.nanmax(g, initial=0.0) > 2):
            k = int(np.argmax(((g < 0) | (g > 2)).any(axis=0)))
            raise ValueError(has_no_counts(self.names[start + k]))
        self._require_no_codes(g, start)
        kept = self.filters.kept(g)
        g = g[:, kept]
        missing = np.isnan(g)
        if missing.any():
            count = np.maximum(len(g) - missing.sum(axis=0), 1)
            # of a marker that nobody has all values are alike
            g = np.where(missing, np.where(missing, 0.0, g).sum(axis=0) / count, g)
        return start + np.flatnonzero(kept), g

    def reasons(self, places: np.ndarray, g: Any) -> list[str]:
        """Why markers g (N, k) at places (k,), as they were read, have no results."""
        out = []
        for place, own in zip(places.tolist(), np.asarray(g).T, strict=True):
            constant = bool(np.all(own == own[0]))
            # what nobody has was read as 0
            nobody = (
                constant and own[0] == 0.0 and np.isnan(self.source.read(place, place + 1)[self.rows]).all()
            )
            out.append(MISSED if nobody else CONSTANT if constant else DETERMINED)
        return out

    def _require_no_codes(self, g: np.ndarray, start: int) -> None:
        """ValueError for a marker (N, k) of counts 0, 1, 2 and one number more, a code of `MISSING`."""
        if np.fmin.reduce(g, axis=None, initial=0.0) >= 0 and np.fmax.reduce(g, axis=None, initial=0.0) <= 2:
            return
        other = ~(np.isin(g, (0.0, 1.0, 2.0)) | np.isnan(g))
        for k in np.flatnonzero(other.any(axis=0) & (other.mean(axis=0) < 0.5)):
            code = np.unique(g[other[:, k], k])
            if len(code) == 1 and is_code(float(code[0]), bool(np.any(g[:, k] == 2))):
                raise ValueError(has_code(self.names[start + k], float(code[0])))

    def blocks(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[np.ndarray, Any]]:
        """Places (k,) and values (N, k) of the markers from `start` to `stop`, at most `size` at a time."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, size):
            yield self.read(first, min(first + size, stop))

    def on_rows(self, g: Any) -> Any:
        """Values (n, k) in the rows of the fit of those (N, k) of the individuals."""
        same = len(self.codes) == len(g) and np.array_equal(self.codes, np.arange(len(g)))
        return g if same else g[self.codes]

    def size(self, most: int | None = None, numbers: int = NUMBERS) -> int:
        """How many markers to take at a time."""
        return max(1, min(most or numbers, numbers // max(1, len(self.codes))))


def is_code(code: float, twos: bool) -> bool:
    """Whether the one number beside 0, 1 and 2, of a marker that has twos or not, is a code of `MISSING`."""
    # -1, 0, 1 is a coding of its own, and 9 or 99 may be counted
    alone = code == -1 or 0 < code < 255
    return code in MISSING and not (alone and not twos)


def has_infinite(name: Any) -> str:
    return f"marker {name!r} has an infinite value"


def has_no_counts(name: Any) -> str:
    return f"maf= needs counts of an allele, 0 to 2: marker {name!r} has others"


def has_code(name: Any, code: float) -> str:
    return (
        f"marker {name!r} has counts of an allele and {code:g}, a code of missing ones: make it NaN; if "
        f"{code:g} is meant, multiply the markers by a number"
    )


@functools.partial(answered, name="scan_threshold")
def markers_of(
    data: ModelData,
    markers: Any,
    *,
    ids: Any = None,
    names: Any = None,
    group: str | None = None,
    maf: float = 0.0,
    max_missing: float = 1.0,
) -> Markers:
    """Markers on the rows of a model; see `Fit.scan`.

    Raises
    ------
    ValueError : individuals of the model without markers, rows that match neither the data nor the levels of
        a factor, as many names as there are no markers.
    """
    found = opened(markers, ids, names)
    rows, codes = _matched(data, found, group)
    labels = found.names if names is None else pd.Index(names)
    if labels is None:
        labels = pd.RangeIndex(found.shape[1])
    if len(labels) != found.shape[1]:
        raise ValueError(f"{len(labels)} names for {found.shape[1]} markers: pass one for each")
    return Markers(found, labels, rows, codes, Filters(maf, max_missing), bool(maf))


def _matched(data: ModelData, found: Genotypes, group: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Places of the individuals in the markers, and the individual of every row of the fit."""
    frame = data.frame
    n, size = len(frame.rows), found.shape[0]
    factor = _factor(data, group)
    if found.ids is not None and factor is not None:
        term = frame.random[factor]
        present, codes = np.unique(term.codes, return_inverse=True)
        levels = term.levels[present]
        place = _places(found.ids, levels)
        if np.all(place >= 0):
            return place, codes.ravel()
        if group is not None or not _are_rows(found, data):
            raise ValueError(_absent(term.group, levels[place < 0], found.ids))
    elif found.ids is not None and not _are_rows(found, data):
        raise ValueError(
            "the ids of the markers are no labels of rows of the data: pass group=, the factor whose levels "
            "they are"
        )
    if size == len(frame.data_index):
        place = positions(found.ids, _labels(frame.data_index), "the markers")
        return (frame.rows if place is None else place[frame.rows]), np.arange(n)
    if size == n:
        place = positions(found.ids, _labels(frame.index), "the markers")
        return (np.arange(n) if place is None else place), np.arange(n)
    raise ValueError(
        f"markers of {size} individuals for {len(frame.data_index)} rows of the data: pass ids=, the labels "
        "of the individuals" + (" (transpose them?)" if found.shape[1] in (n, len(frame.data_index)) else "")
    )


def _labels(index: pd.Index) -> pd.Index | None:
    return None if is_default(index) else index


def _factor(data: ModelData, group: str | None) -> int | None:
    """The random term whose levels are the individuals: that of `group`, of a kernel, the only factor."""
    terms = data.frame.random
    if group is not None:
        named = [k for k, term in enumerate(terms) if group in (term.group, term.factor)]
        if not named:
            raise ValueError(
                f"group={group!r} is no grouping factor: {nearest(str(group), [t.factor for t in terms])}"
            )
        return named[0]
    own = [k for k, term in enumerate(terms) if term.kernel is not None]
    if own:
        return own[0]
    factors = {term.factor for term in terms}
    return 0 if len(factors) == 1 else None


def _places(ids: pd.Index, levels: pd.Index) -> np.ndarray:
    """Where each level is among the ids, by text where the types differ; −1 where it is not."""
    place = ids.get_indexer(levels) if ids.dtype == levels.dtype else np.full(len(levels), -1)
    if np.all(place >= 0):
        return place
    texts = pd.Index([str(one) for one in ids], dtype=object)
    if not texts.is_unique:
        return place
    return texts.get_indexer(pd.Index([str(one) for one in levels], dtype=object))


def _are_rows(found: Genotypes, data: ModelData) -> bool:
    """Whether the ids of the markers are labels of the rows."""
    frame = data.frame
    return any(
        found.shape[0] == len(index) and not is_default(index) and bool(_places(found.ids, index).min() >= 0)
        for index in (frame.data_index, frame.index)
        if found.ids is not None and index.is_unique
    )


def _absent(group: str, absent: pd.Index, ids: pd.Index) -> str:
    shown = ", ".join(repr(one) for one in absent[:3].tolist()) + (", …" if len(absent) > 3 else "")
    return (
        f"the markers have no individual {shown} ({len(absent)} of the levels of {group!r}); theirs are "
        f"{', '.join(repr(one) for one in ids[:3].tolist())}, …: give them markers, or leave these rows out"
    )
