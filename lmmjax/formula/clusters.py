"""Which cluster every row of a model lies in: of a factor of the model by its name, or of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.columns import Table, group_levels, nearest
from lmmjax.formula.frame import ModelFrame
from lmmjax.formula.labelled import Labelled
from lmmjax.formula.matching import own_index


def cluster_labels(values: Any) -> Labelled:
    """Codes 0, 1, … (n,) of labels, one a row, NaN where missing, with the labels of their rows.

    Raises
    ------
    ValueError : they are no labels, or not one a row.
    """
    index = own_index(values)
    try:
        table = Table({"cluster": values}, index)
        raw = table.raw("cluster")
    except ValueError as error:
        raise ValueError(f"cluster must be the name of a factor, or one label a row: {error}") from None
    known = np.flatnonzero(~table.missing("cluster"))
    codes = np.full(len(raw), np.nan)
    if len(known):
        codes[known] = group_levels(["cluster"], [table.take("cluster", known)])[0]
    return Labelled(codes, index)


def named_factor(frame: ModelFrame, name: str) -> np.ndarray:
    """Codes (n,) of a factor of the model; ValueError lists them."""
    known = model_factors(frame)
    if name not in known:
        raise ValueError(
            f"unknown cluster {name!r}: {nearest(name, known)}. For another pass its column, "
            f"as in cluster=data[{name!r}]"
        )
    return known[name]


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
