"""Responses in frames, CSV, TSV and Parquet files, of a column or a row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.matching import is_default, observations
from lmmjax.stream.files import reading
from lmmjax.stream.packages import pyarrow

BUFFERS = 1 << 24
"""Bytes of the buffers, together, through which the columns of a Parquet file of rows are read."""

Columns = tuple[pd.Index, int, Callable[[int, int], np.ndarray], pd.Index | None]
"""Names of the responses, number of rows, (start, stop) ↦ (n, stop − start) floats, labels of the rows."""


def from_frame(frame: Any, index: str | None) -> Columns:
    """The columns of a pandas or polars frame, without the one that labels rows."""
    pandas = isinstance(frame, pd.DataFrame)
    columns = list(frame.columns)

    def column(k: int) -> Any:
        return frame.iloc[:, k] if pandas else frame[columns[k]]

    def is_number(k: int) -> bool:
        kind = column(k).dtype
        if pd.api.types.is_numeric_dtype(kind) if pandas else kind.is_numeric():
            return True
        try:
            np.asarray(column(k), dtype=float)
        except (TypeError, ValueError):
            return False
        # text that spells numbers converts as well
        return not any(isinstance(value, str) for value in column(k))

    kept = np.array(_responses(columns, is_number, index), dtype=int)

    def read(start: int, stop: int) -> np.ndarray:
        part = kept[start:stop]
        if pandas:
            return frame.iloc[:, part].to_numpy(dtype=float, na_value=np.nan)
        return np.asarray(frame[:, part.tolist()].to_numpy(), dtype=float)

    left = [k for k in range(len(columns)) if k not in set(kept)]
    labels = frame.index if pandas else None
    if left and (labels is None or index is not None or is_default(labels)):
        labels = pd.Index(list(column(left[0])))
    return pd.Index([columns[k] for k in kept]), len(frame), read, labels


TEXT = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""Endings of text files, which may be followed by one of an archive, and what separates their columns."""

ARCHIVES = (".gz", ".zip", ".xz", ".bz2", ".zst")

PANDAS = tuple(map(int, pd.__version__.split(".")[:2]))
EXACT: dict[str, Any] = {"float_precision": "round_trip"} if PANDAS < (3, 1) else {}
"""What makes `read_csv` read numbers to the last digit; pandas 3.1 always does, and warns of the option."""


def kind_of(path: Path) -> str:
    """The ending of a file in small letters, without one of an archive if a text file is in it."""
    endings = [ending.lower() for ending in path.suffixes]
    if len(endings) > 1 and endings[-1] in ARCHIVES and endings[-2] in TEXT:
        return endings[-2]
    return endings[-1] if endings else ""


def read_text(path: Path) -> pd.DataFrame:
    """The table of a text file with a header, columns between commas or, in .tsv and .tab files, tabs.

    Raises
    ------
    ValueError : names a file that cannot be read. FileNotFoundError : there is none.
    """
    separator = TEXT.get(kind_of(path), ",")
    kind = "CSV" if separator == "," else "TSV"
    with reading(
        path, f"a {kind} file with a header line is needed, as it is or whole in an archive (.gz, .zip, .xz)"
    ):
        # pandas would rename the second of two
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
        if header.duplicated().any():
            twice = header[header.duplicated()].iloc[0]
            raise ValueError(f"{path} has several columns {twice!r}: rename or drop one")
        frame = pd.read_csv(path, sep=separator, **EXACT)
        if frame.shape[1] == 1 and str(frame.columns[0]).count(";") > 0:
            raise ValueError(
                f"{path} has the one column {frame.columns[0]!r}: write commas between columns, or tabs "
                "(.tsv), and points in numbers"
            )
        _require_distinct_codes(frame, path, separator)
        return frame


def _require_distinct_codes(frame: pd.DataFrame, path: Path, separator: str) -> None:
    """ValueError if codes such as 01 and 1 have become one number."""
    whole = [name for name, kind in frame.dtypes.items() if kind.kind in "iu"]
    if not whole:
        return
    texts = pd.read_csv(path, sep=separator, usecols=whole, dtype=str)
    for name in whole:
        text = texts[name].str.strip()
        padded = text[text.str.match(r"0\d")]
        for code in padded.unique():
            other = text[(frame[name] == int(code)) & (text != code)]
            if len(other):
                raise ValueError(
                    f"{path}: column {name!r} has {code!r} and {other.iloc[0]!r}, which are one number: "
                    "write numbers alike, or codes with a letter"
                )


def from_text(path: Path, index: str | None, rows: bool) -> Columns:
    """The columns of a CSV or TSV file, or its rows, as `lmmjax.stream.open_source` says; read whole."""
    frame = read_text(path)
    if index is None and frame.shape[1] and frame.columns[0] == "Unnamed: 0":
        # labels, as pandas and R write them
        index = frame.columns[0]
    if not rows:
        return from_frame(frame, index)
    kept = _responses(list(frame.columns), lambda k: frame.dtypes.iloc[k].kind in "biuf", index)
    values = frame.iloc[:, kept].to_numpy(dtype=float).T
    label = [k for k in range(frame.shape[1]) if k not in set(kept)]
    names = pd.Index(frame.iloc[:, label[0]]) if label else pd.RangeIndex(len(frame))
    observed = observations(frame.columns[kept])
    return pd.Index(names.tolist()), len(kept), lambda start, stop: values[:, start:stop], observed


