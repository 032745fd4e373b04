"""The command `lmmjax scan`: every marker against every response, to a table."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

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
    require_free,
    table_target,
    waiting,
    write_table,
)
from lmmjax.cli.genotypes import MaxMissing, MinorFrequency, markers_source
from lmmjax.cli.levels import Kernels, References
from lmmjax.cli.scan_options import (
    Chromosomes,
    Data,
    Group,
    Interaction,
    KeepLod,
    KeepTop,
    Loco,
    Markers,
    MarkersAPart,
    Ratio,
    ScanDdf,
    ScanFormula,
    ScanOut,
    ScanResponses,
    Test,
    fitted,
    scan_options,
)
from lmmjax.design import EstimabilityWarning
from lmmjax.scan.sink import files_of
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.tables import kind_of

EXAMPLES = """Examples

lmmjax scan 'y ~ sex + (1 | id)' mice.csv mice.bed -o hits.parquet --kernel id=K.npz --maf 0.01

lmmjax scan '~ time + (time | id)' visits.csv snps.csv -o out.csv --responses y.csv --interaction time

lmmjax scan '~ sex + (1 | id)' mice.csv mice.bed -o parts --responses traits.csv --kernel id=K.npz --resume"""

FOREMOST = 10
"""Rows that are printed."""


def scan(
    formula: ScanFormula,
    data: Data,
    markers: Markers,
    out: ScanOut,
    responses: ScanResponses = None,
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    ref: References = None,
    kernel: Kernels = None,
    ratio: Ratio = "null",
    test: Test = None,
    ddf: ScanDdf = None,
    group: Group = None,
    interaction: Interaction = None,
    maf: MinorFrequency = 0.0,
    max_missing: MaxMissing = 1.0,
    top: KeepTop = None,
    lod: KeepLod = None,
    loco: Loco = None,
    chromosomes: Chromosomes = None,
    chunk: MarkersAPart = None,
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
    with one_line_errors(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", EstimabilityWarning)
        check_words(formula, "satterthwaite")
        streamed = kind_of(out) in PARQUET or not out.suffix
        inputs = [data, markers, *([] if responses is None else [responses])]
        if not streamed or out.suffix:
            table_target(out, inputs, "--out")
        if (resume or chunk) and not streamed:
            raise ValueError(f"--resume and --chunk are for Parquet files and folders, not {out}")
        require_free(out, force or resume)
        with waiting("reading and fitting"):
            found = markers_source(markers)
            fits = fitted(formula, data, responses, ml, weights, ref, kernel, allow_python)
        options = scan_options(
            ratio=ratio,
            test=test,
            ddf=ddf,
            group=group,
            interaction=interaction,
            maf=maf,
            max_missing=max_missing,
            top=top,
            lod=lod,
            loco=loco,
            chromosomes=chromosomes,
        )
        with counting() as show:
            if streamed:
                done = fits.scan(found, sink=out, resume=resume, chunk=chunk, progress=show, **options)
                foremost, rows, count = foremost_rows(done.path), done.n_rows, done.n_markers
            else:
                result = fits.scan(found, progress=show, **options)
                write_table(out, result)
                foremost, rows, count = smallest(result), len(result), result["marker"].nunique()
    for one in said:
        typer.echo(f"lmmjax: {one.message}", err=True)
    typer.echo(foremost.to_string(index=False) + "\n")
    typer.echo(f"{rows:,} rows, {count:,} markers: {out}")


def smallest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the smallest p."""
    p = next(name for name in table.columns if str(name).startswith("p_"))
    return table.sort_values(p, kind="stable").head(FOREMOST)


def foremost_rows(path: Path) -> pd.DataFrame:
    """The rows of the smallest p of a Parquet file or a folder of parts, a group of rows in memory."""
    parquet, found = pyarrow("parquet"), pd.DataFrame()
    for file in files_of(path):
        opened = parquet.ParquetFile(file)
        for k in range(opened.num_row_groups):
            more = smallest(opened.read_row_group(k).to_pandas())
            found = smallest(pd.concat([found, more], ignore_index=True)) if len(found) else more
    return found
