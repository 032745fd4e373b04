"""Responses, and what has a value for each of theirs, as arrays on the rows of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted.data import ModelData
from lmmjax.formula import ModelFrame
from lmmjax.formula.labelled import Labelled, labelled
from lmmjax.formula.matching import positions, require_distinct_names


def response_matrix(data: ModelData, responses: Any, sparse: bool = False) -> tuple[pd.Index, Any]:
    """Names (T,) and values (n, T) of responses on the rows of the model, NaN where missing.

    With `sparse` those of sparse responses are `SparseColumns`.

    Raises
    ------
    ValueError : names the column that is not numeric or there twice, says which labels of rows differ, or
        what shape is needed.
    """
    given = labelled(responses, "responses", "response", sparse, remedy="leave out what is no response")
    values = given.values
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"responses have shape {values.shape}: pass an n × T array, one column a response")
    if given.columns is not None:
        require_distinct_names(given.columns, "response")
    names = pd.RangeIndex(values.shape[1]) if given.columns is None else given.columns
    return names, on_rows(data.frame, given, "responses")


def beside(data: ModelData, given: Any, names: pd.Index, what: str) -> np.ndarray:
    """Values (n, T) of `what`, one for each value of the responses `names`, in their order.

    Raises
    ------
    ValueError : as `response_matrix`; the names of its columns differ from those of the responses.
    """
    found = labelled(given, what, f"{what}: column")
    if found.values.ndim != 2:
        raise ValueError(
            f"{what}: the shape is {found.values.shape}: pass one for each value of the responses, n × T"
        )
    if found.values.shape[1] != len(names):
        raise ValueError(
            f"{what} are {found.values.shape[1]} columns for {len(names)} responses: pass one each"
        )
    values, place = (
        on_rows(data.frame, found, what),
        positions(found.columns, names, what, "the responses", "columns"),
    )
    return values if place is None else values[:, place]


def response_vector(data: ModelData, y: Any, what: str = "y") -> np.ndarray:
    """One response (n,) on the rows of the model, NaN where missing; ValueError as `response_matrix`."""
    given = labelled(y, what)
    n, n_data = data.design.n, len(data.frame.data_index)
    if given.values.ndim != 1 or len(given.values) not in (n, n_data):
        raise ValueError(f"{what} has shape {given.values.shape}; the model has {n} rows: ({n},)")
    return on_rows(data.frame, given, what)


def kept_rows(data: ModelData, keep: Any) -> np.ndarray:
    """Rows of the model to keep (n,) bool, by their labels; ValueError if they are none or do not match."""
    n = data.design.n
    values = response_vector(data, keep, "keep")
    if not np.all((values == 0) | (values == 1)) or np.asarray(keep).dtype.kind not in "bO":
        raise ValueError(f"keep must be True or False for each of the {n} rows of the model")
    if not np.any(values):
        raise ValueError("keep leaves none of the rows of the model")
    return values == 1


def on_rows(frame: ModelFrame, given: Labelled, what: str) -> Any:
    """Values (n, …) on the rows of a frame, given on those or on all rows of its data; matched by label."""
    size, n, n_data = len(given.values), len(frame.rows), len(frame.data_index)
    if size == n_data:
        place = given.places(frame.data_index, what)
        if place is None and n == n_data:
            return given.values
        return given.values[frame.rows if place is None else place[frame.rows]]
    if size == n:
        place = given.places(frame.index, what)
        return given.values if place is None else given.values[place]
    if given.index is not None and given.index.is_unique and frame.data_index.isin(given.index).all():
        raise ValueError(f"{what} have {size} rows, those of the data and more: pass {what}.loc[data.index]")
    if given.index is not None and size < n_data and given.index.isin(frame.data_index).all():
        have = "have" if what.endswith("s") else "has"
        raise ValueError(
            f"{what} {have} {size} of the {n_data} rows of the data: make the model of these rows, or give "
            "values for all of them, missing ones too"
        )
    if given.values.ndim == 1:
        raise ValueError(f"{what} has {size} values: pass one for each of the {n_data} rows of the data")
    raise ValueError(
        f"{what} have {size} rows; the data have {n_data}: pass an n × T array with one row per row of the "
        "data (transpose it?)"
    )
