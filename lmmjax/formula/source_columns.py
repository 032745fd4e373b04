"""Columns of the data that a model was made from."""

from __future__ import annotations

import numpy as np

from lmmjax.formula.columns import Table
from lmmjax.formula.frame import ModelFrame
from lmmjax.formula.numbers import doubles


def source_numbers(frame: ModelFrame, name: str) -> np.ndarray:
    """A column of numbers (n,) on the rows of a frame; ValueError where there is none."""
    if frame.source is None:
        raise ValueError(f"this model was built from matrices: give the values of {name!r}, one a row")
    return doubles(Table(frame.source.data).take(name, frame.rows), f"column {name!r}")
