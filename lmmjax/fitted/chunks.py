"""Data that come in chunks of rows: passes over all of them, and some rows that show all levels."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lmmjax.formula.build import formula_parts
from lmmjax.formula.columns import Table, nearest
from lmmjax.formula.parts import require_known
from lmmjax.formula.text.bars import SplitFormula, split_bars
from lmmjax.formula.text.update import has_dot

SUFFIXES = (".parquet", ".pq", ".parq")
"""Files that are read by the chunk."""

HEAD, ROWS = 1000, 250_000
"""Rows that are looked at in any case; rows of a chunk that is read from a file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Chunks:
    """The passes over data: columns, or None for all ↦ the frames of one, their rows numbered through."""

    read: Callable[[list[str] | None], Iterator[pd.DataFrame]]

    def __call__(self, columns: list[str] | None) -> Iterator[pd.DataFrame]:
        start = 0
        for piece in self.read(columns):
            numbered = piece.copy(deep=False)
            numbered.index = pd.RangeIndex(start, start + len(piece))
            start += len(piece)
            yield numbered


def is_chunked(data: Any) -> bool:
    """Whether data are read by the chunk: a path of Parquet, a dataset or reader of Arrow, a function."""
    if isinstance(data, str | Path):
        return Path(data).suffix.lower() in SUFFIXES or Path(data).is_dir()
    arrow = hasattr(data, "to_batches") and hasattr(data, "scanner")
    return arrow or hasattr(data, "read_next_batch") or callable(data)


def chunks_of(data: Any) -> Chunks:
    """The passes over data.

    Parameters
    ----------
    data : path of a Parquet file or a folder of them; `pyarrow.dataset.Dataset`; a function without
        arguments that returns an iterable of frames or record batches anew each time; a
        `pyarrow.RecordBatchReader`, which can be read once and is kept in a temporary file.
    """
    if isinstance(data, Chunks):
        return data
    if hasattr(data, "read_next_batch"):
        return _kept(data)
    if isinstance(data, str | Path):
        if not Path(data).exists():
            raise FileNotFoundError(2, "No such file or directory", str(data))
        try:
            import pyarrow.dataset as ds
        except ImportError:
            raise ImportError("data in Parquet files need pyarrow: pip install 'lmmjax[parquet]'") from None
        try:
            data = ds.dataset(data, format="parquet", partitioning="hive")
        except Exception:
            raise ValueError(
                f"{data} is no Parquet file and no folder of them: read it, as with pd.read_csv"
            ) from None
    if callable(data):
        return Chunks(_Called(data))

    def read(columns: list[str] | None) -> Iterator[pd.DataFrame]:
        for batch in data.to_batches(columns=columns, batch_size=ROWS):
            if batch.num_rows:
                yield batch.to_pandas()

    return Chunks(read)


class _Called:
    """The passes that a function begins."""

    def __init__(self, begin: Callable[[], Any]):
        self.begin, self.last = begin, None

    def __call__(self, columns: list[str] | None) -> Iterator[pd.DataFrame]:
        pieces = self.begin()
        if not hasattr(pieces, "__iter__"):
            raise ValueError(
                f"the function that is called for the data returned {type(pieces).__name__}: return frames "
                "or record batches, in a list or generator"
            )
        if hasattr(pieces, "__next__"):
            if pieces is self.last:
                raise ValueError(
                    "the function that is called for the data returned the same iterator twice, which is "
                    "used up: make a new one in every call, since the data are read more than once"
                )
            self.last = pieces
        for piece in pieces:
            frame = _as_frame(piece)
            yield frame if columns is None else _chosen(frame, columns)


def _as_frame(piece: Any) -> pd.DataFrame:
    if hasattr(piece, "to_pandas"):
        return piece.to_pandas()
    if not isinstance(piece, pd.DataFrame | Mapping):
        raise ValueError(
            f"a chunk of the data is of type {type(piece).__name__}: give frames or record batches"
        )
    return pd.DataFrame(piece)


