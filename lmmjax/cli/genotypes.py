"""Genotypes of the command line: which markers are left out, and how their files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from lmmjax.cli.common import PARQUET, read_table
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.sources import open_source
from lmmjax.stream.tables import TEXT, kind_of

MinorFrequency = Annotated[
    float, typer.Option(help="Leave out markers whose rarer allele is less frequent.", min=0.0, max=0.5)
]

MaxMissing = Annotated[
    float, typer.Option(help="Leave out markers of which a larger share is missing.", min=0.0, max=1.0)
]

LABELS = ("id", "iid", "sample")
"""Names of a first column of numbers that are labels."""

GENOTYPES = (0, 1, 2, -9)
"""What a column of genotypes may have."""


def read_markers(path: Path) -> Any:
    """Genotypes of a file: its path, or a frame with the labels of the individuals."""
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if kind_of(path) not in (*TEXT, *PARQUET):
        return path
    table = read_table(path)
    first = table.columns[0]
    labels = str(first).lower() in LABELS or _are_labels(pd.Series(table.iloc[:, 0]))
    return table.set_index(first) if labels else table


def _are_labels(column: pd.Series) -> bool:
    """Whether a first column is labels: text, or whole numbers that all differ, as no genotypes do."""
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return True
    whole = pd.api.types.is_integer_dtype(column.dtype)
    return whole and len(column) > len(GENOTYPES) and column.is_unique


def markers_source(path: Path) -> Any:
    """The markers of a file: of Parquet read by the column, with labels in a first column that has some."""
    if kind_of(path) not in PARQUET or not path.exists():
        return read_markers(path)
    first = pyarrow("parquet").read_schema(path).names[:1]
    labels = first and (first[0].lower() in LABELS or _are_labels(_column(path, first[0])))
    return open_source(path, index=first[0] if labels else None)


def _column(path: Path, name: str) -> pd.Series:
    return pd.Series(pyarrow("parquet").read_table(path, columns=[name]).column(0).to_pandas())
