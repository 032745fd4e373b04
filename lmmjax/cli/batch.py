"""The command `lmmjax batch`: responses from a file, results to a Parquet file."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated

import jax
import pandas as pd
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
from lmmjax.cli.common import AllowPython, MaximumLikelihood, Weights, one_line_errors, read_csv, seconds
from lmmjax.formula.matching import is_default
from lmmjax.stream.sources import open_source

FORMATS = (
    "a row a row of the design, a column a response. Parquet, .npy, .h5ad, .zarr (a folder or zipped); "
    "FILE.h5::ARRAY for an array inside, FILE.h5ad::LAYER for a layer."
)


class RateColumn(ProgressColumn):
    """Responses a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def batch(
    formula: Annotated[str, typer.Argument(help="Without a response: '~ x + (x | group)'.")],
    design: Annotated[Path, typer.Argument(help="CSV file of the variables in the formula.")],
    responses: Annotated[str, typer.Argument(help=f"The responses: {FORMATS}")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.", metavar="FILE")],
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    response_weights: Annotated[
        str | None,
        typer.Option(help="File like RESPONSES with a weight for every value of it.", metavar="FILE"),
    ] = None,
    response_offset: Annotated[
        str | None,
        typer.Option(
            help="File like RESPONSES with a known part of the mean of every value.", metavar="FILE"
        ),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            help="Also estimate this: 'Sex[T.Female] - Days', or 'NAME = Sex[T.Female] - Days'. Repeatable.",
            metavar="TEXT",
        ),
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
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="One of several processes that share the work: run the same command in each. Under SLURM, "
            "Open MPI or on a TPU pod they find each other; elsewhere give the next three options.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(help="Address of process 0.", metavar="HOST:PORT")
    ] = None,
    num_processes: Annotated[int | None, typer.Option(help="How many processes there are.", min=1)] = None,
    process_id: Annotated[int | None, typer.Option(help="Which of them this is, from 0.", min=0)] = None,
    allow_python: AllowPython = False,
) -> None:
    """Fit a model to every response of a file and write a row of results for each.

    The exit code is 0 if all responses were read, whatever the status of their fits, and 2 if the formula,
    the data or what is to be resumed are wrong, or another process failed.
    """
    console = Console(stderr=True, highlight=False)
    bar = (BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn(), TextColumn("left"))
    begin = time.perf_counter()
    with one_line_errors(), warnings.catch_warnings():
        # the last line counts them
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        process = _join_others(distributed, coordinator, num_processes, process_id)
        table = _labelled(read_csv(design), design, responses, index, rows)
        model = lmmjax.lmm(formula, table, weights=weights, safe=not allow_python)
        with Progress(*bar, console=console, disable=process > 0) as progress:
            task = progress.add_task("", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            result = model.stream_batch(
                responses,
                out,
                reml=not ml,
                weights=response_weights,
                offset=response_offset,
                contrasts=contrast,
                chunk=chunk,
                resume=resume,
                index=index,
                rows=rows,
                also=[design],
                progress=show,
            )
    if process:
        typer.echo(f"process {process} fitted {result.n_fitted:,} responses", err=True)
        return
    fitted = result.n_responses - result.n_resumed
    typer.echo(
        f"{fitted:,} responses fitted in {seconds(time.perf_counter() - begin)}"
        + (f" ({result.n_fitted:,} of them by process 0)" if result.n_fitted < fitted else "")
        + (f" ({result.n_resumed:,} were done before)" if result.n_resumed else "")
        + f": {result.n_singular:,} on the boundary, {result.n_failed:,} could not be fitted. "
        f"Results: {result.path}"
    )


def _labelled(
    design: pd.DataFrame, path: Path, responses: str, index: str | None, rows: bool
) -> pd.DataFrame:
    """The design with that column as labels of its rows that has those of the responses, if any has."""
    try:
        labels = open_source(responses, index=index, rows=rows).index
    except (ValueError, OSError, ImportError):
        # the stream says what is wrong with it, after the formula was read
        return design
    if labels is None or is_default(labels) or len(labels) != len(design):
        return design
    text = labels.dtype.kind not in "iufM"
    for _, column in design.items():
        own = pd.Index(column.astype(str) if text else column)
        if own.is_unique and labels.is_unique and own.isin(labels).all():
            return design.set_index(own.rename(None))
    typer.echo(
        f"lmmjax: no column of {path} has the labels of the rows of {responses} ({labels[0]!r}, …), which "
        "are taken in the order they come",
        err=True,
    )
    return design


def _join_others(distributed: bool, coordinator: str | None, count: int | None, process: int | None) -> int:
    """Which process this is, after it has met the others; 0 if it is alone."""
    if not distributed:
        for name, value in {
            "--coordinator": coordinator,
            "--num-processes": count,
            "--process-id": process,
        }.items():
            if value is not None:
                raise ValueError(f"{name} is for processes that share the work: add --distributed")
        return 0
    try:
        jax.distributed.initialize(coordinator, count, process)
    except ValueError as error:
        wanted = "--coordinator, --num-processes and --process-id"
        raise ValueError(f"the processes do not find each other ({error}): give {wanted}") from None
    return jax.process_index()
