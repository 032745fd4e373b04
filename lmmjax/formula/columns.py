"""Named columns of any data frame.

A `Table` reads a frame of any library, a mapping of columns or a record array, one column at a time
and only those asked for, and gives pandas Series of six kinds: float64, integers, bool, category (what was
categorical, string or object: its levels in categorical order, otherwise sorted), date or time span.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.annotated import observed
from lmmjax.formula.labelled import eager
from lmmjax.formula.levels import factorize, require_different_texts
from lmmjax.formula.matching import (
    first_index,
    own_index,
    positions,
    require_distinct_names,
    without_labels,
)
from lmmjax.formula.numbers import doubles, plain

MANY_LEVELS = 20
"""Levels of a column of text beyond which it is asked whether it was meant as numbers."""

MEASURED = r"\s*[-+]?\d*[.,]\d+(?:[eE][-+]?\d+)?\s*[^\d\s]{0,12}\s*"
"""Text that is a number with a fraction, and perhaps a unit."""

TIMES = {"date", "datetime", "datetime64", "time", "timedelta", "timedelta64", "period"}
"""What pandas calls values that are times."""

_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the closest known one, and what there is."""
    known = [str(k) for k in known]
    folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name[:100].casefold(), folded, n=1, cutoff=0.6)
    return (f"did you mean {folded[close[0]]!r}? " if close else "") + there_are(known)


def there_are(known: Iterable[str]) -> str:
    """The first of the known names."""
    known = [str(k) for k in known]
    shown = ", ".join(known[:12]) + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
    return f"there are: {shown or 'none'}"


def require_finite(values: np.ndarray, what: str, index: pd.Index) -> None:
    """ValueError naming the first row in which a column is infinite."""
    bad = np.flatnonzero(np.isinf(values))
    if bad.size:
        raise ValueError(f"{what} is infinite in row {index[bad[0]]}: correct or drop that value")


