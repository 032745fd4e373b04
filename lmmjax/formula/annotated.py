"""AnnData and MuData: which of their matrices is meant, with the names of observations and variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.matching import observations, own_index


def is_annotated(values: Any) -> bool:
    """Whether an object is AnnData or MuData: it has observations and variables."""
    return hasattr(values, "var_names") and hasattr(values, "obs")


def observed(data: Any) -> Any:
    """The table `obs` of AnnData or MuData with its names as labels; all else as it is."""
    if not is_annotated(data):
        return data
    index = own_index(data)
    table: pd.DataFrame = data.obs
    return table.reset_index(drop=True) if index is None else table.set_axis(index, axis=0)


def annotated_matrix(
    data: Any, layer: str | None = None, use_raw: bool = False, mod: str | None = None
) -> tuple[Any, pd.Index | None, pd.Index]:
    """A matrix (observations × variables) in memory, with its labels; None where rows have none.

    Parameters
    ----------
    data : AnnData, or MuData with `mod`, the name of one of its modalities. Observations of MuData that the
        modality lacks are missing.
    layer : name of a layer, X if None; use_raw : `raw.X` with its variables.

    Raises
    ------
    ValueError : there is no such modality, layer or raw matrix, or both are asked for; it names those there
        are.
    """
    if hasattr(data, "mod") and hasattr(data.mod, "keys"):
        return _of_modality(data, layer, use_raw, mod)
    matrix, names, index = stored_matrix(modality(data, mod), layer, use_raw)
    for read in ("to_memory", "compute"):
        # stored in a file, or in pieces
        matrix = getattr(matrix, read)() if hasattr(matrix, read) else matrix
    return matrix, index, names


def stored_matrix(
    data: Any, layer: str | None = None, use_raw: bool = False
) -> tuple[Any, pd.Index, pd.Index | None]:
    """A matrix of AnnData as it is stored, names of its variables, and of observations if they have some."""
    if use_raw and layer is not None:
        raise ValueError("layer and use_raw=True name two matrices: give one of them")
    source = data
    if use_raw:
        source = getattr(data, "raw", None)
        if source is None:
            raise ValueError("use_raw=True: adata.raw is empty; X and layers are there")
    layers = getattr(data, "layers", {})
    if layer is not None and layer not in layers:
        raise ValueError(f"there is no layer {layer!r}; the layers are: {_listed(layers)}")
    matrix = source.X if layer is None else layers[layer]
    if matrix is None:
        raise ValueError(f"the data have no X: name a layer, one of: {_listed(layers)}")
    return matrix, pd.Index(source.var_names), own_index(data)


def modality(data: Any, mod: str | None) -> Any:
    """The modality of MuData that is meant; AnnData as it is."""
    if not (hasattr(data, "mod") and hasattr(data.mod, "keys")):
        if mod is not None:
            raise ValueError(f"mod={mod!r} is a modality of MuData, and these are AnnData: leave it out")
        return data
    if mod is None or mod not in data.mod:
        said = "these are MuData" if mod is None else f"there is no modality {mod!r}"
        raise ValueError(f"{said}: name one by mod=, one of: {_listed(data.mod)}")
    return data.mod[mod]


def _of_modality(
    data: Any, layer: str | None, use_raw: bool, mod: str | None
) -> tuple[Any, pd.Index | None, pd.Index]:
    matrix, index, names = annotated_matrix(modality(data, mod), layer, use_raw)
    whole = pd.Index(data.obs_names)
    own = pd.Index(data.mod[mod].obs_names)
    if len(own) == len(whole):
        return matrix, index, names
    place = own.get_indexer(whole)
    dense = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=float)
    return np.where((place < 0)[:, None], np.nan, dense[place]), observations(whole), names


def _listed(names: Any) -> str:
    # AnnData 0.13 lists X among the layers, as None
    return ", ".join(repr(name) for name in names if name is not None) or "none"
