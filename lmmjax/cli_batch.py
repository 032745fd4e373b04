"""The command `lmmjax batch`: responses from a file, results to a Parquet file."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

import lmmjax


class RateColumn(ProgressColumn):
    """Responses a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def batch(
    formula: Annotated[str, typer.Argument(help="Without a response: '~ x + (x | group)'.")],
    design: Annotated[Path, typer.Argument(help="CSV file of the variables in the formula.")],
    responses: Annotated[
        Path,
        typer.Argument(help="Parquet file or .npy array: a row a row of the design, a column a response."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.", metavar="FILE")],
    ml: Annotated[bool, typer.Option("--ml", help="Maximum likelihood instead of REML.")] = False,
    weights: Annotated[
        str | None, typer.Option(help="Column of prior weights w: Var(ε) = σ²/w.", metavar="COL")
    ] = None,
    index: Annotated[
        str | None, typer.Option(help="Column of RESPONSES that holds labels, no values.", metavar="COL")
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="RESPONSES has a row a response, a column a row of the design.")
    ] = False,
    chunk: Annotated[
        int | None, typer.Option(help="Most responses at a time; by default what memory allows.", min=1)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was killed.")] = False,
) -> None:
    """Fit a model to every response of a file and write a row of results for each.

    The exit code is 0 if all responses were read, whatever the status of their fits, and 2 if the formula,
    the data or what is to be resumed are wrong.
    """
    # imported here: cli imports this module
    from lmmjax.cli import _one_line_errors, _read, _seconds

    console = Console(stderr=True, highlight=False)
    bar = (BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn(), TextColumn("left"))
    begin = time.perf_counter()
    with _one_line_errors(), warnings.catch_warnings():
        # the last line counts them
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        model = lmmjax.lmm(formula, _read(design), weights=weights)
        with Progress(*bar, console=console) as progress:
            task = progress.add_task("", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            options = {"reml": not ml, "chunk": chunk, "resume": resume, "index": index, "rows": rows}
            result = model.stream_batch(responses, out, progress=show, **options)
    known = result.n_responses - result.n_fitted
    typer.echo(
        f"{result.n_fitted:,} responses fitted in {_seconds(time.perf_counter() - begin)}"
        + (f" ({known:,} were done before)" if known else "")
        + f": {result.n_singular:,} on the boundary, {result.n_failed:,} could not be fitted. "
        f"Results: {result.path}"
    )
