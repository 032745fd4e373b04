"""Frames whose rows stand for many, as plain data."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmjax.fitted.condensed import condensed_frame
from lmmjax.formula import ModelFrame
from lmmjax.formula.many_rows import ManyRows
from lmmjax.saving.archive import Arrays
from lmmjax.saving.frames import packed_frame, unpacked_frame
from lmmjax.saving.values import Plain, packed, unpacked

MADE = "many rows"

_ARRAYS = ("codes", "z", "w", "triangle", "covariance", "counts")
_NUMBERS = ("n", "logdet", "dropped", "missing", "noise", "spread")


def packed_any(frame: ModelFrame, arrays: Arrays, columns: Any) -> Plain:
    """A frame as plain data, whatever its rows stand for; arguments as of `packed_frame`."""
    if not isinstance(many := frame.base, ManyRows):
        return packed_frame(frame, arrays, columns)
    cells = many.cells
    return {
        "made": MADE,
        "shown": packed_frame(many.shown, arrays, columns),
        **{name: arrays.put(getattr(many, name)) for name in _ARRAYS},
        **{name: getattr(many, name) for name in _NUMBERS},
        "squares": [arrays.put(square) for square in many.squares],
        "cells": None
        if cells is None
        else [[str(name), packed(pd.Series(cells[name]), arrays, f"column {name!r}")] for name in cells],
    }


def unpacked_any(plain: Plain, arrays: Arrays, safe: bool) -> ModelFrame:
    """The frame that `packed_any` packed; `safe` as of `unpacked_frame`."""
    if plain["made"] != MADE:
        return unpacked_frame(plain, arrays, safe)
    cells = plain["cells"]
    if cells is not None:
        columns = {name: unpacked(column, arrays) for name, column in cells}
        cells = pd.DataFrame(columns, index=pd.RangeIndex(len(arrays[plain["counts"]])))
    return condensed_frame(
        ManyRows(
            shown=unpacked_frame(plain["shown"], arrays, safe),
            squares=tuple(arrays[at] for at in plain["squares"]),
            cells=cells,
            **{name: arrays[plain[name]] for name in _ARRAYS},
            **{name: plain[name] for name in _NUMBERS},
        )
    )
