"""What the commands share: options, input, errors, durations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import pandas as pd
import typer

from lmmjax.stream import ProcessError
from lmmjax.stream.files import reading

BAD_INPUT, NOT_CONVERGED = 2, 1
"""Exit codes."""

PANDAS = tuple(map(int, pd.__version__.split(".")[:2]))
EXACT: dict[str, Any] = {"float_precision": "round_trip"} if PANDAS < (3, 1) else {}
"""What makes `read_csv` read numbers to the last digit; pandas 3.1 always does, and warns of the option."""

MaximumLikelihood = Annotated[bool, typer.Option("--ml", help="Maximum likelihood instead of REML.")]

Weights = Annotated[str | None, typer.Option(help="Column of prior weights w: Var(ε) = σ²/w.", metavar="COL")]

AllowPython = Annotated[
    bool,
    typer.Option(
        "--allow-python",
        help="Let expressions of the formula call anything in Python. Only for formulas that you trust.",
    ),
]


def read_csv(path: Path) -> pd.DataFrame:
    """The table of a CSV file, or a ValueError that names it."""
    with reading(
        path, "a CSV file with a header line is needed, as it is or whole in an archive (.gz, .zip, .xz)"
    ):
        return pd.read_csv(path, **EXACT)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input ends with its message and exit code 2."""
    try:
        yield
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, ImportError, ProcessError) as error:
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
