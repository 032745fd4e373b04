"""What is said of grouping factors and factors beside the formula, and the model that comes of all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from lmmjax.cli.common import PARQUET, read_table
from lmmjax.formula import Kernel, nearest
from lmmjax.formula.levels import whole_labels
from lmmjax.model import Model, lmm
from lmmjax.stream.portable import absolute
from lmmjax.stream.tables import TEXT, kind_of

References = Annotated[
    list[str] | None,
    typer.Option(
        "--ref",
        help="The level of a factor that others are compared with, the first by default. Repeatable.",
        metavar="FACTOR=LEVEL",
    ),
]

Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        help="Known covariance of the levels of a grouping factor, such as `lmmjax grm` writes: .npz, or a "
        "table with labels in the first column. Repeatable.",
        metavar="FACTOR=FILE",
    ),
]


def named_pairs(given: list[str] | None, option: str, what: str) -> list[tuple[str, str]]:
    """(name, value) of texts "name=value"; ValueError for one that is none."""
    pairs = []
    for text in given or ():
        name, sep, value = (part.strip() for part in text.partition("="))
        if not (sep and name and value):
            raise ValueError(f"{option} {text!r} is not {what}")
        pairs.append((name, value))
    return pairs


def model_of(
    formula: str,
    table: pd.DataFrame,
    weights: str | None,
    refs: list[str] | None,
    kernels: list[str] | None,
    allow_python: bool,
) -> Model:
    """The model of a table, by the options of the commands."""
    options = {"weights": weights, "kernels": read_kernels(kernels), "safe": not allow_python}
    return lmm(formula, with_references(table, refs), **options)


def with_references(table: pd.DataFrame, refs: list[str] | None) -> pd.DataFrame:
    """The table with those levels as the first of their factors, the others as they came.

    Raises
    ------
    ValueError : there is no such column or level, or it is one of numbers that are no levels.
    """
    for name, level in named_pairs(refs, "--ref", "FACTOR=LEVEL"):
        if name not in table:
            raise ValueError(f"--ref: unknown column {name!r}: {nearest(name, list(table.columns))}")
        column = table[name]
        if pd.api.types.is_float_dtype(column.dtype):
            raise ValueError(
                f"--ref: {name!r} holds numbers and is no factor: write C({name}) and text levels"
            )
        own = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else None
        levels = list(own if own is not None else sorted(column.dropna().unique()))
        texts = [str(value) for value in levels]
        if level not in texts:
            raise ValueError(f"--ref: {name!r} has no level {level!r}: {nearest(level, texts)}")
        first = levels.pop(texts.index(level))
        table = table.assign(**{name: pd.Categorical(column, categories=[first, *levels])})
    return table


def absolute_kernels(given: list[str] | None) -> list[str] | None:
    """The same with paths that hold in any working folder."""
    pairs = named_pairs(given, "--kernel", "FACTOR=FILE")
    return [f"{name}={absolute(path)}" for name, path in pairs] or None


def read_kernels(given: list[str] | None) -> dict[str, Kernel] | None:
    """Kernels by grouping factor; ValueError names the file that is none."""
    found = {}
    for name, path in named_pairs(given, "--kernel", "FACTOR=FILE"):
        if name in found:
            raise ValueError(f"--kernel {name} is given twice: several kernels of a factor are for Python")
        found[name] = _read_kernel(Path(path))
    return found or None


def _read_kernel(path: Path) -> Kernel:
    if kind_of(path) not in (*TEXT, *PARQUET):
        return Kernel.load(path)
    table = read_table(path)
    labels, values = table.iloc[:, 0], table.iloc[:, 1:]
    if values.shape[0] != values.shape[1]:
        raise ValueError(
            f"{path} is no kernel: it has {values.shape[0]} rows and {values.shape[1]} columns beside "
            "the labels"
        )
    ids = pd.Index(whole_labels(np.asarray(labels)))
    theirs = pd.Index([str(label) for label in ids])
    if set(theirs) != {str(name) for name in values.columns}:
        raise ValueError(f"{path} is no kernel: the first column and the header have different labels")
    return Kernel(values.set_axis([str(c) for c in values.columns], axis=1)[list(theirs)].to_numpy(), ids)
