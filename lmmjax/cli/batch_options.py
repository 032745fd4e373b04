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
    """The design by the labels of the responses, as it is where one of both has none.

    ValueError if the design has other labels: a column of their name, one with some of them or, first in the
    table, one of text that differs in all rows.
    """
    try:
        labels = open_source(responses, index=index, rows=rows).index
    except (ValueError, OSError, ImportError):
        # the stream says what is wrong with it, after the formula was read
        return design
    if labels is None or is_default(labels):
        return design
    text = labels.dtype.kind not in "iufM"
    columns = {name: pd.Index(column.astype(str) if text else column) for name, column in design.items()}
    for own in columns.values():
        if own.equals(labels) or (own.is_unique and labels.is_unique and labels.isin(own).all()):
            return design.set_index(own.rename(None))
    named = None if rows else _name_of_labels(Path(responses), index, labels)
    for k, (name, own) in enumerate(columns.items()):
        alone = k == 0 and design.dtypes.iloc[0].kind == "O"
        shared = int(own.isin(labels).sum())
        if str(name) == named or (own.is_unique and (alone or 2 * shared > len(own))):
            remedy = "name its columns 0, 1, …" if rows else "leave its labels out"
            several = "" if own.is_unique else ", some several times and in another order"
            raise ValueError(
                f"the labels of the rows of {responses} ({labels[0]!r}, …) are not those of column {name!r} "
                f"of {path} ({own[0]!r}, …): {shared} of {len(own)} are there{several}; correct them, or "
                f"{remedy} to go by position"
            )
    typer.echo(
        f"lmmjax: no column of {path} has the labels of the rows of {responses} ({labels[0]!r}, …), which "
        "are taken in the order they come",
        err=True,
    )
    return design


def _name_of_labels(responses: Path, index: str | None, labels: pd.Index) -> str | None:
    """What the column of labels of a table is called."""
    if index is not None or kind_of(responses) not in TEXT:
        return index or (None if labels.name is None else str(labels.name))
    return str(pd.read_csv(responses, sep=TEXT[kind_of(responses)], nrows=0).columns[0])
