"""`Table`: a data frame that prints whole, without settings of pandas."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.reports.cells import grid_of

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
    where that is enough, then with as many digits as numbers need, else in blocks below each other. Rows are
    those that pandas would show.
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
        most = pd.get_option("display.max_rows")
        if most and len(self) > most:
            return self._text(digits, line_width=width)
        return grid_of(self, index=True).text(width)

    def to_html(
        self, buf: Any = None, *args: Any, digits: int = 5, index: bool | None = None, **options: Any
    ) -> Any:
        """The table as HTML, its numbers at the right, without colours; see `to_latex`."""
        if args or options:
            return super().to_html(buf, *args, **({} if index is None else {"index": index}), **options)
        return _written(grid_of(self, digits, index).html(), buf)

    def to_latex(
        self,
        buf: Any = None,
        *,
        digits: int = 5,
        index: bool | None = None,
        caption: str = "",
        label: str = "",
        **options: Any,
    ) -> Any:
        r"""The table as LaTeX: a `tabular` with rules of booktabs, special characters escaped.

        Parameters
        ----------
        buf : a path or file to write to; None returns the text.
        digits : significant digits of the largest number of a column.
        index : whether labels of rows are shown; by default unless they are 0, 1, ….
        caption, label : of a `table` around it.
        options : those of pandas, which then writes it and needs jinja2.

        The document needs `\usepackage{booktabs}`.
        """
        if options:
            given = {"index": index, "caption": caption, "label": label}
            return super().to_latex(buf, **{k: v for k, v in given.items() if v not in (None, "")}, **options)
        made = grid_of(self, digits, index).latex(caption, label)
        return _written(made, buf)

    def to_markdown(
        self, buf: Any = None, *args: Any, digits: int = 5, index: bool | None = None, **options: Any
    ) -> Any:
        """The table as a pipe table of Markdown; see `to_latex`. Options of pandas need tabulate."""
        if args or options:
            return super().to_markdown(buf, *args, **({} if index is None else {"index": index}), **options)
        return _written(grid_of(self, digits, index).markdown(), buf)

    def _repr_html_(self) -> str | None:
        most = pd.get_option("display.max_rows") or len(self)
        if not pd.get_option("display.notebook_repr_html"):
            return None
        if self.shape[1] > MOST_COLUMNS:
            return super()._repr_html_()  # pyright: ignore[reportCallIssue]
        return grid_of(self, index=True).html() if len(self) <= most else self._ends(most)

    def _ends(self, most: int) -> str:
        """The first and last rows as HTML, and how many there are."""
        half = max(1, min(pd.get_option("display.min_rows") or most, most) // 2)
        made = grid_of(self.iloc[[*range(half), *range(-half, 0)]], index=True)
        gap = tuple("⋮" for _ in made.header)
        made = dataclasses.replace(made, rows=(*made.rows[:half], gap, *made.rows[half:]))
        return f"{made.html()}<div>{len(self):,} rows × {self.shape[1]} columns</div>"

    def _text(self, precision: int, **options: Any) -> str:
        rows, least = pd.get_option("display.max_rows"), pd.get_option("display.min_rows")
        dimensions = pd.get_option("display.show_dimensions")
        with pd.option_context("display.precision", precision):
            return self.to_string(max_rows=rows, min_rows=least, show_dimensions=dimensions, **options)


def printed(frame: pd.DataFrame) -> str:
    """A frame without its index as text, every column in the width of the terminal.

    Long ones are printed as pandas does.
    """
    most = pd.get_option("display.max_rows")
    if frame.shape[1] > MOST_COLUMNS or (most and len(frame) > most):
        return repr(tabled(frame))
    return grid_of(frame, index=False).text()


def _written(text: str, buf: Any) -> str | None:
    """The text, or None where it is written to a path or file."""
    if buf is None:
        return text
    if hasattr(buf, "write"):
        buf.write(text)
    else:
        Path(buf).write_text(text, encoding="utf-8")
    return None


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
    own = answered(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return as_table(own(*args, **kwargs))

    return call
