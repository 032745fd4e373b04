"""Columns of the data that a residual structure reads, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lmmjax.design import ResidualDesign
from lmmjax.formula.columns import Levels, Table, group_levels, require_finite
from lmmjax.residual import Correlation, Residual, ResidualStructure, Space


@dataclass(frozen=True, eq=False)
class ResidualColumns:
    """A residual structure on the rows of a model.

    `design` is None where only variances are known: `known` (n,). `groups` are the levels of the groups of
    the correlation, `visits` those of its occasions, `levels` those of every variance function, if any.
    """

    residual: Residual
    design: ResidualDesign | None
    known: np.ndarray | None
    groups: Levels | None
    visits: Levels | None
    levels: tuple[Levels | None, ...]

    def take(self, rows: np.ndarray) -> ResidualColumns:
        """The same for some rows."""
        return replace(
            self,
            design=None if self.design is None else self.design.take(rows),
            known=None if self.known is None else self.known[rows],
        )


def used_columns(residual: Residual | None, table: Table) -> list[str]:
    """Names of the columns that a structure reads."""
    if residual is None:
        return []
    names = [residual.known] if residual.known else []
    if residual.correlation is not None:
        names += [*_group_names(residual.correlation, table), *residual.correlation.columns]
    return [*names, *(v.source for v in residual.variances if v.source is not None)]


def residual_columns(residual: Residual, table: Table, rows: np.ndarray) -> ResidualColumns:
    """Read the columns on complete rows; ValueError names what does not suit the structure."""
    n, index = len(rows), table.index[rows]
    known = None
    if residual.known:
        known = _numbers(table.take(residual.known, rows), residual.known, index)
        if np.any(known <= 0):
            raise ValueError(f"KnownVariance: {residual.known!r} must be positive in every row")
    correlation = residual.correlation
    if correlation is None and not residual.variances:
        return ResidualColumns(residual, None, known, None, None, ())
    codes, groups, visits = np.arange(n), None, None
    place, space = np.zeros(n, np.int32), Space()
    if correlation is not None:
        names = _group_names(correlation, table)
        if names:
            codes, groups = group_levels(names, [table.take(name, rows) for name in names])
        else:
            codes = np.zeros(n, int)
        place, space, visits = _places(correlation, table, rows, codes)
        correlation.check(space)
        _require_distinct(correlation, codes, place, groups)
    covariates, levels, labels = [], [], []
    for variance in residual.variances:
        if variance.source is None:
            covariates.append(np.ones(n))
            levels.append(None)
            labels.append(())
        elif variance.reads == "levels":
            own, found = group_levels([variance.source], [table.take(variance.source, rows)])
            covariates.append(own)
            levels.append(found)
            labels.append(tuple(map(str, found.labels)))
        else:
            values = _numbers(table.take(variance.source, rows), variance.source, index)
            variance.check(values)
            covariates.append(values)
            levels.append(None)
            labels.append(())
    structure = ResidualStructure(residual, space, tuple(labels))
    design = ResidualDesign(structure, codes, int(codes.max()) + 1, place, tuple(covariates))
    return ResidualColumns(residual, design, known, groups, visits, tuple(levels))


def new_residuals(
    own: ResidualColumns, table: Table, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Group codes (m,), −1 for new groups, places and covariates of new rows; 1 in place of their means."""
    design, correlation = own.design, own.residual.correlation
    assert design is not None
    codes = np.full(len(rows), -1)
    if correlation is not None:
        codes = np.zeros(len(rows), int)
        if own.groups is not None:
            codes = own.groups.codes([table.take(name, rows) for name in own.groups.names])
    place = np.zeros((len(rows), *design.place.shape[1:]), design.place.dtype)
    if correlation is not None and correlation.reads == "visit" and own.visits is not None:
        place = own.visits.codes([table.take(correlation.columns[0], rows)])
    elif correlation is not None and correlation.columns:
        index = table.index[rows]
        columns = [_times(table.take(name, rows), name, index) for name in correlation.columns]
        place = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
        place = place.astype(design.place.dtype)
    covariates = []
    for variance, levels in zip(own.residual.variances, own.levels, strict=True):
        if variance.source is None:
            covariates.append(np.ones(len(rows)))
        elif levels is not None:
            covariates.append(levels.codes([table.take(variance.source, rows)]))
        else:
            column = table.take(variance.source, rows)
            covariates.append(_numbers(column, variance.source, table.index[rows]))
    return codes, place, tuple(covariates)


