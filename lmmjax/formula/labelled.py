"""What enters beside the data, read: numbers with the labels of their rows and columns.

Everything that has a value for each row of the data (responses, weights, offsets, groups, the arrays of a
model without formula) goes through here, whatever holds it, and is matched by `matching.positions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.arrays.sparse_columns import SparseColumns
from lmmjax.formula.annotated import annotated_matrix, is_annotated
from lmmjax.formula.matching import (
    first_index,
    observations,
    own_index,
    positions,
    require_equal_lengths,
    without_labels,
)
from lmmjax.formula.numbers import doubles, plain


@dataclass(frozen=True, eq=False)
class Labelled:
    """Numbers, float64 and NaN where missing, with labels where they have some.

    values (n,) or (n, T), `SparseColumns` or `DeviceColumns` where they may be; `index` labels the rows,
    `columns` the columns, None where nothing does. `loose` is the name of a column that has no labels itself.
    """

    values: Any
    index: pd.Index | None = None
    columns: pd.Index | None = None
    loose: Any = None

    def places(self, ours: pd.Index | None, what: str) -> np.ndarray | None:
        """`positions` of rows labelled `ours`; ValueError if a column without labels would be moved."""
        place = positions(self.index, ours, what)
        if place is not None and self.loose is not None:
            raise ValueError(
                f"{what}: {str(self.loose)!r} has no labels of its rows, and others have them in another "
                "order than the data: give all of them labels"
            )
        return place


def labelled(
    values: Any, what: str, column: str | None = None, sparse: bool = False, **words: str
) -> Labelled:
    """Numbers of an array, Series, frame, dict of columns, AnnData object or list.

    Parameters
    ----------
    values : of NumPy (masked, structured), JAX, pandas, polars, Arrow, SciPy (sparse), xarray, or what
        narwhals knows; or `Labelled` already. The observations of AnnData are rows, its variables columns.
    what : what to call them in a message; column : the same for one of the columns, `what` if None; remedy :
        the end of the message.
    sparse : whether numbers of a sparse matrix stay `SparseColumns`, and those on a device there.

    Raises
    ------
    ValueError : names the column that is not numeric, or says what was passed instead of numbers.
    """
    column = column or what
    if isinstance(values, Labelled):
        inner = labelled(values.values, what, column, sparse, **words)
        return replace(values, values=inner.values)
    values = eager(values)
    if is_annotated(values):
        matrix, index, names = annotated_matrix(values)
        return Labelled(labelled(matrix, what, column, sparse, **words).values, index, names)
    if hasattr(values, "var_names"):
        matrix = labelled(values.X, what, column, sparse, **words).values
        return Labelled(matrix, observations(values.obs_names), pd.Index(values.var_names))
    if isinstance(values, SparseColumns | DeviceColumns):
        return Labelled(values if sparse else np.asarray(values))
    if sparse and is_sparse(values):
        return Labelled(SparseColumns.of(values))
    if isinstance(values, pd.DataFrame):
        return Labelled(_matrix(values, column, **words), values.index, values.columns)
    if isinstance(values, Mapping) or getattr(getattr(values, "dtype", None), "names", None):
        names = list(values) if isinstance(values, Mapping) else list(values.dtype.names)
        loose = without_labels({name: values[name] for name in names}, what)
        index = first_index(values[name] for name in names)
        parts = [_column(values[name], f"{column} {name!r}", index, **words) for name in names]
        require_equal_lengths(dict(zip(names, parts, strict=True)), what)
        return Labelled(np.column_stack(parts) if parts else np.empty((0, 0)), index, pd.Index(names), loose)
    if isinstance(values, list | tuple) and any(isinstance(v, pd.Series) for v in values):
        raise ValueError(f"{what} is a list of Series: pass a frame, or a dict {{name: Series}}")
    values = plain(values)
    if hasattr(values, "columns") and hasattr(values, "__getitem__"):
        return _of_frame(values, column, **words)
    return Labelled(doubles(values, what, **words), values.index if isinstance(values, pd.Series) else None)


def eager(values: Any) -> Any:
    """Tables of Arrow as frames of pandas with their index, lazy frames collected, all else as it is."""
    known = pd.DataFrame | pd.Series | np.ndarray | dict | list | tuple | SparseColumns | DeviceColumns
    if isinstance(values, known):
        return values
    if is_annotated(values) or is_sparse(values):
        return values
    import narwhals as nw

    if type(values).__module__.startswith("pyarrow"):
        return plain(values)
    lazy = nw.from_native(values, pass_through=True)
    if isinstance(lazy, nw.LazyFrame):
        return eager(lazy.collect().to_native())
    return plain(values) if hasattr(values, "coords") else values


def is_sparse(values: Any) -> bool:
    """Whether an object is a sparse matrix of SciPy with numbers."""
    return hasattr(values, "tocsc") and hasattr(values, "nnz") and values.dtype.kind in "biuf"


def _matrix(frame: pd.DataFrame, what: str, **words: str) -> np.ndarray:
    if all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in set(frame.dtypes)):
        return frame.to_numpy(dtype=np.float64)
    parts = [doubles(frame.iloc[:, k], f"{what} {name!r}", **words) for k, name in enumerate(frame.columns)]
    return np.column_stack(parts)


def _of_frame(values: Any, what: str, **words: str) -> Labelled:
    """A frame that is not of pandas, which has no labels of rows."""
    import narwhals as nw

    frame = nw.from_native(values, eager_only=True)
    names = frame.columns
    if names and all(kind.is_numeric() or kind == nw.Boolean for kind in set(frame.schema.values())):
        numbers = frame.select(nw.all().cast(nw.Float64)).to_numpy()
    else:
        parts = [doubles(frame[name].to_native(), f"{what} {name!r}", **words) for name in names]
        numbers = np.column_stack(parts) if parts else np.empty((len(frame), 0))
    return Labelled(numbers, None, pd.Index(names, dtype=object))


def _column(values: Any, what: str, index: pd.Index | None, **words: str) -> np.ndarray:
    """A column of a dict, in the order of `index`."""
    numbers = doubles(values, what, **words)
    if numbers.ndim != 1:
        raise ValueError(f"{what} has shape {numbers.shape}: give one value for each row")
    place = positions(own_index(values), index, what, "the columns before it")
    return numbers if place is None else numbers[place]
