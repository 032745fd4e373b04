"""The command `lmmjax scan`: every marker against every response, to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from lmmjax.cli.common import (
    PARQUET,
    AllowPython,
    Force,
    MaximumLikelihood,
    Weights,
    check_words,
    counting,
    one_line_errors,
    read_table,
    require_free,
    table_target,
    waiting,
    write_table,
)
from lmmjax.cli.genotypes import MaxMissing, MinorFrequency, markers_source
from lmmjax.cli.levels import Kernels, References, model_of
from lmmjax.scan import Above, Top
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.tables import kind_of

EXAMPLES = """Examples

lmmjax scan 'y ~ sex + (1 | id)' mice.csv mice.bed -o hits.parquet --kernel id=K.npz --maf 0.01

lmmjax scan '~ time + (time | id)' visits.csv snps.csv -o out.csv --responses y.csv --interaction time

lmmjax scan '~ sex + (1 | id)' mice.csv mice.bed -o parts --responses traits.csv --kernel id=K.npz --resume"""

FOREMOST = 10
"""Rows that are printed."""


def scan(
    formula: Annotated[str, typer.Argument(help="As of `fit`; without a response with --responses.")],
    data: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet file of the variables in the formula.")],
    markers: Annotated[
        Path,
        typer.Argument(
            help="Individuals × markers: PLINK .bed, .npy, or a CSV, TSV or Parquet file with labels in the "
            "first column."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="File to write, .parquet, .csv, .tsv or .json, or a folder for parts. Parquet and parts are "
            "written as the scan goes on, whatever their size.",
            metavar="FILE",
        ),
    ],
    responses: Annotated[
        Path | None,
        typer.Option(help="File with a column a response, a row a row of DATA.", metavar="FILE"),
    ] = None,
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    ref: References = None,
    kernel: Kernels = None,
    ratio: Annotated[
        str, typer.Option(help="Variances: null, of the fit without marker; refit, exact for every marker.")
    ] = "null",
    test: Annotated[
        str | None, typer.Option(help="wald, lrt, score or f; by default all.", metavar="NAME")
    ] = None,
    ddf: Annotated[
        str | None, typer.Option(help="satterthwaite, residual or normal.", metavar="NAME")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Factor whose levels the individuals are.", metavar="FACTOR")
    ] = None,
    interaction: Annotated[
        list[str] | None,
        typer.Option(
            help="Also the product of markers and this fixed effect; may be given several times.",
            metavar="TERM",
        ),
    ] = None,
    maf: MinorFrequency = 0.0,
    max_missing: MaxMissing = 1.0,
    top: Annotated[
        int | None, typer.Option(help="Keep so many markers of each response.", min=1, metavar="N")
    ] = None,
    lod: Annotated[
        float | None, typer.Option(help="Keep what has at least this LOD.", min=0.0, metavar="LOD")
    ] = None,
    loco: Annotated[
        str | None,
        typer.Option(
            help="Leave the chromosome of a marker out of the kernel, which is made of the others by this "
            "method of `grm`, such as vanraden.",
            metavar="METHOD",
        ),
    ] = None,
    chromosomes: Annotated[
        Path | None,
        typer.Option(
            help="File with columns marker and chromosome; by default the .bim beside a .bed.", metavar="FILE"
        ),
    ] = None,
    chunk: Annotated[int | None, typer.Option(help="Most markers a part.", min=1, metavar="N")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was killed, of Parquet or parts.")
    ] = False,
    force: Force = False,
    allow_python: AllowPython = False,
) -> None:
    """Test every marker, beside the fixed effects, against every response.

    The table has a row a marker and response. The ten rows with the
    smallest p are printed.
    """
    with one_line_errors():
        check_words(formula, "satterthwaite")
        streamed = kind_of(out) in PARQUET or not out.suffix
        inputs = [data, markers, *([] if responses is None else [responses])]
        if not streamed or out.suffix:
            table_target(out, inputs, "--out")
        if (resume or chunk) and not streamed:
            raise ValueError(f"--resume and --chunk are for Parquet files and folders, not {out}")
        require_free(out, force or resume)
        keep = [*([] if top is None else [Top(top)]), *([] if lod is None else [Above(lod=lod)])]
        with waiting("reading and fitting"):
            model = model_of(formula, read_table(data), weights, ref, kernel, allow_python)
            found = markers_source(markers)
            if responses is None:
                fits = model.fit(reml=not ml)
            else:
                fits = model.fit_batch(read_table(responses), reml=not ml)
        with counting() as show:
            options: dict[str, Any] = {
                "ratio": ratio,
                "test": test,
                "ddf": ddf,
                "group": group,
                "interaction": interaction or None,
                "maf": maf,
                "max_missing": max_missing,
                "keep": keep or None,
                "loco": loco,
                "chromosome": None if chromosomes is None else _chromosomes(chromosomes),
                "progress": show,
            }
            if streamed:
                done = fits.scan(found, sink=out, resume=resume, chunk=chunk, **options)
                foremost, rows, count = foremost_rows(done.path), done.n_rows, done.n_markers
            else:
                result = fits.scan(found, **options)
                write_table(out, result)
                foremost, rows, count = smallest(result), len(result), result["marker"].nunique()
    typer.echo(foremost.to_string(index=False) + "\n")
    typer.echo(f"{rows:,} rows, {count:,} markers: {out}")


def _chromosomes(path: Path) -> pd.Series:
    """Chromosomes by the names of the markers."""
    table = read_table(path)
    if not {"marker", "chromosome"} <= set(table.columns):
        raise ValueError(
            f"{path} has columns {', '.join(map(str, table.columns))}: name two marker, chromosome"
        )
    return pd.Series(table["chromosome"].to_numpy(), index=table["marker"].astype(str))


def smallest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the smallest p."""
    p = next(name for name in table.columns if str(name).startswith("p_"))
    return table.sort_values(p, kind="stable").head(FOREMOST)


def foremost_rows(path: Path) -> pd.DataFrame:
    """The rows of the smallest p of a Parquet file or a folder of parts, a group of rows in memory."""
    parquet, found = pyarrow("parquet"), pd.DataFrame()
    for file in sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]:
        opened = parquet.ParquetFile(file)
        for k in range(opened.num_row_groups):
            more = smallest(opened.read_row_group(k).to_pandas())
            found = smallest(pd.concat([found, more], ignore_index=True)) if len(found) else more
    return found
