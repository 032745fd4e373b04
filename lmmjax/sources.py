"""Where the responses of a batch come from: one record that reads a range of columns at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.stores import HDF5, ZARR, needed, open_store, split_path

KINDS = (
    "an n × T array or memmap, a pandas or polars frame, an AnnData object, a zarr or h5py array, "
    "or a path that ends in .npy, .parquet, .h5ad, .h5, .hdf5, .zarr or .zip (of a zarr folder)"
)

BUFFERS = 1 << 24
"""Bytes of the buffers, together, through which the columns of a Parquet file of rows are read."""


@dataclasses.dataclass(frozen=True)
class Source:
    """T responses on n rows, of which a range is read at a time.

    Attributes
    ----------
    names : labels of the T responses.
    n_rows : n.
    read : (start, stop) ↦ (n, stop − start) floats, missing values NaN; called by one thread at a time.
    """

    names: pd.Index
    n_rows: int
    read: Callable[[int, int], np.ndarray]

    @property
    def n_responses(self) -> int:
        """T."""
        return len(self.names)


def open_source(
    obj: Any, *, index: str | None = None, layer: str | None = None, rows: bool = False
) -> Source:
    """The responses in `obj`, read when asked for.

    Parameters
    ----------
    obj : array or memmap (n × T), path to .npy, pandas or polars frame, path to a Parquet file, AnnData
        (its variables are the responses, its obs the rows of the design) or path to its .h5ad or .zarr, zarr
        or h5py array, path to a zarr array or "PATH::ARRAY" in an HDF5 or zarr file, or a `Source`. Sparse
        matrices on disk are best stored by columns (CSC): others are read whole for every range.
    index : column of a frame or Parquet file that labels rows and is no response. A first column that is
        not numeric is left out without being named, and so is an index that pandas wrote.
    layer : layer of an AnnData object or file ("PATH::LAYER" is the same), X if None.
    rows : the Parquet file has a row a response and a column a row of the design; the column `index` has
        the names of the responses. Parquet files of very many columns are slow to read; of rows they are not.

    Raises
    ------
    ValueError : what `obj` or its columns are, and what they should be.
    """
    if isinstance(obj, Source):
        return _checked(obj, index=index, layer=layer)
    if isinstance(obj, str | Path):
        return _from_path(obj, index, layer, rows)
    if rows:
        raise ValueError("rows=True is for Parquet files: transpose the responses, one column each")
    if hasattr(obj, "var_names") and hasattr(obj, "obs") and hasattr(obj, "X"):
        return _checked(_from_anndata(obj, layer), index=index)
    if hasattr(obj, "columns"):
        return _checked(_from_frame(obj, index), layer=layer)
    if hasattr(obj, "shape") and hasattr(obj, "dtype") and hasattr(obj, "__getitem__"):
        return _checked(_from_array(obj), index=index, layer=layer)
    raise ValueError(f"responses of type {type(obj).__name__} are not known: pass {KINDS}")


def _checked(source: Source, **unused: str | None) -> Source:
    """`source`, if it has responses, each with a name of its own, and none of the options is left over."""
    for option, value in unused.items():
        if value is not None:
            raise ValueError(f"{option}={value!r} means nothing for this kind of responses")
    if not source.n_responses:
        raise ValueError("there are no responses: not one column is left")
    if not source.names.is_unique:
        raise ValueError(f"two responses are called {source.names[source.names.duplicated()][0]!r}")
    return source


def _from_path(text: str | Path, index: str | None, layer: str | None, rows: bool) -> Source:
    path, inside = split_path(text)
    kind = path.suffix.lower()
    if kind in (".parquet", ".pq") and inside is None:
        return _checked(_from_parquet(path, index, rows), layer=layer)
    if rows:
        raise ValueError("rows=True is for Parquet files: transpose the responses, one column each")
    if kind == ".npy" and inside is None:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        return _checked(_from_array(array), index=index, layer=layer)
    if kind in (*HDF5, *ZARR):
        array, names = open_store(path, layer if inside is None else inside)
        taken = names is not None and inside is None
        return _checked(_from_array(array, names), index=index, layer=None if taken else layer)
    raise ValueError(f"{path}: files of kind {kind or 'without ending'} are not known: pass {KINDS}")


def _from_array(array: Any, names: Iterable[Any] | None = None) -> Source:
    """Anything with a shape, a dtype and slices; sparse slices are made dense."""
    if len(array.shape) != 2:
        raise ValueError(f"responses have shape {tuple(array.shape)}: pass n × T, one column a response")
    if np.dtype(array.dtype).kind not in "fiub":
        raise ValueError(f"responses are not numeric but {array.dtype}")

    def read(start: int, stop: int) -> np.ndarray:
        part = array[:, start:stop]
        return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=float)

    labels = pd.RangeIndex(array.shape[1]) if names is None else pd.Index(list(names))
    return Source(labels, int(array.shape[0]), read)


def _from_anndata(data: Any, layer: str | None) -> Source:
    if layer is not None and layer not in data.layers:
        known = ", ".join(map(repr, data.layers)) or "none"
        raise ValueError(f"there is no layer {layer!r}; the layers are: {known}")
    return _from_array(data.X if layer is None else data.layers[layer], data.var_names)


def _from_frame(frame: Any, index: str | None) -> Source:
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

    return Source(pd.Index([columns[k] for k in kept]), len(frame), read)


def _from_parquet(path: Path, index: str | None, rows: bool) -> Source:
    parquet = pyarrow("parquet")
    from pyarrow import ArrowInvalid, types

    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        file = parquet.ParquetFile(path, pre_buffer=False)
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
        of = range(total) if label is None else file.read(columns=[label]).column(0).to_pylist()
        # without a buffer size the columns of a whole row group are read at once
        size = int(np.clip(BUFFERS // len(names), 4096, 65536)) if names else 4096
        buffered = parquet.ParquetFile(path, pre_buffer=False, buffer_size=size)
        return Source(pd.Index(of), len(names), _RowReader(buffered, names).read)
    n_rows = file.metadata.num_rows

    def read(start: int, stop: int) -> np.ndarray:
        table = file.read(columns=names[start:stop])
        # a response is contiguous here: columns are copied at the speed of memory
        values = np.empty((stop - start, n_rows))
        for out, column in zip(values, table.columns, strict=True):
            out[:] = _floats(column)
        return values.T

    return Source(pd.Index(names, dtype=object), n_rows, read)


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


def pyarrow(part: str) -> Any:
    """`pyarrow.part`, or an ImportError that names the extra."""
    return needed(f"pyarrow.{part}", "Parquet files", "parquet")
