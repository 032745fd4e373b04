"""The covariance matrix of the residuals of one group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.core.residuals import covariance
from lmmjax.design import Design, ResidualDesign
from lmmjax.fitted import (
    Fitted,
    require_estimates,
    require_switch,
)
from lmmjax.formula import ResidualColumns, nearest
from lmmjax.formula.times import TimeScale
from lmmjax.inference.open_directions import nearby, settled
from lmmjax.residual import VarIdent


def residual_cov(fitted: Fitted, group: Any, cor: bool) -> pd.DataFrame:
    """See `Fit.residual_cov`."""
    require_switch("cor", cor)
    require_estimates(fitted)
    columns, design = fitted.data.frame.residual, fitted.data.design
    if columns is None or columns.design is None:
        raise ValueError(
            "the residuals are independent: residual_cov is for a model with a residual structure, "
            "such as residual=lj.AR1('time', group='id')"
        )
    own, correlation = columns.design, columns.residual.correlation
    if correlation is None:
        rows, labels = _levels(own, group)
        return _table(fitted, design, rows, labels, cor)
    if group is None and correlation.by is not None:
        k = columns.residual.by.index(correlation.by)
        tables = {
            label: _of_group(fitted, columns, None, level, cor)
            for level, label in enumerate(columns.by[k].labels)
        }
        visits = next(iter(tables.values())).index.name
        return pd.concat(tables, names=[correlation.by, visits])
    return _of_group(fitted, columns, group, None, cor)


def _of_group(
    fitted: Fitted, columns: ResidualColumns, group: Any, level: int | None, cor: bool
) -> pd.DataFrame:
    """The matrix of a group, or of all visits, or of those of one level of `by`."""
    own, design, correlation = columns.design, fitted.data.design, columns.residual.correlation
    assert own is not None
    assert correlation is not None
    if (
        group is None
        and columns.visits is not None
        and not columns.residual.variances
        and design.weights is None
    ):
        # all visits, whether or not a group has them
        labels = pd.Index(columns.visits.labels, name=":".join(columns.visits.names))
        size = len(labels)
        covariates = () if level is None else (np.full(size, level),) * len(columns.residual.by)
        whole = ResidualDesign(own.named, np.zeros(size, int), 1, np.arange(size), covariates)
        return _table(
            fitted, Design(np.ones((size, 1)), design.terms, None, None, whole), np.arange(size), labels, cor
        )
    code = _group(own, None if columns.groups is None else columns.groups.labels, group, level)
    rows = np.flatnonzero(own.codes == code)
    rows = rows[np.lexsort(own.place[rows].reshape(len(rows), -1).T[::-1])]
    labels = _labels(own.place[rows], code, columns, correlation.columns)
    return _table(fitted, design, rows, labels, cor)


def _table(fitted: Fitted, design: Design, rows: np.ndarray, labels: pd.Index, cor: bool) -> pd.DataFrame:
    """The matrix of some rows, missing where the data do not determine it."""

    def matrix(psi: np.ndarray) -> np.ndarray:
        value = covariance(design, psi, rows)
        if not cor:
            return value
        root = np.sqrt(np.diagonal(value))
        return value / (root[:, None] * root[None, :])

    psi = np.asarray(fitted.estimate.psi)
    value = matrix(psi)
    root = np.sqrt(np.diagonal(value))
    near = [matrix(point) for point in nearby(design.structure, psi, np.asarray(fitted.estimate.moves))]
    value = np.where(settled(value, near, root[:, None] * root[None, :]), value, np.nan)
    return pd.DataFrame(value, index=labels, columns=labels)


def _group(own: ResidualDesign, names: pd.Index | None, group: Any, level: int | None) -> int:
    """Code of the group that is meant: by default the first, of a level of `by`, of those with most rows."""
    if group is None:
        of_rows = None if level is None else own.structure.group_level(own.covariates)
        codes = own.codes if of_rows is None else own.codes[of_rows == level]
        return int(np.argmax(np.bincount(codes)))
    if names is None:
        raise ValueError("all rows are one group: leave group out")
    found = np.flatnonzero(names == group)
    if not len(found):
        known = [str(name) for name in names]
        found = np.flatnonzero(np.array(known) == str(group))
        if not len(found):
            raise ValueError(f"unknown group {group!r}: {nearest(str(group), known)}")
    return int(found[0])


def _labels(place: np.ndarray, code: int, columns: ResidualColumns, names: tuple[str, ...]) -> pd.Index:
    """Visits, coordinates or times of the rows of a group; of dates the days since its first."""
    visits, scale = columns.visits, columns.scale
    if visits is not None:
        return pd.Index(visits.labels[place], name=":".join(visits.names))
    if place.ndim > 1:
        return pd.MultiIndex.from_arrays(place.T, names=names)
    values = place * columns.unit if names else place + 1
    if scale is not None and (read := on_lattice(scale, place, code)) is not None:
        values = read
    return pd.Index(values, name=names[0] if names else "row")


def on_lattice(scale: TimeScale, place: np.ndarray, code: int) -> np.ndarray | None:
    """What the column of times has at places (k,) of a group: labels or numbers; None of dates."""
    clock = scale.clocks[0]
    if scale.first is None or clock.kind not in ("number", "category"):
        return None
    ticks = scale.first[code] + place * scale.step
    if clock.labels is None:
        return ticks + clock.origin
    names = {time: label for label, time in clock.labels.items()}
    return np.array([names.get(float(t), "") for t in ticks], dtype=object)


def _levels(own: ResidualDesign, group: Any) -> tuple[np.ndarray, pd.Index]:
    """A row of each level of variance functions of levels alone."""
    variances = own.named.residual.variances
    if group is not None or not all(isinstance(v, VarIdent) for v in variances):
        raise ValueError("the residuals are independent, each with a variance of its own: see scaled_resid")
    table = np.stack(own.covariates, axis=1)
    codes, rows = np.unique(table, axis=0, return_index=True)
    labels = [":".join(names[c] for names, c in zip(own.named.levels, row, strict=True)) for row in codes]
    return rows, pd.Index(labels, name=":".join(str(v.source) for v in variances))
