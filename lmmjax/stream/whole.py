"""Files and annotated matrices as tables in memory: designs, and responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_switch
from lmmjax.formula import observed
from lmmjax.formula.annotated import annotated_matrix, is_annotated
from lmmjax.formula.labelled import Labelled


def design_table(data: Any) -> Any:
    """The data of a design: `obs` of AnnData and MuData, the table of a file; all else as it is.

    A first column of text that differs from row to row has the labels of the rows.

    Raises
    ------
    ValueError : a file of another kind than CSV, TSV or .h5ad, or one that cannot be read.
    FileNotFoundError : there is none.
    """
    if not isinstance(data, str | Path):
        return observed(data)
    from lmmjax.stream.tables import TEXT, kind_of, read_text

    path = Path(data)
    if kind_of(path) == ".h5ad":
        return _obs_of(path)
    if kind_of(path) not in TEXT:
        raise ValueError(
            f"data: {str(data)!r:.80} is no frame and no file of a design: pass a frame, a dict of columns, "
            "AnnData, or the path of a CSV, TSV, .h5ad or Parquet file"
        )
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    frame = read_text(path)
    if not len(frame.columns):
        return frame
    first = frame.columns[0]
    labels = frame[first].tolist()
    if first == "Unnamed: 0":
        return frame.drop(columns=first).set_axis(pd.Index(labels), axis=0)
    unlike = len(set(labels)) == len(labels) and all(isinstance(label, str) for label in labels)
    return frame.set_axis(pd.Index(labels, name=first), axis=0) if unlike else frame


def _obs_of(path: Path) -> pd.DataFrame:
    from lmmjax.formula.matching import observations
    from lmmjax.stream.files import reading
    from lmmjax.stream.packages import needed

    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    io, h5py = needed("anndata.io", "AnnData files", "omics"), needed("h5py", "HDF5 files", "hdf5")
    with reading(path), h5py.File(path, "r") as file:
        table = io.read_elem(file["obs"])
    index = observations(table.index)
    return table.reset_index(drop=True) if index is None else table.set_axis(index, axis=0)


def whole_responses(
    responses: Any, layer: str | None = None, use_raw: bool = False, mod: str | None = None
) -> Any:
    """Responses as `fit_many` takes them; see `Model.fit_batch`.

    Raises
    ------
    ValueError : an option that means nothing for these responses; a layer or modality that there is not.
    """
    require_switch("use_raw", use_raw)
    if isinstance(responses, str | Path):
        if use_raw or mod is not None:
            raise ValueError("use_raw and mod are for AnnData and MuData in memory: read the file first")
        from lmmjax.stream.sources import open_source

        source = open_source(responses, layer=layer)
        return Labelled(np.asarray(source.read(0, source.n_responses)), source.index, source.names)
    if is_annotated(responses):
        matrix, index, names = annotated_matrix(responses, layer, use_raw, mod)
        return Labelled(matrix, index, names)
    if layer is not None or use_raw or mod is not None:
        raise ValueError(
            f"layer, use_raw and mod are for AnnData and MuData, and responses are {type(responses).__name__}"
        )
    return responses
