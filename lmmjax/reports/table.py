"""`Table`: a data frame that prints whole, without settings of pandas."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import pandas as pd

MOST_COLUMNS = 30
"""Frames with more are printed as pandas does."""

FEWEST_DIGITS = 4
"""Decimals to which numbers are shortened before columns are put below each other."""


class _AnyFrame(type(pd.DataFrame)):
    """They differ from other frames in print only, and pandas' comparisons ask whether types are alike."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, pd.DataFrame)


class Table(pd.DataFrame, metaclass=_AnyFrame):
    """A data frame as fits return them.

    Printed, it shows every column in the width of the terminal, 80 characters at least: with fewer decimals
    where that is enough, else in blocks below each other. Rows are those that pandas would show.
    """

    @property
    def _constructor(self) -> type[Table]:
        return Table

    def __repr__(self) -> str:
        if self.shape[1] > MOST_COLUMNS:
            return super().__repr__()
        width = max(shutil.get_terminal_size().columns, pd.get_option("display.width") or 0)
        digits = pd.get_option("display.precision")
        for precision in range(digits, min(FEWEST_DIGITS, digits) - 1, -1):
            text = self._text(precision)
            if max(map(len, text.splitlines())) <= width:
                return text
        return self._text(digits, line_width=width)

    def _text(self, precision: int, **options: Any) -> str:
        rows, least = pd.get_option("display.max_rows"), pd.get_option("display.min_rows")
        dimensions = pd.get_option("display.show_dimensions")
        with pd.option_context("display.precision", precision):
            return self.to_string(max_rows=rows, min_rows=least, show_dimensions=dimensions, **options)


def as_table(value: Any) -> Any:
    """A frame as `Table`, with its attributes, in a dict and in a record as well; all else as it is."""
    if isinstance(value, dict):
        return {name: as_table(one) for name, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        frames = {name: as_table(one) for name, one in own.items() if type(one) is pd.DataFrame}
        return dataclasses.replace(value, **frames) if frames else value
    return tabled(value) if type(value) is pd.DataFrame else value


def tabled(frame: Any) -> Any:
    """A frame as `Table`, with its attributes."""
    table = Table(frame)
    table.attrs = frame.attrs
    return table


Made = TypeVar("Made", bound=Callable)


def prints_whole(made: Made) -> Made:
    """A function, or a class with its public methods and properties, that returns frames as `Table`.

    Of a class those that it inherits, too.
    """
    if not isinstance(made, type):
        return _returning_tables(made)
    members = {name: member for one in reversed(made.__mro__[:-1]) for name, member in vars(one).items()}
    for name, member in members.items():
        if name.startswith("_"):
            continue
        if isinstance(member, property) and member.fget is not None:
            setattr(made, name, property(_returning_tables(member.fget), doc=member.__doc__))
        elif inspect.isfunction(member):
            setattr(made, name, _returning_tables(member))
    return made  # type: ignore[return-value]


def _returning_tables(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return as_table(function(*args, **kwargs))

    return call