def from_parquet(path: Path, index: str | None, rows: bool) -> Columns:
    """The columns of a Parquet file, or its rows, as `lmmjax.stream.open_source` says."""
    parquet = pyarrow("parquet")
    from pyarrow import ArrowInvalid, types

    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if path.is_dir():
        raise ValueError(f"{path} is a folder: pass one Parquet file")
    with reading(path):
        try:
            file = parquet.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        except ArrowInvalid as error:
            raise ValueError(f"{path} is not a Parquet file: {error}") from None
    schema = file.schema_arrow
    stored = (schema.pandas_metadata or {}).get("index_columns", ())
    labels = {name for name in stored if isinstance(name, str)}
    columns, kinds = schema.names, schema.types

    def is_number(k: int) -> bool:
        tests = (types.is_floating, types.is_integer, types.is_boolean, types.is_decimal, types.is_null)
        return any(test(kinds[k]) for test in tests)

    names = [columns[k] for k in _responses(columns, is_number, index, labels)]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has several columns of one name")
    if rows:
        left = [name for name in columns if name not in set(names)]
        label = index or (left[0] if left else None)
        total = file.metadata.num_rows
        with reading(path):
            of = range(total) if label is None else file.read(columns=[label]).column(0).to_pylist()
        # without a buffer size the columns of a whole row group are read at once
        size = int(np.clip(BUFFERS // len(names), 4096, 65536)) if names else 4096
        buffered = parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=size, page_checksum_verification=True
        )
        return pd.Index(of), len(names), _RowReader(buffered, names).read, observations(names)
    n_rows = file.metadata.num_rows

    def read(start: int, stop: int) -> np.ndarray:
        table = file.read(columns=names[start:stop])
        # a response is contiguous here: columns are copied at the speed of memory
        values = np.empty((stop - start, n_rows))
        for out, column in zip(values, table.columns, strict=True):
            out[:] = _floats(column)
        return values.T

    own = [index] if index else [name for name in columns if name in labels]
    own = own or [name for name in columns if name not in set(names)]
    of_rows = None
    if own:
        with reading(path):
            parts = [file.read(columns=[name]).column(0).to_pylist() for name in own]
        of_rows = pd.Index(parts[0], name=own[0]) if len(own) == 1 else pd.MultiIndex.from_arrays(parts)
    return pd.Index(names, dtype=object), n_rows, read, of_rows


def _floats(column: Any) -> np.ndarray:
    """A column of Arrow's as floats; nulls are NaN."""
    from pyarrow import types

    if not (types.is_floating(column.type) or types.is_integer(column.type)):
        column = column.cast("float64")
    return np.asarray(column)


class _RowReader:
    """Rows of a Parquet file as columns; ranges that follow each other are read in one pass."""

    def __init__(self, file: Any, columns: list[str]):
        self.file, self.columns, self.at = file, columns, -1
        counts = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
        self.first = np.cumsum([0, *counts])

    def read(self, start: int, stop: int) -> np.ndarray:
        if start != self.at:
            self._seek(start)
        values, filled = np.empty((len(self.columns), stop - start)), 0
        while filled < stop - start:
            part = self._next(stop - start - filled)
            for out, column in zip(values, part.columns, strict=True):
                out[filled : filled + part.num_rows] = _floats(column)
            filled += part.num_rows
        self.at = stop
        return values

    def _seek(self, start: int) -> None:
        group = int(np.searchsorted(self.first, start, side="right")) - 1
        # one call a group: a call keeps what it has read of all of its groups
        self.batches = (
            batch
            for k in range(group, len(self.first) - 1)
            for batch in self.file.iter_batches(4096, row_groups=[k], columns=self.columns)
        )
        self.rest, skip = next(self.batches), start - int(self.first[group])
        while skip:
            skip -= self._next(skip).num_rows

    def _next(self, most: int) -> Any:
        """The next rows, at most so many."""
        if not self.rest.num_rows:
            self.rest = next(self.batches)
        part, self.rest = self.rest.slice(0, most), self.rest.slice(most)
        return part


def _responses(
    columns: list[Any], is_number: Callable[[int], bool], index: str | None, labels: Iterable[Any] = ()
) -> list[int]:
    """Positions of the columns that are responses; a column that cannot be one is an error."""
    if index is not None and index not in columns:
        raise ValueError(f"unknown column {index!r} as index; the first columns are {columns[:5]}")
    known = {index, *labels} - {None}
    kept = [k for k, name in enumerate(columns) if name not in known]
    wrong = [k for k in kept if not is_number(k)]
    if index is None and not known and wrong[:1] == [0]:
        kept, wrong = kept[1:], wrong[1:]
    if wrong:
        raise ValueError(
            f"column {columns[wrong[0]]!r} is not numeric ({len(wrong)} such columns): leave out what is "
            "not a response, or name the column that labels rows as index"
        )
    return kept