def _chosen(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """ValueError if a chunk lacks a column that the first has."""
    for name in columns:
        if name not in frame:
            raise ValueError(f"a chunk of the data has no column {name!r}: {nearest(name, map(str, frame))}")
    return frame.loc[:, columns]


def _kept(reader: Any) -> Chunks:
    """The passes over what can be read once, from a file that goes when nobody can read it any more."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    folder = tempfile.mkdtemp(prefix="lmmjax-rows-")
    path = Path(folder) / "rows.parquet"
    with pq.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_table(pa.Table.from_batches([batch]))
    inner = chunks_of(ds.dataset(path, format="parquet"))

    def read(columns: list[str] | None) -> Iterator[pd.DataFrame]:
        return inner(columns)

    weakref.finalize(read, shutil.rmtree, folder, ignore_errors=True)
    return Chunks(read)


def columns_read(
    formula: str, first: pd.DataFrame, safe: bool, **vectors: str | None
) -> tuple[SplitFormula, list[str], list[list[str]]]:
    """The formula split, the columns of the data that it reads, and those whose combinations are levels.

    Parameters
    ----------
    first : some rows, for the names and types of columns; vectors : expressions beside the formula.
    """
    if has_dot(formula):
        raise ValueError("`.` in the formula: data that are read by the chunk need their columns named")
    table, split = Table(first), split_bars(formula)
    parts = formula_parts(
        split, table, safe, **{name: text for name, text in vectors.items() if text is not None}
    )
    grouping = {name: f"({bar.text})" for bar in split.bars for name in bar.group}
    require_known(parts.values(), grouping, table)
    evaluated = list(dict.fromkeys(name for part in parts.values() for name in part.columns))
    numeric = pd.api.types.is_numeric_dtype
    factors = [
        name
        for name in evaluated
        if not numeric(first[name].dtype)
        or pd.api.types.is_bool_dtype(first[name].dtype)
        or re.search(rf"\b(C|factor)\(\s*`?{re.escape(name)}\b", formula)
    ]
    keys = [[name] for name in factors] + [list(bar.group) for bar in split.bars]
    return split, list(dict.fromkeys([*evaluated, *grouping])), keys


@dataclasses.dataclass(frozen=True, eq=False)
class Some:
    """Some complete rows, with all levels; of all rows how many, and missing values by column.

    `few` has the values of columns of numbers that have at most two.
    """

    rows: pd.DataFrame
    total: int
    missing: dict[str, int]
    few: dict[str, list[Any]]


def rows_of_all_levels(chunks: Chunks, columns: list[str], keys: list[list[str]]) -> Some:
    """Complete rows with every combination of each of the `keys`, and what else one pass tells."""
    total, head, size, lost = 0, [], 0, pd.Series(0, index=columns)
    found: list[list[pd.DataFrame]] = [[] for _ in keys]
    few: dict[str, list[Any]] | None = None
    for frame in chunks(columns):
        total += len(frame)
        lost = lost + frame.isna().sum()
        whole = frame.dropna()
        if size < HEAD:
            head.append(whole.iloc[: HEAD - size])
            size += len(head[-1])
        if len(whole):
            few = {name: [] for name in _numbers(whole)} if few is None else few
            few = {name: own for name in few if len(own := _union(few[name], whole[name])) <= 2}
        for held, key in zip(found, keys, strict=True):
            held.append(whole.drop_duplicates(key))
            # twice what there was: as often as not it has been seen
            if sum(map(len, held[1:])) > max(len(held[0]), ROWS):
                held[:] = [pd.concat(held).drop_duplicates(key)]
    if not total or not size:
        raise ValueError("no row is left without missing values" if total else "the data have no rows")
    kept = [pd.concat(held).drop_duplicates(key) for held, key in zip(found, keys, strict=True)]
    missing = {str(name): int(count) for name, count in lost.items() if count}
    some = pd.concat([*head, *kept])
    return Some(some.loc[~some.index.duplicated()], total, missing, few or {})


def _numbers(frame: pd.DataFrame) -> list[str]:
    kinds = pd.api.types
    return [
        str(n)
        for n, column in frame.items()
        if kinds.is_numeric_dtype(column.dtype) and not kinds.is_bool_dtype(column.dtype)
    ]


def _union(values: list[Any], column: Any) -> list[Any]:
    """The values with those of a column; three of them stand for more."""
    head = set(values) | set(column.iloc[:100].tolist())
    return sorted((head | set(column.unique().tolist())) if len(head) <= 2 else head)[:3]