def require_no_time(values: pd.Series, name: str, label: str) -> None:
    """ValueError if a column that is a term of its own holds dates or times: no number and no factor."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return
    if pd.api.types.infer_dtype(values, skipna=True) in TIMES:
        raise ValueError(
            f"{label}: column {name!r} is a date or time: convert it to a number, or write C({name}) for its "
            "levels"
        )


def require_factor(values: pd.Series, column: pd.Series, name: str, index: pd.Index) -> None:
    """ValueError if a column of text is one of numbers with a few words, or has a level for every row.

    Parameters
    ----------
    values : the column as given; column : the same as a factor; index : labels of its rows.
    """
    if isinstance(values.dtype, pd.CategoricalDtype) or not hasattr(column, "cat"):
        return
    levels, n = column.cat.categories, len(column)
    if len(levels) <= MANY_LEVELS:
        return
    read = np.asarray(pd.to_numeric(pd.Series(levels), errors="coerce"), dtype=float)
    wrong = np.isnan(read)
    numbers = len(levels) - int(wrong.sum())
    what = f"column {name!r} is text with {len(levels):,} different values"
    if numbers >= 0.9 * len(levels) and wrong.any():
        row = np.flatnonzero(wrong[column.cat.codes.to_numpy()])[0]
        raise ValueError(
            f"{what}, of which {numbers:,} are numbers; the first that is not is {column.iloc[row]!r} in row "
            f"{index[row]}: correct it, or make the column categorical if its values are labels"
        )
    fractions = np.count_nonzero(np.isfinite(read) & (read != np.round(read)))
    if 2 * fractions > len(levels):
        raise ValueError(f"{what}, all of them numbers: convert it")
    spelled = pd.Series(levels).astype(str).str.fullmatch(MEASURED).to_numpy(bool)
    if 2 * np.count_nonzero(spelled) > len(levels):
        first = levels[int(np.argmax(spelled))]
        raise ValueError(
            f"{what}, such as {first!r}, numbers with a unit or a decimal comma: convert it to numbers, or "
            "make the column categorical if its values are labels"
        )
    if len(levels) == n:
        remedy = "all of them numbers: convert it" if numbers == n else "one a row: leave it out"
        raise ValueError(f"{what} in {n:,} rows, {remedy}")


class Table:
    """Columns of `data` by name, all of length `n`, rows labelled by `index`.

    polars needs no import and no pyarrow: its columns are read through their own `to_numpy`; a lazy frame is
    collected. Series in a dict are put in the order of the first that has labels. What has no index gets
    0, 1, …, or the labels `index`. Raises ValueError if the columns differ in length or labels, or two names
    read the same.
    """

    def __init__(self, data: Any, index: pd.Index | None = None):
        data = eager(observed(data))
        names = _column_names(data)
        require_distinct_names(names, "column")
        self.keys = {str(name): name for name in names}
        self.data = data
        self._raw: dict[str, pd.Series] = {}
        self._taken: dict[str, tuple[np.ndarray, pd.Series]] = {}
        if isinstance(data, pd.DataFrame):
            self.index, self.n = data.index, len(data)
        else:
            lengths = {str(name): _length(data[name], name) for name in names}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"the columns of data differ in length: {lengths}")
            self.n = next(iter(lengths.values()), 0)
            if index is None:
                columns = {name: data[name] for name in names}
                without_labels(columns, "data")
                index = first_index(columns.values())
            self.index = pd.RangeIndex(self.n) if index is None else index

    def __contains__(self, name: str) -> bool:
        return name in self.keys

    def raw(self, name: str) -> pd.Series:
        """Column as given, missing values included, numbered 0, 1, …. ValueError if there is none."""
        if name not in self.keys:
            raise ValueError(f"unknown column {name!r}: {nearest(name, self.keys)}")
        if name not in self._raw:
            column = self.data[self.keys[name]]
            values = _series(column, name)
            place = positions(own_index(column), self.index, f"column {name!r}")
            self._raw[name] = values if place is None else values.take(place).reset_index(drop=True)
        return self._raw[name]

    def missing(self, name: str) -> np.ndarray:
        """(n,) bool: where the column has no value."""
        return pd.isna(self.raw(name)).to_numpy()

    def take(self, name: str, rows: np.ndarray) -> pd.Series:
        """The complete rows `rows` of a column as one of the six kinds; unused levels are dropped."""
        if name not in self._taken or self._taken[name][0] is not rows:
            self._taken[name] = rows, _kind(self.raw(name).take(rows).reset_index(drop=True), name)
        return self._taken[name][1]

    def evaluated(self, name: str, rows: np.ndarray) -> pd.Series:
        """The same for expressions: integers are doubles, whose powers do not overflow; times tick alike."""
        column = self.take(name, rows)
        if column.dtype.kind in "mM":
            accessor: Any = column.dt
            return accessor.as_unit("us")
        if column.dtype.kind in "fb" or hasattr(column, "cat"):
            return column
        return pd.Series(doubles(column, f"column {name!r}"))


def kept_data(data: Any) -> Any:
    """Data as they are now, whatever is done to the frame or dict afterwards, without copies of columns."""
    if isinstance(data, pd.DataFrame):
        return data.copy(deep=False)
    return dict(data) if isinstance(data, Mapping) else data


def _column_names(data: Any) -> list:
    if isinstance(data, Mapping):
        return list(data)
    if isinstance(data, np.ndarray) and data.dtype.names:
        return list(data.dtype.names)
    names = getattr(data, "column_names", None) or getattr(data, "columns", None)
    if names is None:
        kind = type(data).__name__
        raise ValueError(f"data is of type {kind}: pass a pandas or polars frame, or a dict of columns")
    return list(names)


def _length(values: Any, name: Any) -> int:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(f"column {str(name)!r} of data is a single value: give one for each row")
    return len(values)


def _series(values: Any, name: str) -> pd.Series:
    values = plain(values)
    if isinstance(values, pd.Series):
        return values.reset_index(drop=True)
    dtype = getattr(values, "dtype", None)
    if type(dtype).__name__ == "Enum":
        return pd.Series(pd.Categorical(values.to_list(), categories=list(dtype.categories)))  # pyright: ignore
    if isinstance(values, pd.Index | pd.Categorical | pd.api.extensions.ExtensionArray):
        return pd.Series(values).reset_index(drop=True)
    if str(dtype).startswith(("Int", "UInt")) and values.null_count():  # pyright: ignore
        # a column of polars: floats would not hold its large integers
        return pd.Series(pd.array(values.to_list(), dtype=str(dtype)))  # pyright: ignore
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(array, np.ndarray):
        return pd.Series(list(array))
    if array.ndim != 1:
        raise ValueError(f"column {name!r} has shape {array.shape}: give one value for each row")
    if isinstance(array, np.ma.MaskedArray):
        hidden, kinds = np.ma.getmaskarray(array), pd.arrays
        if array.dtype.kind in "biu":
            masked = kinds.BooleanArray if array.dtype.kind == "b" else kinds.IntegerArray
            return pd.Series(masked(np.array(array.data), hidden))
        return pd.Series(array.data).mask(hidden)
    if zone := getattr(dtype, "time_zone", None):
        # polars' own conversion leaves universal time without a zone
        return pd.Series(array).dt.tz_localize("UTC").dt.tz_convert(zone)
    if array.dtype.kind == "S":
        array = np.strings.decode(array, "utf-8")
    return pd.Series(array)


def _kind(values: pd.Series, name: str) -> pd.Series:
    dtype, api = values.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        used = values.cat.remove_unused_categories()
        require_different_texts(np.asarray(used.cat.categories), name)
        return used
    if api.is_bool_dtype(dtype):
        return values.astype(bool)
    if api.is_complex_dtype(dtype):
        raise ValueError(f"column {name!r} has complex numbers: use real ones")
    if api.is_integer_dtype(dtype):
        return _integers(values)
    if api.is_numeric_dtype(dtype):
        return pd.Series(values.to_numpy(dtype=np.float64))
    if api.is_datetime64_any_dtype(dtype) or api.is_timedelta64_dtype(dtype):
        return values
    inferred = "string" if isinstance(dtype, pd.StringDtype) else api.infer_dtype(values, skipna=False)
    if inferred == "boolean":
        return values.astype(bool)
    if inferred in _NUMBERS:
        whole = inferred == "integer"
        return _integers(values) if whole else pd.Series(doubles(values, f"column {name!r}"))
    codes, levels = factorize(values, name)
    return pd.Series(pd.Categorical.from_codes(codes, levels))  # pyright: ignore


def _integers(values: pd.Series) -> pd.Series:
    """int64, or what holds larger integers: as labels they stay distinct."""
    kind: Any = np.int64
    if values.dtype == object or pd.api.types.is_unsigned_integer_dtype(values.dtype):
        low, high = int(values.min()), int(values.max())
        inside = [k for k in (np.int64, np.uint64) if np.iinfo(k).min <= low and high <= np.iinfo(k).max]
        kind = inside[0] if inside else object
    return pd.Series(np.asarray(values, dtype=kind), dtype=kind)