def _group_names(correlation: Correlation, table: Table) -> list[str]:
    group = correlation.group
    if group is None:
        return []
    return [group] if group in table else group.split(":")


def _places(
    correlation: Correlation, table: Table, rows: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, Space, Levels | None]:
    """Place of every row, what places are like, and the levels of visits."""
    index = table.index[rows]
    if correlation.reads == "order":
        place = pd.Series(codes).groupby(codes).cumcount().to_numpy().astype(np.int32)
        return place, Space(int(place.max()) + 1), None
    columns = [table.take(name, rows) for name in correlation.columns]
    if correlation.reads == "visit":
        place, visits = group_levels(correlation.columns, columns)
        return place, Space(len(visits.labels), 1.0, tuple(map(str, visits.labels))), visits
    if correlation.reads == "time":
        name = correlation.columns[0]
        if hasattr(columns[0], "cat"):
            times = columns[0].cat.codes.to_numpy().astype(float)
        else:
            times = _times(columns[0], name, index)
        if np.any(times != np.round(times)):
            row = index[int(np.argmax(times % 1 != 0))]
            raise ValueError(
                f"{correlation.name}: {name!r} is not a whole number in row {row}; number the "
                "occasions, or use CAR1 for continuous time"
            )
        place = times.astype(np.int32)
        return place, Space(int(place.max() - place.min()) + 1), None
    times = [_times(column, name, index) for name, column in zip(correlation.columns, columns, strict=True)]
    place = times[0] if len(times) == 1 else np.stack(times, axis=1)
    return place, Space(int(np.bincount(codes).max()), _unit(place, codes)), None


def _unit(place: np.ndarray, codes: np.ndarray) -> float:
    """Median distance of a row from the nearest of its group, as a power of two."""
    points = place if place.ndim > 1 else place[:, None]
    nearest = []
    for code in np.unique(codes)[:100]:
        own = points[codes == code][:200]
        gaps = np.sqrt(((own[:, None] - own[None]) ** 2).sum(axis=-1))
        gaps[gaps == 0] = np.inf
        nearest.append(gaps.min(axis=1))
    found = np.concatenate(nearest)
    found = found[np.isfinite(found)]
    return float(2.0 ** np.round(np.log2(np.median(found)))) if len(found) else 1.0


def _require_distinct(
    correlation: Correlation, codes: np.ndarray, place: np.ndarray, groups: Levels | None
) -> None:
    """Two rows of a group at one place would have correlation 1."""
    if getattr(correlation, "nugget", False):
        return
    _, count = np.unique(np.column_stack([codes, place]), axis=0, return_counts=True)
    if np.any(count > 1):
        cell = np.unique(np.column_stack([codes, place]), axis=0)[np.argmax(count > 1)]
        where = "" if groups is None else f" of group {groups.labels[int(cell[0])]}"
        what = ", ".join(correlation.columns) or "order"
        raise ValueError(
            f"{correlation.name}: two rows{where} have the same {what}; correlations are between different "
            "places: give a finer group=, or a nugget"
        )


def _times(column: pd.Series, name: str, index: pd.Index) -> np.ndarray:
    """A column of times as numbers; dates as days."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column - column.min().normalize()
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds().to_numpy() / 86400.0
    return _numbers(column, name, index)


def _numbers(column: pd.Series, name: str, index: pd.Index) -> np.ndarray:
    if hasattr(column, "cat") or not pd.api.types.is_numeric_dtype(column.dtype):
        raise ValueError(f"column {name!r} of the residual structure is not numeric")
    values = column.to_numpy().astype(float)
    require_finite(values, f"column {name!r}", index)
    return values
