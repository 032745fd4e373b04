"""A covariate of its own for every response: from memory or files, some responses at a time, in shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.compile import compiled_at_once
from lmmjax.arrays.memory import available_memory
from lmmjax.fitted import Fitted, FittedMany, ModelData, some_of_many
from lmmjax.fitted.responses import beside
from lmmjax.formula.matching import positions
from lmmjax.inference.scan.general import GeneralScan
from lmmjax.scan.beside import Beside
from lmmjax.scan.evaluate import How
from lmmjax.scan.general import general_scans, own_values
from lmmjax.scan.nulls import portable_fits
from lmmjax.scan.pairs import Pairs, joined, no_pairs
from lmmjax.scan.task import wanted
from lmmjax.scan.work import NUMBERS, ROWS, SHARE, of_fits, table_columns
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.inputs import in_order
from lmmjax.stream.portable import PathColumns, absolute, spooled
from lmmjax.stream.sources import Source, open_source
from lmmjax.stream.work import span

OWN = "_own{}.npy"
"""What covariates that are in memory are written to for workers."""

Read = Callable[[int, int], np.ndarray]
"""Columns from one up to another."""


@dataclasses.dataclass(frozen=True, eq=False)
class Own:
    """J covariates with a value for every value of T responses.

    Attributes
    ----------
    names : of the covariates; labels : (T,) of the responses.
    reads : of each, its values (n, k) on the rows of the model and in the order of the responses.
    files : what they are read from, as far as these are files.
    """

    names: tuple[str, ...]
    labels: pd.Index
    reads: tuple[Read, ...]
    files: list[Any]

    def read(self, j: int, start: int, stop: int) -> np.ndarray:
        """Values (n, k) of covariate j for some responses; ValueError names one that is infinite."""
        values = np.asarray(self.reads[j](start, stop), float)
        infinite = np.isinf(values).any(axis=0)
        if infinite.any():
            label = self.labels[start + int(np.argmax(infinite))]
            raise ValueError(f"own: {self.names[j]!r} has an infinite value for response {label!r}")
        return values


@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """Columns of an array."""

    values: np.ndarray

    def __call__(self, start: int, stop: int) -> np.ndarray:
        return self.values[:, start:stop]


@dataclasses.dataclass(frozen=True, eq=False)
class Matched:
    """Columns of a source, matched.

    Attributes
    ----------
    source : reads its columns; rows, columns : places of the rows and columns wanted, None for all in order.
    """

    source: Read
    rows: np.ndarray | None
    columns: np.ndarray | None

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if self.columns is None:
            values = self.source(start, stop)
        else:
            values = np.concatenate([self.source(k, k + 1) for k in self.columns[start:stop]], axis=1)
        return values if self.rows is None else values[self.rows]


def own_covariates(fits: Fitted | FittedMany, own: Any) -> Own:
    """Covariates on the rows of the model and in the order of the responses.

    Parameters
    ----------
    own : n × T of any library, a path or a `Source` of `lmmjax.stream.open_source`; or several by name.

    Raises
    ------
    ValueError : rows or columns that do not match those of the responses; a fit of one response.
    """
    named = own if isinstance(own, Mapping) and not isinstance(own, pd.DataFrame) else {"own": own}
    if not named:
        raise ValueError("own= is empty: pass covariates, n × T, or several by name")
    if isinstance(fits, Fitted):
        raise ValueError("own: a fit has one response, whose covariates are markers: pass them as such")
    reads = [
        _opened(fits, given, "own" if named is not own else f"own[{name!r}]") for name, given in named.items()
    ]
    return Own(tuple(map(str, named)), fits.names, tuple(reads), list(named.values()))


def _opened(fits: FittedMany, given: Any, what: str) -> Read:
    if not isinstance(given, str | Path | Source):
        return Matrix(beside(fits.data, given, fits.names, what))
    source = in_order(fits.data, open_source(given), what)
    read = source.read
    if not isinstance(given, Source):
        # opened where it is read, so that it pickles
        read = PathColumns(absolute(given), source.place, {})
    if source.n_responses != len(fits.names):
        raise ValueError(
            f"{what} are {source.n_responses} columns for {len(fits.names)} responses: pass one each"
        )
    columns = None
    if not isinstance(source.names, pd.RangeIndex):
        columns = positions(source.names, fits.names, what, "the responses", "columns")
    return Matched(read, _rows(fits.data, source.n_rows, what), columns)


def _rows(data: ModelData, count: int, what: str) -> np.ndarray | None:
    """Places of the rows of the model among those of the data, None where these are all."""
    n, whole = data.design.n, len(data.frame.data_index)
    if count not in (n, whole):
        raise ValueError(f"{what} have {count} rows; the data of the design have {whole}: pass one a row")
    return None if count == n else data.frame.rows


def own_pairs(
    fits: FittedMany, g: np.ndarray, place: int, first: int, how: How, beside: Beside, ddf: str | None
) -> Pairs:
    """The pairs of covariate `place`, values g (n, t), and the responses of these fits, from `first` on."""
    names, total = wanted(how, beside), len(fits.names)
    terms = [{name: np.full(total, np.nan) for name in names} for _ in range(beside.width)]
    for where, engine, rows in general_scans(fits, ddf):
        assert isinstance(engine, GeneralScan)
        mine = own_values(engine, g[:, where], beside.carriers, rows, how)
        for whole, some in zip(terms, mine, strict=True):
            for name in whole:
                whole[name][where] = some[name][0]
    return Pairs(np.full(total, place), first + np.arange(total), np.zeros(total), terms)


Piece = tuple[int, int, np.ndarray]
"""A covariate, the first of the responses, and values (n, t)."""


@dataclasses.dataclass(frozen=True, eq=False)
class OwnWork:
    """Covariates of their own in shards of J × T values, those of one covariate after those of another.

    Attributes
    ----------
    fits : of the responses; own : the covariates; how, beside, ddf : as of a scan.
    manifest : what a resumed call must share, with "chunk" once it is cut.
    """

    fits: FittedMany
    own: Own
    how: How
    beside: Beside
    ddf: str | None
    manifest: dict[str, Any]

    @property
    def labels(self) -> pd.Index:
        """(T,) of the responses."""
        return self.fits.names

    @property
    def total(self) -> int:
        """J × T."""
        return len(self.own.names) * len(self.labels)

    def span(self, k: int) -> tuple[int, int]:
        """Those of shard k."""
        return span(self.total, self.manifest["chunk"], k)

    def describe(self, k: int) -> str:
        """Which shard k has, for messages."""
        start, stop = self.span(k)
        return f"covariates {start} to {stop - 1}"

    def cut(self, chunk: int) -> OwnWork:
        """The work in shards of at most so many."""
        return dataclasses.replace(self, manifest=self.manifest | {"chunk": chunk})

    def size(self) -> int:
        """How many a shard by default."""
        n = max(1, self.fits.data.design.n)
        most = min(NUMBERS, SHARE * available_memory() / 8) / (n * self.beside.width)
        return int(max(1, min(most, ROWS / self.beside.width)))

    def read(self, k: int) -> list[Piece]:
        """The values of shard k."""
        (start, stop), total = self.span(k), len(self.labels)
        out = []
        for j in range(start // total, -(-stop // total)):
            first, last = max(start - j * total, 0), min(stop - j * total, total)
            out.append((j, first, self.own.read(j, first, last)))
        return out

    def stamp(self, k: int, values: list[Piece]) -> dict[str, Any]:
        """What shard k is made from."""
        own = {"covariates": digest([[j, first, digest_columns(g)] for j, first, g in values])}
        return {"run": digest(self.manifest), "part": k, "digests": own}

    def columns(self, k: int, values: list[Piece]) -> dict[str, Any]:
        """The table of shard k, a column each."""
        names = wanted(self.how, self.beside)
        found = [no_pairs(names, self.beside.width)]
        # a part has the same bytes whatever was fitted before it
        with compiled_at_once():
            for j, first, g in values:
                some = some_of_many(self.fits, np.arange(first, first + g.shape[1]))
                found.append(own_pairs(some, g, j, first, self.how, self.beside, self.ddf))
        rows = joined(found).rows(names)
        return table_columns(rows, pd.Index(list(self.own.names)), self.labels, self.beside.terms)

    def remarks(self, values: list[Piece], columns: dict[str, Any]) -> list[Any]:
        """None: a covariate without a result is missing in its row."""
        return []


def own_work(fits: FittedMany, own: Own, how: How, beside: Beside, ddf: str | None) -> OwnWork:
    """The work, not yet cut."""
    names = list(own.names)
    manifest = of_fits(fits, how, beside) | {"n_covariates": len(names), "covariates": names, "ddf": ddf}
    return OwnWork(dataclasses.replace(fits, cache={}), own, how, beside, ddf, manifest)


def portable_own(work: OwnWork, parts: Path) -> OwnWork:
    """The work as it pickles: fits with their rows, what is no file from files beside the parts."""
    own, reads = work.own, []
    n, total = work.fits.data.design.n, len(work.labels)
    for j, read in enumerate(own.reads):
        if not (isinstance(read, Matched) and isinstance(read.source, PathColumns)):
            read = spooled(Source(pd.RangeIndex(total), n, read), parts / OWN.format(j)).read
        reads.append(read)
    moved = dataclasses.replace(own, reads=tuple(reads), files=[])
    return dataclasses.replace(work, fits=portable_fits(work.fits), own=moved)
