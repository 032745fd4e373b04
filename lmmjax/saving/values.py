"""Columns and labels of pandas as plain data, and back: with their types, categories and missing values."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.saving.archive import Arrays

Plain = dict[str, Any]
"""What JSON writes; arrays are named in it."""


def packed(values: pd.Series, arrays: Arrays, what: str) -> Plain:
    """A column (n,) as plain data, its arrays put to `arrays`.

    Raises
    ------
    ValueError : names the column, whose values are objects of a type that a file does not keep.
    """
    values = _without_arrow(values)
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = packed_labels(dtype.categories, arrays, f"categories of {what}")
        codes = arrays.put(values.cat.codes.to_numpy())
        return {"kind": "category", "codes": codes, "categories": categories, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.IntervalDtype):
        array: Any = values.array
        ends = [packed(pd.Series(end), arrays, what) for end in (array.left, array.right)]
        return {"kind": "interval", "ends": ends, "closed": array.closed}
    if isinstance(dtype, pd.PeriodDtype):
        ordinals = values.array.asi8  # pyright: ignore[reportAttributeAccessIssue]
        return {"kind": "period", "freq": dtype.name[len("period[") : -1], "at": arrays.put(ordinals)}
    if dtype.kind in "mM":
        zone = getattr(dtype, "tz", None)
        bare: Any = values if zone is None else values.dt.tz_convert("UTC").dt.tz_localize(None)
        array = bare.to_numpy()
        own = {} if zone is None else {"zone": _zone_name(zone, what)}
        return {"kind": "time", "dtype": array.dtype.str, "at": arrays.put(array.astype(np.int64)), **own}
    if isinstance(dtype, np.dtype) and dtype.kind in "biufc":
        return {"kind": "numbers", "at": arrays.put(values.to_numpy())}
    if hasattr(values.array, "_mask") and hasattr(values.array, "_data"):
        gone = values.isna().to_numpy()
        filled = np.where(gone, 0, values.to_numpy(dtype=dtype.numpy_dtype, na_value=0))  # pyright: ignore
        kept = arrays.put(filled.astype(dtype.numpy_dtype))  # pyright: ignore[reportAttributeAccessIssue]
        return {"kind": "masked", "dtype": dtype.name, "at": kept, "gone": arrays.put(gone)}
    text = "" if isinstance(dtype, np.dtype) else "string" if dtype.name.startswith("string") else dtype.name
    return {"kind": "objects", "dtype": text, **_packed_objects(values, arrays, what)}


def unpacked(plain: Plain, arrays: Arrays) -> pd.Series:
    """The column, numbered 0, 1, …."""
    kind = plain["kind"]
    if kind == "category":
        categories = unpacked_labels(plain["categories"], arrays)
        made = pd.Categorical.from_codes(arrays[plain["codes"]], categories, ordered=plain["ordered"])  # pyright: ignore
        return pd.Series(made)
    if kind == "interval":
        left, right = (unpacked(end, arrays) for end in plain["ends"])
        return pd.Series(pd.arrays.IntervalArray.from_arrays(left, right, closed=plain["closed"]))  # pyright: ignore
    if kind == "objects":
        values = [None, *map(value_of, plain["values"])]
        array = np.empty(len(values), dtype=object)
        array[:] = values
        array = array[arrays[plain["codes"]] + 1]
        if plain["dtype"] == "str":
            # text as this version of pandas has it, where a missing value is one
            return pd.Series(array.tolist())
        out = pd.Series(array, dtype=object)
        return out.astype(plain["dtype"]) if plain["dtype"] else out
    at = arrays[plain["at"]]
    if kind == "numbers":
        return pd.Series(at)
    if kind == "masked":
        gone = arrays[plain["gone"]]
        made = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(
            at.dtype.kind, pd.arrays.IntegerArray
        )
        return pd.Series(made(at, gone))
    if kind == "period":
        return pd.Series(pd.PeriodIndex.from_ordinals(at, freq=plain["freq"]))
    if kind == "time":
        times: Any = pd.Series(at.view(np.dtype(plain["dtype"])))
        return times.dt.tz_localize("UTC").dt.tz_convert(plain["zone"]) if "zone" in plain else times
    raise ValueError(f"columns of the kind {kind!r} are not known")


def packed_labels(index: pd.Index, arrays: Arrays, what: str) -> Plain:
    """Labels of rows, categories or responses as plain data; ValueError as `packed`."""
    names = [plain_of(name, what) for name in index.names]
    if isinstance(index, pd.RangeIndex):
        return {"kind": "range", "range": [index.start, index.stop, index.step], "names": names}
    if isinstance(index, pd.MultiIndex):
        parts = [index.get_level_values(k) for k in range(index.nlevels)]
    else:
        parts = [index]
    columns = [packed(pd.Series(part).reset_index(drop=True), arrays, what) for part in parts]
    return {"kind": "labels", "columns": columns, "names": names}


def unpacked_labels(plain: Plain, arrays: Arrays) -> pd.Index:
    """The labels."""
    names = [value_of(name) for name in plain["names"]]
    if plain["kind"] == "range":
        return pd.RangeIndex(*plain["range"], name=names[0])
    columns = [unpacked(column, arrays) for column in plain["columns"]]
    if len(columns) > 1:
        return pd.MultiIndex.from_arrays(columns, names=names)
    one = columns[0]
    return pd.Index(one, name=names[0], dtype=one.dtype)


def _packed_objects(values: pd.Series, arrays: Arrays, what: str) -> Plain:
    """Codes (n,) into distinct values, −1 for None."""
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        codes, levels = pd.factorize(values)
        return {"codes": arrays.put(codes), "values": [plain_of(v, what) for v in levels]}
    known: dict[tuple[type, Any], int] = {}
    codes = np.full(len(values), -1)
    kept = []
    for k, value in enumerate(values):
        if value is None:
            continue
        plain = plain_of(value, what)
        # 1, True and 1.0 are equal, and so is no NaN
        key = (type(value), repr(plain))
        if key not in known:
            known[key] = len(kept)
            kept.append(plain)
        codes[k] = known[key]
    return {"codes": arrays.put(codes), "values": kept}


def plain_of(value: Any, what: str) -> Any:
    """A single value as JSON writes it; what is no text, bool, whole number or None with its type."""
    if isinstance(value, np.generic):
        value = value.item() if value.dtype.kind in "biufU" else value
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, str):
        return str(value)
    if type(value) is float:
        return {"float": value.hex()}
    if value is pd.NA or value is pd.NaT:
        return {"missing": "NA" if value is pd.NA else "NaT"}
    if isinstance(value, tuple):
        return {"tuple": [plain_of(part, what) for part in value]}
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, pd.Interval):
        return {
            "interval": [plain_of(end, what) for end in (value.left, value.right)],
            "closed": value.closed,
        }
    if isinstance(value, pd.Period):
        return {"period": value.ordinal, "freq": value.freqstr}
    if isinstance(value, datetime.datetime | np.datetime64):
        moment: Any = pd.Timestamp(value)
        bare = moment if moment.tz is None else moment.tz_convert("UTC").tz_localize(None)
        zone = {} if moment.tz is None else {"zone": _zone_name(moment.tz, what)}
        return {"timestamp": bare.isoformat(), "unit": moment.unit, **zone}
    if isinstance(value, datetime.timedelta | np.timedelta64):
        own: Any = pd.Timedelta(value)
        return {"timedelta": int(own.asm8.astype(np.int64)), "unit": own.unit}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    if isinstance(value, datetime.time):
        return {"time": value.isoformat()}
    raise ValueError(
        f"{what} holds {type(value).__name__} objects, such as {value!r:.40}, which a file cannot keep: make "
        "them text or numbers, and fit the model to that"
    )


def value_of(plain: Any) -> Any:
    """The single value."""
    if not isinstance(plain, dict):
        return plain
    kind, given = next(iter(plain.items()))
    if kind == "missing":
        return pd.NA if given == "NA" else pd.NaT
    if kind == "tuple":
        return tuple(map(value_of, given))
    if kind == "interval":
        return pd.Interval(*map(value_of, given), closed=plain["closed"])
    if kind == "period":
        return pd.Period(ordinal=given, freq=plain["freq"])
    if kind == "timestamp":
        bare: Any = pd.Timestamp(given).as_unit(plain["unit"])
        return bare.tz_localize("UTC").tz_convert(plain["zone"]) if "zone" in plain else bare
    if kind == "timedelta":
        return pd.Timedelta(np.timedelta64(given, plain["unit"]))
    makers = {
        "float": float.fromhex,
        "decimal": decimal.Decimal,
        "date": datetime.date.fromisoformat,
        "time": datetime.time.fromisoformat,
    }
    if kind not in makers:
        raise ValueError(f"values of the kind {kind!r} are not known")
    return makers[kind](given)


def _without_arrow(values: pd.Series) -> pd.Series:
    """A column that Arrow holds as pandas' own type of the same values."""
    if not isinstance(values.dtype, pd.ArrowDtype):
        return values
    kind = values.dtype.kind
    if kind in "iufb":
        return values.convert_dtypes(dtype_backend="numpy_nullable")
    if kind in "mM":
        zone = getattr(values.dtype.pyarrow_dtype, "tz", None)
        unit = values.dtype.pyarrow_dtype.unit
        name = "timedelta64" if kind == "m" else "datetime64"
        return values.astype(f"{name}[{unit}]" if zone is None else f"{name}[{unit}, {zone}]")
    return pd.Series(values.to_numpy(dtype=object, na_value=None), dtype=object)


def _zone_name(zone: Any, what: str) -> str:
    """A time zone by its name, or as an offset."""
    name = str(zone)
    try:
        pd.Timestamp(0, tz=name)
    except Exception:
        raise ValueError(
            f"{what} has the time zone {name!r}, which has no name by which it is found again: convert the "
            "column to UTC or a named zone"
        ) from None
    return name
