"""Numbers of any kind, from any library, as doubles; what is none is refused."""

from __future__ import annotations

import datetime
import decimal
import numbers as abstract
from typing import Any, NoReturn

import numpy as np
import pandas as pd

_OF_PANDAS = pd.Series | pd.DataFrame | pd.Index | pd.api.extensions.ExtensionArray
_REAL = (abstract.Real, decimal.Decimal, np.bool_)
_NO_NUMBERS = {"M": "dates", "m": "time spans", "c": "complex numbers", "U": "text", "S": "text"}


def doubles(values: Any, what: str, remedy: str = "convert what is meant to numbers") -> np.ndarray:
    """float64 of the same shape; NaN where a value is missing or masked.

    Parameters
    ----------
    values : array, masked array, list, or Series of pandas, polars or Arrow; integers of any width, decimals,
        fractions and bools (0 and 1) are numbers.
    what : what to call them in a message: "weights", "response 'y'"; remedy : the end of the message.

    Raises
    ------
    ValueError : text (such that spells numbers too), dates, categories, complex numbers, lists; the first
        of them is named with its row.
    """
    values = plain(values)
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        # what is masked may be anything
        inner = values.data.copy()
        if inner.dtype.kind == "O":
            inner[hidden] = None
        return np.where(hidden, np.nan, doubles(inner, what, remedy))
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return _of_pandas(pd.Series(values), what, remedy)
    if isinstance(values, np.ndarray):
        return _of_array(values, what, remedy)
    return _of_others(values, what, remedy)


def plain(values: Any) -> Any:
    """Arrays, and Arrow's, as those of NumPy and pandas; text and what is no array at all as they are."""
    if isinstance(values, np.ndarray | _OF_PANDAS | str | bytes):
        return values
    if hasattr(values, "toarray"):
        return values.toarray()
    if type(values).__module__.startswith("pyarrow"):
        return values.to_pandas(types_mapper=arrow_kinds) if hasattr(values, "to_pandas") else values
    if hasattr(values, "to_pandas") and hasattr(values, "coords"):
        return _of_xarray(values)
    # tensors and arrays of JAX
    labels = any(hasattr(values, name) for name in ("columns", "to_list", "obs_names"))
    if hasattr(values, "__array__") and hasattr(values, "shape") and not labels:
        return np.asarray(values)
    return values


def arrow_kinds(kind: Any) -> Any:
    """Which types of Arrow keep their own in pandas: integers and decimals, which floats cannot hold."""
    from pyarrow import types

    return pd.ArrowDtype(kind) if types.is_integer(kind) or types.is_decimal(kind) else None


def _of_xarray(values: Any) -> Any:
    """Series or frame with those coordinates that are there."""
    found = values.to_pandas()
    axes = {"index": 0, "columns": 1} if values.ndim == 2 else {"index": 0}
    for axis, k in axes.items():
        if values.dims[k] not in values.coords:
            setattr(found, axis, pd.RangeIndex(values.shape[k]))
    return found


def _of_array(values: np.ndarray, what: str, remedy: str) -> np.ndarray:
    kind = values.dtype.kind
    if kind in "biuf":
        return np.asarray(values, dtype=np.float64)
    if kind in _NO_NUMBERS:
        _refuse(what, _NO_NUMBERS[kind], values, remedy)
    if kind == "O":
        return _of_objects(values, what, remedy)
    try:
        # bfloat16 and other small floats
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} {_is(what)} not numeric but {values.dtype}: {remedy}") from None


def _of_pandas(values: pd.Series, what: str, remedy: str) -> np.ndarray:
    dtype, api = values.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        _refuse(what, "categories", values.astype(object).to_numpy(), "say which numbers they stand for")
    if isinstance(dtype, pd.StringDtype):
        return _of_objects(values.astype(object).to_numpy(), what, remedy)
    if isinstance(dtype, pd.SparseDtype):
        return doubles(np.asarray(values), what, remedy)
    if api.is_bool_dtype(dtype) or (api.is_numeric_dtype(dtype) and not api.is_complex_dtype(dtype)):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    return _of_array(values.to_numpy(), what, remedy)


def _of_others(values: Any, what: str, remedy: str) -> np.ndarray:
    import narwhals as nw

    series = nw.from_native(values, series_only=True, pass_through=True)
    if isinstance(series, nw.Series):
        kind = series.dtype
        if kind.is_numeric() or kind == nw.Boolean or kind == nw.Unknown:
            return series.cast(nw.Float64).to_numpy()
        return _of_objects(np.array([*series.to_list(), None], dtype=object)[:-1], what, remedy)
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise ValueError(f"{what} {_is(what)} of type {type(values).__name__}: pass an array")
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{what} {_is(what)} no array: its rows differ in length") from None
    if array.dtype.kind in "US":
        # a list of numbers and text
        array = np.array(values, dtype=object)
    return _of_array(array, what, remedy)


def _of_objects(values: np.ndarray, what: str, remedy: str) -> np.ndarray:
    out = np.full(values.shape, np.nan)
    for at, value in np.ndenumerate(values):
        if isinstance(value, _REAL):
            try:
                out[at] = float(value)
            except OverflowError:
                raise ValueError(
                    f"{what}: there is a number of more than 308 digits in row {at[0]}: correct or drop it"
                ) from None
        elif isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
            out[at] = float(value)
        elif not _is_missing(value):
            _refuse(what, _kind_of(value), values, remedy)
    return out


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value is np.ma.masked


def _kind_of(value: Any) -> str:
    if isinstance(value, str | bytes):
        return "text"
    if isinstance(value, complex | np.complexfloating):
        return "complex numbers"
    if isinstance(value, datetime.date | np.datetime64 | pd.Period):
        return "dates"
    if isinstance(value, datetime.timedelta | np.timedelta64):
        return "time spans"
    return f"values of type {type(value).__name__}"


def _refuse(what: str, kind: str, values: np.ndarray, remedy: str) -> NoReturn:
    """ValueError that shows the first value that is no number."""
    for at, value in np.ndenumerate(values):
        if not _is_missing(value) and not isinstance(value, _REAL):
            # the digits of a date of NumPy depend on its unit, which depends on pandas
            text = str(pd.Timestamp(value) if isinstance(value, np.datetime64) else value)[:30]
            shown = f" ({text} in row {at[0]})" if at else f" ({text})"
            raise ValueError(f"{what} {_is(what)} not numeric but {kind}{shown}: {remedy}")
    raise ValueError(f"{what} {_is(what)} not numeric but {kind}: {remedy}")


def _is(what: str) -> str:
    return "are" if what.endswith("s") else "is"
