"""What commands that scan markers share: their options, the fits and the scan that these describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from lmmjax.cli.batch_options import read_design
from lmmjax.cli.common import read_table
from lmmjax.cli.levels import model_of
from lmmjax.formula.labelled import Labelled
from lmmjax.scan import Above, Top
from lmmjax.stream.sources import open_source

ScanFormula = Annotated[str, typer.Argument(help="As of `fit`; without a response with --responses.")]

Data = Annotated[Path, typer.Argument(help="CSV, TSV or Parquet file of the variables in the formula.")]

Markers = Annotated[
    Path,
    typer.Argument(
        help="Individuals × markers: PLINK .bed or .pgen, .npy, or a CSV, TSV or Parquet file with labels in "
        "the first column."
    ),
]

ScanOut = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="File to write, .parquet, .csv, .tsv or .json, or a folder for parts. Parquet and parts are "
        "written as the scan goes on, whatever their size.",
        metavar="FILE",
    ),
]

PlannedScanOut = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="File to write: .parquet, or .csv, .tsv; or a folder for parts.", metavar="FILE"
    ),
]

ScanResponses = Annotated[
    Path | None,
    typer.Option("--responses", help="File with a column a response, a row a row of DATA.", metavar="FILE"),
]

Ratio = Annotated[
    str, typer.Option(help="Variances: null, of the fit without marker; refit, exact for every marker.")
]

Test = Annotated[str | None, typer.Option(help="wald, lrt, score or f; by default all.", metavar="NAME")]

ScanDdf = Annotated[
    str | None, typer.Option("--ddf", help="satterthwaite, residual or normal.", metavar="NAME")
]

Group = Annotated[str | None, typer.Option(help="Factor whose levels the individuals are.", metavar="FACTOR")]

Interaction = Annotated[
    list[str] | None,
    typer.Option(
        help="Also the product of markers and this fixed effect; may be given several times.",
        metavar="TERM",
    ),
]

KeepTop = Annotated[
    int | None, typer.Option("--top", help="Keep so many markers of each response.", min=1, metavar="N")
]

KeepLod = Annotated[
    float | None, typer.Option("--lod", help="Keep what has at least this LOD.", min=0.0, metavar="LOD")
]

Loco = Annotated[
    str | None,
    typer.Option(
        help="Leave the chromosome of a marker out of the kernel, which is made of the others by this "
        "method of `grm`, such as vanraden.",
        metavar="METHOD",
    ),
]

Chromosomes = Annotated[
    Path | None,
    typer.Option(
        help="File with columns marker and chromosome; by default the .bim of a .bed.", metavar="FILE"
    ),
]

MarkersAPart = Annotated[int | None, typer.Option("--chunk", help="Most markers a part.", min=1, metavar="N")]


def fitted(
    formula: str,
    data: Path,
    responses: Path | None,
    ml: bool,
    weights: str | None,
    ref: list[str] | None,
    kernel: list[str] | None,
    allow_python: bool,
) -> Any:
    """The fit without markers, or those of the responses of a file."""
    if responses is None:
        return model_of(formula, read_table(data), weights, ref, kernel, allow_python).fit(reml=not ml)
    table, index = read_design(data, str(responses), None, False)
    model = model_of(formula, table, weights, ref, kernel, allow_python)
    source = open_source(str(responses), index=index)
    values = np.asarray(source.read(0, source.n_responses))
    return model.fit_batch(Labelled(values, source.index, source.names), reml=not ml)


def scan_options(
    *,
    interaction: list[str] | None,
    top: int | None,
    lod: float | None,
    chromosomes: str | Path | None,
    **others: Any,
) -> dict[str, Any]:
    """Options of the command as `Fit.scan` takes them."""
    keep = [*([] if top is None else [Top(top)]), *([] if lod is None else [Above(lod=lod)])]
    where = None if chromosomes is None else _chromosomes(Path(chromosomes))
    return others | {"interaction": interaction or None, "keep": keep or None, "chromosome": where}


def _chromosomes(path: Path) -> pd.Series:
    """Chromosomes by the names of the markers."""
    table = read_table(path)
    if not {"marker", "chromosome"} <= set(table.columns):
        raise ValueError(
            f"{path} has columns {', '.join(map(str, table.columns))}: name two marker, chromosome"
        )
    return pd.Series(table["chromosome"].to_numpy(), index=table["marker"].astype(str))
