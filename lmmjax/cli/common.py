"""What the commands share: options, tables in and out, errors, exit codes, signs of life."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pandas as pd
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lmmjax.formula import split_bars
from lmmjax.postestimation.hypotheses.fixed_tests import METHODS, ddf_method
from lmmjax.stream import ShardError
from lmmjax.stream.files import reading, target, written_whole
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.tables import TEXT, kind_of, read_text

BAD_INPUT, FAILED = 2, 1
"""Exit codes beside 0: what was asked for cannot be done; it was done, and came out wrong."""

WAIT = 2.0
"""Seconds before a command that has nothing else to show says that it is at work."""

PARQUET = (".parquet", ".pq")

MaximumLikelihood = Annotated[bool, typer.Option("--ml", help="Maximum likelihood instead of REML.")]

Weights = Annotated[str | None, typer.Option(help="Column of prior weights w: Var(ε) = σ²/w.", metavar="COL")]

Ddf = Annotated[
    str, typer.Option("--ddf", help=f"Degrees of freedom of tests: {', '.join(METHODS)}.", metavar="NAME")
]

Contrasts = Annotated[
    list[str] | None,
    typer.Option(
        "--contrast",
        help="Also estimate this: 'Sex[T.Female] - Days', or 'NAME = Sex[T.Female] - Days'. Repeatable.",
        metavar="TEXT",
    ),
]

AllowPython = Annotated[
    bool,
    typer.Option(
        "--allow-python",
        help="Let expressions of the formula call anything in Python. Only for formulas that you trust.",
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")]

JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the results to this file.", metavar="FILE")
]


def read_table(path: Path) -> pd.DataFrame:
    """The table of a CSV, TSV or Parquet file, or a ValueError that names it."""
    if kind_of(path) not in PARQUET:
        return read_text(path)
    pyarrow("parquet")
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    with reading(path):
        table = pd.read_parquet(path)
    # an index with a name is a column that pandas took out
    return table.reset_index() if any(table.index.names) else table


AS_RECORDS: dict[str, Any] = {
    "orient": "records",
    "indent": 2,
    "double_precision": 15,
    "date_format": "iso",
    "force_ascii": False,
}
"""How tables are written as JSON."""

KINDS = (*TEXT, *PARQUET, ".json")
"""Endings of the names of tables that are written."""


def table_target(
    path: Path | None, inputs: Iterable[Any], option: str, kinds: tuple[str, ...] = KINDS
) -> Path | None:
    """A file that a table can be written to, by its ending; None if none is asked for."""
    if path is None:
        return None
    kind = kind_of(path)
    if kind not in kinds or kind != path.suffix.lower():
        shown = ", ".join(kind for kind in kinds if kind not in (".tab", ".pq"))
        raise ValueError(f"{path}: end the name of {option} in one of {shown}")
    if kind in PARQUET:
        pyarrow("parquet")
    return target(path, inputs, option)


def require_free(path: Path, force: bool, finished: bool = False) -> None:
    """ValueError if a file is there that is not to be replaced."""
    if path.is_file() and not force:
        there = "is there, finished" if finished else "is there"
        raise ValueError(f"{path} {there}: --force replaces it, or name another file as --out")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A table as CSV, TSV, Parquet or JSON (a record a row), as the name of the file ends."""
    kind = kind_of(path)
    with written_whole(path) as file:
        if kind in PARQUET:
            table.to_parquet(file, index=False)
        elif kind in TEXT:
            file.write(table.to_csv(index=False, sep=TEXT[kind]).encode())
        else:
            file.write((str(table.to_json(**AS_RECORDS)) + "\n").encode())


def write_json(path: Path, found: Any) -> None:
    """Results as JSON."""
    with written_whole(path) as file:
        file.write((json.dumps(found, indent=2, allow_nan=False) + "\n").encode())


def check_words(formula: str, ddf: str) -> None:
    """ValueError for a formula that cannot be read, or an unknown ddf, before any file is."""
    split_bars(formula, dot=True)
    ddf_method(ddf)


@contextlib.contextmanager
def waiting(what: str, console: Console | None = None) -> Iterator[None]:
    """On a terminal, and from two seconds on: what is being done, and for how long."""
    console = console or Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    sign = Progress(*columns, console=console, transient=True)
    sign.add_task(what, total=None)
    timer = threading.Timer(WAIT, sign.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        sign.stop()


class _Rate(ProgressColumn):
    """So many a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextlib.contextmanager
def counting(what: str = "") -> Iterator[Callable[[int, int], None]]:
    """On a terminal: how many of how many are done, as a function of the two says it."""
    console = Console(stderr=True, highlight=False)
    said = (TextColumn("{task.description}"),) if what else ()
    bar = (*said, BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), TextColumn("left"))
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(*bar, console=console) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input ends with its message and exit code 2."""
    try:
        yield
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, ImportError, ShardError) as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    typer.echo(f"lmmjax: {message}", err=True)
    raise typer.Exit(BAD_INPUT)


def seconds(value: float) -> str:
    """A duration with three digits and a fitting unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"
