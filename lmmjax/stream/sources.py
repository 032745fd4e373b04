"""Where the responses of a batch come from: one record that reads a range of columns at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.annotated import is_annotated, stored_matrix
from lmmjax.stream.files import reading
from lmmjax.stream.images import Images, are_images
from lmmjax.stream.stores import HDF5, ZARR, open_store, split_path
from lmmjax.stream.tables import TEXT, from_frame, from_parquet, from_text, kind_of

KINDS = (
    "an n × T array or memmap, a pandas or polars frame, an AnnData object, a zarr or h5py array, "
    "images, or a path that ends in .npy, .parquet, .csv, .tsv, .h5ad, .h5, .hdf5, .zarr, .zip (of a zarr "
    "folder), .nii, .nii.gz or .gii"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """T responses on n rows, of which a range is read at a time.

    Attributes
    ----------
    names : labels of the T responses.
    n_rows : n.
    read : (start, stop) ↦ (n, stop − start) floats, missing values NaN; called by one thread at a time.
    index : labels of the rows, which are matched with those of the design; None where there are none.
    place : positions (n,) in what it was opened from of the rows that `read` gives; None for all in order.
    filename : of the file that it was opened from, which results may not replace; None for what is in memory.
    """

    names: pd.Index
    n_rows: int
    read: Callable[[int, int], np.ndarray]
    index: pd.Index | None = None
    place: np.ndarray | None = None
    filename: str | None = None

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
    obj : array or memmap (n × T), path to .npy, pandas or polars frame, path to a Parquet, CSV or TSV file,
        AnnData (its variables are the responses, its obs the rows of the design) or path to its .h5ad or
        .zarr, zarr or h5py array, path to a zarr array or "PATH::ARRAY" in an HDF5 or zarr file, or a
        `Source`; `Images` or what it takes. Sparse matrices on disk are best stored by columns (CSC): others
        are read whole for every range.
    index : column of a frame or a file of columns that labels rows and is no response. A first column that is
        not numeric is one without being named, and so is an index that pandas wrote.
    layer : layer of an AnnData object or file ("PATH::LAYER" is the same), X if None.
    rows : the Parquet, CSV or TSV file has a row a response and a column a row of the design; the column
        `index` has the names of the responses. Parquet files of very many columns are slow to read; of
        rows they are not.

    Raises
    ------
    ValueError : what `obj` or its columns are, and what they should be.
    """
    if isinstance(obj, Source):
        return _checked(obj, index=index, layer=layer)
    if isinstance(obj, Images) or are_images(obj):
        images = obj if isinstance(obj, Images) else Images(obj)
        source = Source(images.names, images.shape[0], images.read, images.index)
        return _checked(source, index=index, layer=layer)
    if isinstance(obj, str | Path):
        return _from_path(obj, index, layer, rows)
    if rows:
        raise ValueError("rows=True is for Parquet and text files: transpose the responses, one column each")
    if is_annotated(obj):
        return _checked(_from_anndata(obj, layer), index=index)
    if hasattr(obj, "columns"):
        return _checked(Source(*from_frame(obj, index)), layer=layer)
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
    source = _open_path(path, inside, index, layer, rows)

    def read(start: int, stop: int) -> np.ndarray:
        with reading(path):
            return source.read(start, stop)

    return dataclasses.replace(source, read=read, filename=str(path))


def _open_path(path: Path, inside: str | None, index: str | None, layer: str | None, rows: bool) -> Source:
    kind = kind_of(path)
    if kind in (".parquet", ".pq") and inside is None:
        return _checked(Source(*from_parquet(path, index, rows)), layer=layer)
    if kind in TEXT and inside is None:
        return _checked(Source(*from_text(path, index, rows)), layer=layer)
    if rows:
        raise ValueError("rows=True is for Parquet and text files: transpose the responses, one column each")
    if kind == ".npy" and inside is None:
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        with reading(path):
            # np.load would take an archive, too; objects are never unpickled
            array = np.lib.format.open_memmap(path, mode="r")
        return _checked(_from_array(array), index=index, layer=layer)
    if kind in (*HDF5, *ZARR):
        array, names, labels = open_store(path, layer if inside is None else inside)
        taken = names is not None and inside is None
        source = _from_array(array, names, labels)
        return _checked(source, index=index, layer=None if taken else layer)
    raise ValueError(f"{path}: files of kind {kind or 'without ending'} are not known: pass {KINDS}")


def _from_array(array: Any, names: Iterable[Any] | None = None, index: pd.Index | None = None) -> Source:
    """Anything with a shape, a dtype and slices; sparse slices are made dense."""
    if len(array.shape) != 2:
        raise ValueError(f"responses have shape {tuple(array.shape)}: pass n × T, one column a response")
    if np.dtype(array.dtype).kind not in "fiub":
        raise ValueError(f"responses are not numeric but {array.dtype}")

    def read(start: int, stop: int) -> np.ndarray:
        part = array[:, start:stop]
        return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=float)

    labels = pd.RangeIndex(array.shape[1]) if names is None else pd.Index(list(names))
    return Source(labels, int(array.shape[0]), read, index)


def _from_anndata(data: Any, layer: str | None) -> Source:
    return _from_array(*stored_matrix(data, layer))
