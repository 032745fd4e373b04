"""The command `lmmjax scan`: every marker against every response, to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lmmjax
from lmmjax.cli.common import (
    AllowPython,
    MaximumLikelihood,
    Weights,
    check_words,
    one_line_errors,
    read_table,
    table_target,
    waiting,
    write_table,
)
from lmmjax.cli.grm import read_markers
from lmmjax.cli.levels import Kernels, References, read_kernels, with_references

EXAMPLES = """Examples

lmmjax scan 'y ~ sex + (1 | id)' mice.csv mice.bed -o hits.parquet --kernel id=K.npz --maf 0.01

lmmjax scan '~ time + (time | id)' visits.csv snps.csv -o out.csv --responses y.csv --interaction time"""

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
        typer.Option("--out", "-o", help="File to write: .csv, .tsv, .parquet or .json.", metavar="FILE"),
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
        str | None,
        typer.Option(help="Also the product of markers and this fixed effect.", metavar="TERM"),
    ] = None,
    maf: Annotated[
        float, typer.Option(help="Leave out markers whose rarer allele is less frequent.", min=0.0, max=0.5)
    ] = 0.0,
    max_missing: Annotated[
        float, typer.Option(help="Leave out markers of which a larger share is missing.", min=0.0, max=1.0)
    ] = 1.0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    allow_python: AllowPython = False,
) -> None:
    """Test every marker, beside the fixed effects, against every response.

    The table has a row a marker and response. The ten rows with the
    smallest p are printed.
    """
    with one_line_errors():
        check_words(formula, "satterthwaite")
        inputs = [data, markers, *([] if responses is None else [responses])]
        table_target(out, inputs, "--out")
        if out.is_file() and not force:
            raise ValueError(f"{out} is there: --force replaces it, or name another file as --out")
        with waiting("reading and fitting"):
            beside = {"weights": weights, "kernels": read_kernels(kernel)}
            table = with_references(read_table(data), ref)
            model = lmmjax.lmm(formula, table, safe=not allow_python, **beside)
            found = read_markers(markers)
            if responses is None:
                fits = model.fit(reml=not ml)
            else:
                fits = model.fit_batch(read_table(responses), reml=not ml)
        with waiting("the scan"):
            options = {"ratio": ratio, "test": test, "ddf": ddf, "group": group, "interaction": interaction}
            result = fits.scan(found, maf=maf, max_missing=max_missing, **options)
            write_table(out, result)
    p = next(name for name in result.columns if str(name).startswith("p_"))
    foremost = result.sort_values(p, kind="stable").head(FOREMOST)
    typer.echo(foremost.to_string(index=False) + "\n")
    typer.echo(f"{len(result):,} rows, {result['marker'].nunique():,} markers: {out}")
