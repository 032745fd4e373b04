"""Arrays in HDF5 and zarr stores, of AnnData among others: opened by path, read a slice at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lmmjax.formula.matching import observations
from lmmjax.stream.files import reading
from lmmjax.stream.packages import needed

HDF5, ZARR = (".h5", ".hdf5", ".h5ad"), (".zarr", ".zip")


def split_path(text: str | Path) -> tuple[Path, str | None]:
    """(file, name of an array inside) of "file::name", or (file, None)."""
    file, sep, inside = str(text).partition("::")
    return Path(file), inside if sep else None


Opened = tuple[Any, Iterable[Any] | None, pd.Index | None]
"""An array, names of its columns and labels of its rows."""


def open_store(path: Path, inside: str | None) -> Opened:
    """An array with shape, dtype and slices, with names and labels if the store is of AnnData.

    Parameters
    ----------
    path : HDF5 file, zarr folder or zipped zarr folder.
    inside : array of the store, which may be left out if there is but one of two dimensions; of AnnData a
        layer, X if None.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError : the file is absent, is no store or has no such array; a
        package is missing.
    """
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    open_ = _open_hdf5 if path.suffix.lower() in HDF5 else _open_zarr
    with reading(path):
        return _find(open_(path), path, inside)


def _find(store: Any, path: Path, inside: str | None) -> Opened:
    if hasattr(store, "shape"):
        if inside is not None:
            raise ValueError(f"{path} is an array and has none of the name {inside!r} inside")
        return store, None, None
    if path.suffix.lower() == ".h5ad" or store.attrs.get("encoding-type") == "anndata":
        return _from_anndata(store, path, inside)
    arrays = dict(_matrices(store))
    if inside is None and len(arrays) == 1:
        return next(iter(arrays.values())), None, None
    key = None if inside is None else inside.strip("/")
    if key not in arrays:
        known = ", ".join(map(repr, arrays)) or "none"
        what = f"no array {inside!r}" if inside is not None else "several arrays" if arrays else "no array"
        raise ValueError(f"{path} has {what} of two dimensions; name one as '{path.name}::ARRAY': {known}")
    return arrays[key], None, None


def _open_hdf5(path: Path) -> Any:
    h5py = needed("h5py", "HDF5 files", "hdf5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file: {error}") from None


def _open_zarr(path: Path) -> Any:
    zarr = needed("zarr", "zarr stores", "zarr")
    try:
        store = zarr.storage.ZipStore(str(path), mode="r") if path.is_file() else str(path)
        return zarr.open(store, mode="r")
    except Exception as error:
        raise ValueError(f"{path} holds no zarr array or group: {error}") from None


def _matrices(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, array) of all arrays of two dimensions in a group, at any depth."""
    for key in sorted(group):
        child = group[key]
        if not hasattr(child, "shape"):
            yield from _matrices(child, f"{prefix}{key}/")
        elif len(child.shape) == 2:
            yield f"{prefix}{key}", child


def _from_anndata(group: Any, path: Path, layer: str | None) -> Opened:
    io = needed("anndata.io", "AnnData files", "anndata")
    layers = group.get("layers", {})
    if layer is not None and layer not in layers:
        known = ", ".join(map(repr, layers)) or "none"
        raise ValueError(f"{path} has no layer {layer!r}; the layers are: {known}")
    if layer is None and "X" not in group:
        raise ValueError(f"{path} has no X: name a layer, one of: {', '.join(map(repr, layers)) or 'none'}")
    if "var" not in group:
        raise ValueError(f"{path} has no table var, so that it is no AnnData file: rename it to .h5")
    element = group["X"] if layer is None else layers[layer]
    # a sparse matrix is a group of three arrays
    values = element if hasattr(element, "shape") else io.sparse_dataset(element)
    labels = observations(io.read_elem(group["obs"]).index) if "obs" in group else None
    return values, io.read_elem(group["var"]).index, labels
