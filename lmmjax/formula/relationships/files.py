"""Kernels as files, with the decompositions that were made of them: npz, which NumPy reads anywhere."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from lmmjax.design import LevelKernel
from lmmjax.gram.spectral.decomposition import Decomposition

FORMAT = "lmmjax kernel 1"
SPARSE = ("data", "indices", "indptr", "shape")


def write_kernel(path: str | Path | IO[bytes], levels: LevelKernel, ids: pd.Index, name: str | None) -> None:
    """The file of a kernel, or what is written to one that is open.

    Raises
    ------
    ValueError : labels that are neither text nor whole numbers.
    """
    labels = np.asarray(ids)
    if labels.dtype == object or labels.dtype.kind == "T":
        if not all(isinstance(label, str) for label in labels):
            raise ValueError("only labels that are text or whole numbers go into a file: convert them")
        labels = labels.astype(str)
    arrays: dict[str, Any] = {"format": np.array(FORMAT), "ids": labels, "name": np.array(name or "")}
    for part in ("factor", "matrix"):
        arrays |= _packed(part, getattr(levels, part))
    # those of blocks are made again in no time
    dense = [(key, own) for key, own in levels.decompositions.items() if isinstance(own, Decomposition)]
    for k, (key, own) in enumerate(dense):
        arrays |= {f"of {k}": np.array(key), f"mu {k}": own.mu, f"b {k}": own.b}
    if not isinstance(path, str | Path):
        np.savez(path, **arrays)
        return
    # a handle: with a path NumPy adds a suffix of its own
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def read_kernel(path: str | Path) -> tuple[LevelKernel, pd.Index, str | None]:
    """What `write_kernel` wrote; ValueError for other files."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        if str(arrays["format"]) != FORMAT:
            raise ValueError(f"its format is {str(arrays['format'])!r:.40}")
        levels = LevelKernel(_unpacked("factor", arrays), _unpacked("matrix", arrays))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of a kernel that lmmjax saved: {error}") from None
    k = 0
    while f"of {k}" in arrays:
        levels.decompositions[str(arrays[f"of {k}"])] = Decomposition(arrays[f"mu {k}"], arrays[f"b {k}"])
        k += 1
    ids = arrays["ids"]
    index = pd.Index(ids.astype(object) if ids.dtype.kind == "U" else ids)
    return levels, index, str(arrays["name"]) or None


def _packed(part: str, a: Any) -> dict[str, Any]:
    if a is None:
        return {}
    if isinstance(a, np.ndarray):
        return {part: a}
    return {f"{part} {name}": np.asarray(getattr(a, name)) for name in SPARSE}


def _unpacked(part: str, arrays: dict[str, Any]) -> Any:
    if part in arrays:
        return arrays[part]
    if f"{part} data" not in arrays:
        return None
    import scipy.sparse as sp

    data, indices, indptr, shape = (arrays[f"{part} {name}"] for name in SPARSE)
    return sp.csr_array((data, indices, indptr), shape=tuple(int(n) for n in shape))
