"""What commands on many responses share: their arguments and options, their design, the file of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from lmmjax.cli.common import PARQUET, read_table, require_free, table_target
from lmmjax.formula.matching import is_default
from lmmjax.stream.files import target
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.sources import open_source
from lmmjax.stream.tables import TEXT, kind_of

FORMATS = (
    "a row a row of the design, a column a response. Parquet, CSV, TSV, .npy, .h5ad, .zarr (a folder or "
    "zipped); FILE.h5::ARRAY for an array inside, FILE.h5ad::LAYER for a layer."
)

BatchFormula = Annotated[str, typer.Argument(help="Without a response: '~ x + (x | group)'.")]

Design = Annotated[Path, typer.Argument(help="CSV, TSV or Parquet file of the variables in the formula.")]

Responses = Annotated[str, typer.Argument(help=f"The responses: {FORMATS}")]

Out = Annotated[
    Path, typer.Option("--out", "-o", help="File to write: .parquet, or .csv, .tsv.", metavar="FILE")
]

ResponseWeights = Annotated[
    str | None,
    typer.Option(help="File like RESPONSES with a weight for every value of it.", metavar="FILE"),
]

ResponseOffset = Annotated[
    str | None,
    typer.Option(help="File like RESPONSES with a known part of the mean of every value.", metavar="FILE"),
]

Tests = Annotated[
    list[str] | None,
    typer.Option(help="Also test this by F: 'a = b', or jointly 'a = 0; b = 0'. Repeatable.", metavar="TEXT"),
]

Index = Annotated[
    str | None, typer.Option(help="Column of RESPONSES that holds labels, no values.", metavar="COL")
]

Rows = Annotated[
    bool, typer.Option("--rows", help="RESPONSES has a row a response, a column a row of the design.")
]

Moderate = Annotated[
    bool, typer.Option("--moderate", help="Tests with a prior of the residual variances (limma's eBayes).")
]

Icc = Annotated[bool, typer.Option("--icc", help="Also the share of the variance of each grouping factor.")]

Chunk = Annotated[
    int | None, typer.Option(help="Most responses at a time; by default what memory allows.", min=1)
]


def out_parquet(out: Path, inputs: list[Any], resume: bool, force: bool) -> Path:
    """The Parquet file that results go to, which becomes `out` at the end; ValueError if it may not."""
    target(out, inputs, "--out")
    text = kind_of(out) not in PARQUET and bool(out.suffix)
    if text:
        table_target(out, inputs, "--out", (*TEXT, *PARQUET))
    require_free(out, force or (resume and not text), finished=resume)
    return out.with_name(out.name + ".parquet") if text else out


def read_design(path: Path, responses: str, index: str | None, rows: bool) -> tuple[pd.DataFrame, str | None]:
    """The design with that column as labels of its rows that has those of the responses, if any has.

    Also the column of the responses that labels rows: `index`, or a first one that the design has too.
    """
    design = read_table(path)
    if index is None and not rows:
        index = _shared(design, Path(responses))
    return _labelled(path, design, responses, index, rows), index


def _shared(design: pd.DataFrame, responses: Path) -> str | None:
    """The first column of a table of responses, if it is one of the design: the same different numbers."""
    kind = kind_of(responses)
    if kind not in (*TEXT, *PARQUET) or not responses.is_file():
        return None
    try:
        if kind in PARQUET:
            first = pyarrow("parquet").read_schema(responses).names[0]
            column = pd.read_parquet(responses, columns=[first])[first]
        else:
            column = pd.read_csv(responses, sep=TEXT[kind], usecols=[0]).iloc[:, 0]
    except (ValueError, OSError, ImportError, KeyError, IndexError):
        return None
    name = str(column.name)
    if name not in design or not pd.api.types.is_integer_dtype(column.dtype) or not column.is_unique:
        return None
    return name if set(design[name]) == set(column) else None


def _labelled(
    path: Path, design: pd.DataFrame, responses: str, index: str | None, rows: bool
) -> pd.DataFrame:
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
