"""Rows out as rows in: what has a row for every row of a frame is a frame of the same library."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.formula.matching import is_default

Made = TypeVar("Made", bound=Callable)


def like(given: Any, values: Any) -> Any:
    """A Series or frame of pandas as one of the library of `given`, if it has a row for each of its rows.

    Frames of pandas, and what is no frame, such as a dict of columns, change nothing. Lazy frames count as
    collected.
    """
    if given is None or not isinstance(values, pd.Series | pd.DataFrame) or not is_default(values.index):
        return values
    if isinstance(given, pd.DataFrame | dict):
        return values
    import narwhals as nw

    frame = nw.from_native(given, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if not isinstance(frame, nw.DataFrame) or len(frame) != len(values):
        return values
    one = isinstance(values, pd.Series)
    columns = {str(values.name): values} if one else {str(name): own for name, own in values.items()}
    made = nw.from_dict({name: own.to_numpy() for name, own in columns.items()}, backend=frame.implementation)
    return (made.get_column(made.columns[0]) if one else made).to_native()


def rows_given(fitted: Fitted, newdata: Any) -> Any:
    """The frame whose rows are meant: new ones, or those that the model was made from."""
    source = fitted.data.frame.source
    return newdata if newdata is not None or source is None else source.data


def native_rows(made: Made) -> Made:
    """A method of a fit about the rows of its argument `newdata`, or of the model's data.

    What it returns is `like` these.
    """
    signature = inspect.signature(made)

    @functools.wraps(made)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        newdata = signature.bind(self, *args, **options).arguments.get("newdata")
        return like(rows_given(self.fitted, newdata), made(self, *args, **options))

    return call  # type: ignore[return-value]
