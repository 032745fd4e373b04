"""Responses, and what has a value for each of theirs, as arrays on the rows of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted.data import ModelData


def labelled_columns(responses: Any) -> tuple[pd.Index, np.ndarray]:
    """Names (T,) and values (n, T) of an array or frame; ValueError says which column is not numeric."""
    names = pd.Index(list(responses.columns)) if hasattr(responses, "columns") else None
    try:
        if isinstance(responses, pd.DataFrame):
            values = responses.to_numpy(dtype=float, na_value=np.nan)
        else:
            values = np.asarray(responses if names is None else responses.to_numpy(), dtype=float)
    except (TypeError, ValueError):
        wrong = [] if names is None else [name for name in names if not _numeric(responses[name])]
        what = f"response {wrong[0]!r} is" if wrong else "responses are"
        raise ValueError(f"{what} not numeric: leave out what is not a response") from None
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"responses have shape {values.shape}: pass an n × T array, one column a response")
    return pd.RangeIndex(values.shape[1]) if names is None else names, values


def on_rows(data: ModelData, values: np.ndarray, what: str, shape: tuple | None = None) -> np.ndarray:
    """Values (n, T) on the rows of the model, from those or from all rows of the data."""
    frame, n = data.frame, data.design.n
    n_data = n + frame.n_dropped
    if values.shape[0] == n_data:
        values = values[frame.rows] if frame.n_dropped else values
    elif values.shape[0] != n:
        raise ValueError(
            f"{what} have {values.shape[0]} rows; the data have {n_data}: pass an n × T "
            "array with one row per row of the data (transpose it?)"
        )
    if shape is not None and values.shape != shape:
        raise ValueError(f"{what} are {values.shape[1]} columns for {shape[1]} responses: pass one each")
    return values


def _numeric(column: Any) -> bool:
    try:
        np.asarray(column, dtype=float)
    except (TypeError, ValueError):
        return False
    return True
