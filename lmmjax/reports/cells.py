"""Numbers of tables as text: as many digits as a column needs, which all of it share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.reports.markup import Grid

_P = re.compile(r"[pq](_\w+)?")
_DF = re.compile(r"(\w+_)?df|npar")
_TESTS = ("t", "z", "F", "chisq")
_WITH_SE = ("estimate", "se", "lower", "upper", "fit", "b")


def decimals(values: np.ndarray, digits: int = 4) -> int:
    """Decimals that leave the smallest positive value about so many significant digits; 4 without one."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return 4
    return int(np.clip(digits - 1 - np.floor(np.log10(positive.min())), 0, 8))


def number(value: float) -> str:
    """Four decimals, or four digits of what is large or small."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.4g}"


def p_value(p: float) -> str:
    """Four decimals, three digits of what is small."""
    if not np.isfinite(p):
        return "NaN"
    return "<2e-16" if p < 2e-16 else f"{p:.3g}" if p < 1e-3 else f"{p:.4f}"


def grid_of(frame: pd.DataFrame, digits: int = 5, index: bool | None = None) -> Grid:
    """A frame as a table of text.

    Parameters
    ----------
    digits : significant digits of the largest value of a column; one less of the smallest standard error,
        where there are some.
    index : whether labels of rows are shown; None: unless they are 0, 1, ….
    """
    own = frame.index
    if index is None:
        index = not (isinstance(own, pd.RangeIndex) and own.name is None)
    labels = _labels(own) if index else []
    names = [_name(name) for name in (own.names if index else ())]
    columns = [frame.iloc[:, k] for k in range(frame.shape[1])]
    cells = _cells(columns, digits)
    left = set(range(len(labels)))
    left |= {len(labels) + k for k, c in enumerate(columns) if not pd.api.types.is_numeric_dtype(c.dtype)}
    rows = tuple(zip(*labels, *cells, strict=True)) if labels or cells else ()
    header = (*names, *(_name(column) for column in frame.columns))
    return Grid(header, rows, left=frozenset(left), labels=max(len(labels), 1))


def _labels(index: pd.Index) -> list[list[str]]:
    """Columns of labels; of several levels those that repeat the row above are empty."""
    levels = [_texts(pd.Series(index.get_level_values(k))) for k in range(index.nlevels)]
    out = []
    for k, level in enumerate(levels[:-1]):
        above = [tuple(one[i] for one in levels[: k + 1]) for i in range(len(level))]
        out.append([text if i == 0 or above[i] != above[i - 1] else "" for i, text in enumerate(level)])
    return [*out, levels[-1]]


def _name(name: Any) -> str:
    if isinstance(name, tuple):
        return " ".join(_name(part) for part in name if _name(part))
    return "" if name is None else str(name)


def _texts(values: pd.Series) -> list[str]:
    """Values that are no doubles as text on one line, missing ones empty; midnights are days."""
    shown = values.astype(str) if values.dtype.kind == "M" else values
    gone = values.isna()
    return ["" if none else " ".join(str(v).split("\n")) for none, v in zip(gone, shown, strict=True)]


def _cells(columns: list[pd.Series], digits: int) -> list[list[str]]:
    """Columns as text; what goes with a standard error has its decimals."""
    last = [_name(column.name).rpartition(" ")[2] for column in columns]
    shared: dict[str, int] = {}
    for column, name in zip(columns, last, strict=True):
        if name == "se" and column.dtype.kind == "f":
            shared[_before(column.name)] = decimals(column.to_numpy(), digits - 1)
    out = []
    for column, name in zip(columns, last, strict=True):
        if column.dtype.kind != "f":
            out.append(_texts(column))
            continue
        values = column.to_numpy()
        own = shared.get(_before(column.name)) if name in _WITH_SE else None
        write = _writer(values, name, digits) if own is None else f"{{:.{own}f}}".format
        out.append(["NaN" if np.isnan(v) else write(v) for v in values])
    return out


def _before(name: Any) -> str:
    return _name(name).rpartition(" ")[0]


def _writer(values: np.ndarray, name: str, digits: int) -> Callable[[float], str]:
    """How numbers of a column are written."""
    if _P.fullmatch(name):
        return p_value
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    if not size.size:
        return "{:.0f}".format
    if np.all(size == np.round(size)) and size.max() < 1e15:
        return "{:.0f}".format
    if _DF.fullmatch(name):
        return "{:.2f}".format if size.max() < 1e6 else "{:.4g}".format
    if name in _TESTS and size.max() < 1e6:
        return "{:.3f}".format
    # two digits of the smallest, too
    wanted = max(digits - 1 - np.floor(np.log10(size.max())), 1 - np.floor(np.log10(size.min())), 0)
    if wanted > 8 or size.max() >= 1e9:
        return f"{{:.{digits}g}}".format
    # levels such as 0.2 have no more digits than they need
    exact = (d for d in range(int(wanted)) if np.all(size == np.round(size, d)))
    return f"{{:.{next(exact, int(wanted))}f}}".format
