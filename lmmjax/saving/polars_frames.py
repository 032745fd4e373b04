"""Columns that were those of a frame of polars as one again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def as_polars(frame: pd.DataFrame) -> Any:
    """A frame of polars with the same values; the frame itself without polars."""
    try:
        import polars as pl
    except ImportError:
        return frame
    return pl.DataFrame([_column(pl, str(name), values) for name, values in frame.items()])


def _column(pl: Any, name: str, values: pd.Series) -> Any:
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufmM":
        return pl.Series(name, values.to_numpy(), nan_to_null=True)
    if isinstance(dtype, pd.DatetimeTZDtype):
        bare: Any = values.dt.tz_convert("UTC").dt.tz_localize(None)
        times = pl.Series(name, bare.to_numpy())
        return times.dt.replace_time_zone("UTC").dt.convert_time_zone(str(dtype.tz))
    plain = [None if one else value for one, value in zip(values.isna(), values, strict=True)]
    if isinstance(dtype, pd.CategoricalDtype):
        return pl.Series(name, plain, dtype=pl.Enum(list(map(str, dtype.categories))))
    return pl.Series(name, plain, strict=False)
