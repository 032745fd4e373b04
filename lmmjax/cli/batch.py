"""The command `lmmjax batch`: responses from a file, results to a Parquet file."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
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
from lmmjax.cli.common import (
    PARQUET,
    AllowPython,
    Contrasts,
    Ddf,
    MaximumLikelihood,
    Weights,
    check_words,
    one_line_errors,
    read_table,
    seconds,
    table_target,
    waiting,
    write_table,
)
from lmmjax.fitted import require_known
from lmmjax.formula.matching import is_default
from lmmjax.postestimation.hypotheses.batch_tests import adjust
from lmmjax.stream.files import target
from lmmjax.stream.inputs import named_contrasts, named_hypotheses
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.sources import open_source
from lmmjax.stream.tables import TEXT, kind_of

FORMATS = (
    "a row a row of the design, a column a response. Parquet, CSV, TSV, .npy, .h5ad, .zarr (a folder or "
    "zipped); FILE.h5::ARRAY for an array inside, FILE.h5ad::LAYER for a layer."
)

EXAMPLES = """Examples

lmmjax batch '~ Sex + age + (1 | donor)' samples.csv genes.tsv -o genes.parquet --top 'Sex[T.Female]'

lmmjax batch '~ dose + (1 | plate)' wells.csv y.csv -o out.csv --rows --ddf kr --test 'dose = 1'

lmmjax batch '~ time + (time | id)' visits.csv voxels.npy -o out.parquet --resume"""

FOREMOST = 10
"""Responses that `--top` shows."""


class RateColumn(ProgressColumn):
    """Responses a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def batch(
    formula: Annotated[str, typer.Argument(help="Without a response: '~ x + (x | group)'.")],
    design: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet file of the variables in the formula.")],
    responses: Annotated[str, typer.Argument(help=f"The responses: {FORMATS}")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="File to write: .parquet, or .csv, .tsv.", metavar="FILE"),
    ],
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
    ddf: Ddf = "satterthwaite",
    contrast: Contrasts = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="Also test this by F: 'a = b', or jointly 'a = 0; b = 0'. Repeatable.", metavar="TEXT"
        ),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            help=f"At the end print the {FOREMOST} responses with the smallest p of this coefficient, "
            "contrast or test.",
            metavar="TERM",
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
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
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

    Formula, options and all files are checked before the first fit.
    The exit code is 0 if all responses were read, whatever the status of
    their fits: the last line counts those that could not be fitted.
    """
    console = Console(stderr=True, highlight=False)
    bar = (BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn(), TextColumn("left"))
    begin = time.perf_counter()
    with one_line_errors(), warnings.catch_warnings():
        # the last line counts them
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        check_words(formula, ddf)
        parquet = _parquet(out, [design, responses, response_weights, response_offset], resume, force)
        process = _join_others(distributed, coordinator, num_processes, process_id)
        with waiting("reading the design"):
            table = _labelled(read_table(design), design, responses, index, rows)
            model = lmmjax.lmm(formula, table, weights=weights, safe=not allow_python)
            names = model.data.x_names
            tested = [*names, *named_contrasts(contrast, names), *named_hypotheses(test, names)]
            if top is not None:
                top = " ".join(top.split())
                require_known("coefficient, contrast or test of --top", [top], tested)
        with Progress(*bar, console=console, disable=process > 0 or not console.is_terminal) as progress:
            task = progress.add_task("", total=None)

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            result = model.stream_batch(
                responses,
                parquet,
                reml=not ml,
                weights=response_weights,
                offset=response_offset,
                contrasts=contrast,
                tests=test,
                ddf=ddf,
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
        foremost = None if top is None else _foremost(parquet, top)
        if parquet != out:
            with waiting("writing"):
                write_table(out, pd.read_parquet(parquet))
                parquet.unlink()
    if foremost is not None:
        typer.echo(f"{top}, smallest p first; q by Benjamini and Hochberg over all responses:\n")
        typer.echo(foremost.to_string(index=False) + "\n")
    fitted = result.n_responses - result.n_resumed
    typer.echo(
        f"{fitted:,} responses fitted in {seconds(time.perf_counter() - begin)}"
        + (f" ({result.n_fitted:,} of them by process 0)" if result.n_fitted < fitted else "")
        + (f" ({result.n_resumed:,} were done before)" if result.n_resumed else "")
        + f": {result.n_singular:,} on the boundary, {result.n_failed:,} could not be fitted. "
        f"Results: {out}"
    )


def _parquet(out: Path, inputs: list[Any], resume: bool, force: bool) -> Path:
    """The Parquet file that results go to, which becomes `out` at the end; ValueError if it may not."""
    target(out, inputs, "--out")
    text = kind_of(out) not in PARQUET and bool(out.suffix)
    if text:
        table_target(out, inputs, "--out", (*TEXT, *PARQUET))
    if out.is_file() and not force and (text or not resume):
        remedy = "it is finished: " if resume else ""
        raise ValueError(f"{out} is there; {remedy}--force replaces it, or name another file as --out")
    return out.with_name(out.name + ".parquet") if text else out


def _foremost(path: Path, name: str) -> pd.DataFrame:
    """The responses with the smallest p of a coefficient, contrast or test."""
    there = pyarrow("parquet").read_schema(path).names
    wanted = [column for column in there if column.partition(":")[2] == name]
    table = pd.read_parquet(path, columns=["response", *wanted])
    table.columns = ["response", *(column.partition(":")[0] for column in wanted)]
    table["q"] = adjust(np.asarray(table["p"], dtype=float))
    return table.sort_values("p", kind="stable").head(FOREMOST).dropna(subset="p")


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
