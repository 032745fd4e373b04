"""What commands on many responses share: their arguments and options, their design, the file of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
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

    A column of their name goes before others. ValueError if that has other labels, or if there is none and
    one has some of them or, first in the table, is text that differs in all rows; or if several have them in
    different orders.
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
    named = None if rows else _name_of_labels(Path(responses), index, labels)
    whose = {name: own for name, own in columns.items() if str(name) == named} or columns
    orders = {name: order for name, own in whose.items() if (order := _order(own, labels)) is not None}
    if orders:
        first, *others = orders
        other = next((name for name in others if not np.array_equal(orders[name], orders[first])), None)
        if other is not None:
            raise ValueError(
                f"the labels of the rows of {responses} ({_shown(labels[:1])}, …) are those of columns "
                f"{first!r} and {other!r} of {path}, in different orders: call the column of "
                "labels in both files the same"
            )
        return design.set_index(columns[first].rename(None))
    for k, (name, own) in enumerate(whose.items()):
        alone = k == 0 and design.dtypes.iloc[0].kind == "O"
        shared = int(own.isin(labels).sum())
        if str(name) == named or (own.is_unique and (alone or 2 * shared > len(own))):
            remedy = "name its columns 0, 1, …" if rows else "leave its labels out"
            once = own.is_unique and labels.is_unique
            lacking = labels[~labels.isin(own)]
            there = len(labels) - len(lacking)
            raise ValueError(
                f"the labels of the rows of {responses} ({_shown(labels[:1])}, …) are not those of column "
                f"{name!r} of {path} ({_shown(own[:1])}, …): {there} of {len(labels)} are there"
                + (f", not {_shown(lacking[:3])}{', …' if len(lacking) > 3 else ''}" if len(lacking) else "")
                + ("" if once else ", some several times and in another order")
                + f"; correct them, or {remedy} to go by position"
            )
    typer.echo(
        f"lmmjax: no column of {path} has the labels of the rows of {responses} ({_shown(labels[:1])}, …), "
        "which are taken in the order they come",
        err=True,
    )
    return design


def _order(own: pd.Index, labels: pd.Index) -> np.ndarray | None:
    """The places in a column of the design that labels (n,) have, or None where it does not have them all."""
    if own.equals(labels):
        return np.arange(len(labels))
    if own.is_unique and labels.is_unique and labels.isin(own).all():
        return own.get_indexer(labels)
    return None


def _shown(labels: pd.Index) -> str:
    """Labels as messages have them: 3, and not np.int64(3)."""
    return ", ".join(map(repr, labels.tolist()))


def _name_of_labels(responses: Path, index: str | None, labels: pd.Index) -> str | None:
    """What the column of labels of a table is called."""
    if index is not None or kind_of(responses) not in TEXT:
        name = index or (None if labels.name is None else str(labels.name))
    else:
        name = str(pd.read_csv(responses, sep=TEXT[kind_of(responses)], nrows=0).columns[0])
    # what pandas calls a column without a name says nothing of another table
    return None if name is None or name.startswith("Unnamed: ") else name
