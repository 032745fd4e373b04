"""Columns of the data of a model on its rows: clusters by name or of labels, and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import Table, nearest
from lmmjax.formula.frame import ModelFrame
from lmmjax.formula.labelled import Labelled
from lmmjax.formula.levels import group_levels
from lmmjax.formula.matching import own_index
from lmmjax.formula.numbers import doubles


def cluster_labels(values: Any) -> Labelled:
    """Codes 0, 1, … (n,) of labels, one a row, NaN where missing, with the labels of their rows.

    Raises
    ------
    ValueError : they are no labels, or not one a row.
    """
    index = own_index(values)
    try:
        return Labelled(_codes(Table({"cluster": values}, index), ["cluster"]), index)
    except ValueError as error:
        raise ValueError(
            f"cluster is no factor of the model: name one, or give a label for every row ({error})"
        ) from None


def named_clusters(frame: ModelFrame, name: str) -> np.ndarray:
    """Codes (n,), NaN where missing, of a factor of the model, a column of its data, or several as in "a:b".

    Raises
    ------
    ValueError : there is none of that name.
    """
    known = model_factors(frame)
    if name in known:
        return known[name].astype(float)
    table = None if frame.source is None else Table(frame.source.data)
    columns = [] if table is None else list(table.keys)
    parts = [name] if name in columns else [part.strip() for part in name.split(":")]
    if table is None or not all(part in columns for part in parts):
        raise ValueError(f"unknown cluster {name!r}: {nearest(name, dict.fromkeys([*known, *columns]))}")
    return _codes(table, parts)[frame.rows]


def _codes(table: Table, names: list[str]) -> np.ndarray:
    """Codes (n,) of the levels of columns, or of combinations of several; NaN where one is missing."""
    missing = np.logical_or.reduce([table.missing(name) for name in names])
    known, codes = np.flatnonzero(~missing), np.full(table.n, np.nan)
    if len(known):
        codes[known] = group_levels(names, [table.take(name, known) for name in names])[0]
    return codes


def model_factors(frame: ModelFrame) -> dict[str, np.ndarray]:
    """Codes (n,) of every factor that a model names: of groups and their parts, residuals, fixed terms."""
    out: dict[str, np.ndarray] = {}
    for term in frame.random:
        out.setdefault(term.group, term.codes)
        # the parts of a:b, last first: keys are (code so far) (number of levels) + code
        key, own = term.codes, term._levels
        for k in range(len(own.names) - 1, 0, -1):
            key, code = np.divmod(own.steps[k - 1][key], len(own.parts[k]))
            out.setdefault(own.names[k], code)
        out.setdefault(own.names[0], key)
    columns = frame.residual
    if columns is not None and columns.design is not None:
        if columns.groups is not None:
            out.setdefault(":".join(columns.groups.names), columns.design.codes)
        by = columns.design.covariates[len(columns.design.covariates) - len(columns.by) :]
        for levels, codes in zip(columns.by, by, strict=True):
            out.setdefault(":".join(levels.names), codes)
    for name in frame.factor_levels:
        if name in frame.factor_values:
            out.setdefault(name, frame.factor_values[name])
    return {name: pd.factorize(codes, sort=True)[0] for name, codes in out.items()}


def source_numbers(frame: ModelFrame, name: str) -> np.ndarray:
    """A column of numbers (n,) on the rows of a frame; ValueError where there is none."""
    if frame.source is None:
        raise ValueError(f"this model was built from matrices: give the values of {name!r}, one a row")
    return doubles(Table(frame.source.data).take(name, frame.rows), f"column {name!r}")
