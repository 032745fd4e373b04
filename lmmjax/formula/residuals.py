"""Columns of the data that a residual structure reads, as arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lmmjax.design import ResidualDesign
from lmmjax.formula.columns import Table, require_finite
from lmmjax.formula.levels import Levels, group_levels
from lmmjax.formula.residual_checks import require_apart, require_constant, require_distinct, require_same
from lmmjax.formula.times import (
    TimeScale,
    natural_order,
    on_lattice,
    points,
    read_times,
    typical_gap,
)
from lmmjax.residual import Correlation, Residual, ResidualStructure, Space


@dataclass(frozen=True, eq=False)
class ResidualColumns:
    """A residual structure on the rows of a model.

    `design` is None where only variances are known: `known` (n,). `groups` are the levels of the groups of
    the correlation, `visits` those of its occasions, `levels` those of every variance function, if any,
    `by` those of the factors whose levels have their own parameters. `scale` is how its times or coordinates
    were read.
    """

    residual: Residual
    design: ResidualDesign | None
    known: np.ndarray | None
    groups: Levels | None
    visits: Levels | None
    levels: tuple[Levels | None, ...]
    scale: TimeScale | None = None
    by: tuple[Levels, ...] = ()

    @property
    def unit(self) -> float:
        """Units of the columns of times, days for dates, in one of the design's."""
        return 1.0 if self.scale is None else self.scale.unit

    def take(self, rows: np.ndarray) -> ResidualColumns:
        """The same for some rows, without groups that lose all of theirs."""
        design, groups = self.design, self.groups
        if design is not None and groups is not None:
            groups = groups.only(np.unique(design.codes[rows]))
        return replace(
            self,
            design=None if design is None else design.take(rows),
            known=None if self.known is None else self.known[rows],
            groups=groups,
        )


@dataclass(frozen=True, eq=False)
class NewPlaces:
    """Complete new rows `rows` in the residual structure, if there is one; codes are −1 in new groups.

    `weights` of Var(ε) = σ²s²/w, those of known variances among them, or None.
    """

    rows: np.ndarray
    design: ResidualDesign | None = None
    weights: np.ndarray | None = None


def group_columns(residual: Residual | None, table: Table) -> list[str]:
    """Names of the columns that a structure groups by, or takes as known variances."""
    if residual is None:
        return []
    known = [residual.known] if residual.known else []
    return known if residual.correlation is None else [*known, *_group_names(residual.correlation, table)]


def used_columns(residual: Residual | None, table: Table, correlated: bool = True) -> list[str]:
    """Names of the columns that a structure reads; of those that variances need unless `correlated`."""
    if residual is None:
        return []
    names, correlation = [residual.known] if residual.known else [], residual.correlation
    if correlation is not None and correlated:
        names += [*_group_names(correlation, table), *correlation.columns]
    elif correlation is not None and correlation.variances:
        names += correlation.columns
    return [*names, *(v.source for v in residual.variances if v.source is not None), *residual.by]


def residual_columns(residual: Residual, table: Table, rows: np.ndarray) -> ResidualColumns:
    """Read the columns on complete rows; ValueError names what does not suit the structure."""
    n, index = len(rows), table.index[rows]
    known = None
    if residual.known:
        known = _numbers(table.take(residual.known, rows), residual.known, index)
        if np.any(known <= 0):
            row = index[int(np.argmax(known <= 0))]
            raise ValueError(f"KnownVariance: {residual.known!r} must be positive, and is not in row {row}")
    correlation = residual.correlation
    if correlation is None and not residual.variances:
        return ResidualColumns(residual, None, known, None, None, ())
    codes, groups, visits, scale = np.arange(n), None, None, None
    place, space = np.zeros(n, np.int32), Space()
    if correlation is not None:
        names = _group_names(correlation, table)
        if names:
            codes, groups = group_levels(names, [table.take(name, rows) for name in names])
        else:
            codes = np.zeros(n, int)
        if correlation.reads == "order":
            place = _order(table, rows, names)
            space = Space(_largest(codes) if correlation.exchangeable else int(place.max()) + 1)
        elif correlation.reads == "visit":
            place, visits = _visits(table.take(correlation.columns[0], rows), correlation.columns[0])
            space = Space(len(visits.labels), 1.0, tuple(map(str, visits.labels)))
        else:
            place, scale, space = _distances(correlation, table, rows, codes)
        correlation.check(space)
        require_distinct(correlation, codes, place, groups)
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
    by, read = [], {}
    for name in residual.by:
        read[name], found = group_levels([name], [table.take(name, rows)])
        by.append(found)
    for part in residual.parts:
        if part.by is not None and isinstance(part, Correlation):
            require_constant(part, codes, read[part.by], groups, by[residual.by.index(part.by)])
    for variance, covariate in zip(residual.variances, covariates, strict=True):
        require_apart(variance, covariate, read)
    structure = ResidualStructure(
        residual, space, tuple(labels), tuple(tuple(map(str, found.labels)) for found in by)
    )
    covariates += read.values()
    design = ResidualDesign(structure, codes, int(codes.max()) + 1, place, tuple(covariates))
    return ResidualColumns(residual, design, known, groups, visits, tuple(levels), scale, tuple(by))


def new_places(
    own: ResidualColumns | None, table: Table, rows: np.ndarray, weights: np.ndarray | None, correlated: bool
) -> NewPlaces:
    """Complete new rows with the variances of their residuals and, if `correlated`, in their groups."""
    if own is not None and own.residual.known:
        known = _numbers(table.take(own.residual.known, rows), own.residual.known, table.index[rows])
        if np.any(known <= 0):
            row = table.index[rows][int(np.argmax(known <= 0))]
            raise ValueError(f"{own.residual.known!r} must be positive, and is not in row {row}")
        weights = (1.0 if weights is None else weights) / known
    if own is None or own.design is None:
        return NewPlaces(rows, None, weights)
    return NewPlaces(rows, _new_residuals(own, table, rows, correlated), weights)


def own_places(own: ResidualColumns | None, n: int, weights: np.ndarray | None) -> NewPlaces:
    """The rows of the fit as `new_places`."""
    if own is not None and own.known is not None:
        weights = (1.0 if weights is None else weights) / own.known
    return NewPlaces(np.arange(n), None if own is None else own.design, weights)


def _new_residuals(own: ResidualColumns, table: Table, rows: np.ndarray, correlated: bool) -> ResidualDesign:
    """Complete new rows in the structure of the fit: its origins, steps and levels.

    Raises ValueError for visits and levels that the fit has not seen, and for times without a column.
    """
    design, correlation = own.design, own.residual.correlation
    assert design is not None
    m, structure = len(rows), design.named
    codes = np.full(m, -1)
    place = np.zeros((m, *design.place.shape[1:]), design.place.dtype)
    if correlation is not None and not correlated:
        if correlation.variances and own.visits is not None:
            place = _seen(own.visits, table.take(correlation.columns[0], rows), correlation.name)
    elif correlation is not None:
        codes = np.zeros(m, int)
        if own.groups is not None:
            codes = own.groups.codes([table.take(name, rows) for name in own.groups.names])
        if own.visits is not None:
            place = _seen(own.visits, table.take(correlation.columns[0], rows), correlation.name)
        elif own.scale is not None:
            columns = [table.raw(name).take(rows).reset_index(drop=True) for name in correlation.columns]
            place = own.scale.place(columns, codes)
            structure = dataclasses.replace(structure, space=_wider(correlation, design, place, codes))
        elif correlation.exchangeable:
            # anywhere but at the places of the fit
            place = -1 - np.arange(m, dtype=np.int32)
        else:
            raise ValueError(
                f"{correlation.name} takes the order of the rows of the fit, in which new rows have no "
                "place: give it a column of times"
            )
    covariates = []
    for variance, levels in zip(own.residual.variances, own.levels, strict=True):
        if variance.source is None:
            covariates.append(np.ones(m))
        elif levels is not None:
            covariates.append(_seen(levels, table.take(variance.source, rows), variance.name))
        else:
            column = table.take(variance.source, rows)
            covariates.append(_numbers(column, variance.source, table.index[rows]))
    for name, found in zip(own.residual.by, own.by, strict=True):
        covariates.append(_seen(found, table.take(name, rows), f"by={name!r}"))
        if correlation is not None and correlation.by == name and correlated:
            require_same(correlation, design, own.groups, codes, covariates[-1])
    return ResidualDesign(structure, codes, design.n_groups, place, tuple(covariates))


def among_themselves(own: ResidualColumns, table: Table, places: NewPlaces) -> ResidualDesign | None:
    """New rows as groups of their own, whether the fit knows these or not, each with its own first time."""
    design, correlation = places.design, own.residual.correlation
    if design is None or correlation is None or own.groups is None:
        return design
    codes, _ = group_levels(own.groups.names, [table.take(v, places.rows) for v in own.groups.names])
    out = replace(design, codes=codes, n_groups=len(set(codes)))
    if own.scale is None or own.scale.first is None or own.design is None:
        return out
    column = table.raw(correlation.columns[0]).take(places.rows).reset_index(drop=True)
    first = np.asarray(pd.Series(own.scale.clocks[0].ticks(column)).groupby(codes).min())
    place = replace(own.scale, first=first).place([column], codes)
    space = _wider(correlation, own.design, place, codes)
    return replace(out, place=place, named=replace(design.named, space=space))


def _group_names(correlation: Correlation, table: Table) -> list[str]:
    group = correlation.group
    if group is None:
        return []
    if not isinstance(group, str):
        raise ValueError(f"group={group!r} must be a column's name; of several columns write 'a:b'")
    return [group] if group in table else group.split(":")


def _largest(codes: np.ndarray) -> int:
    return int(np.bincount(codes).max())


def _order(table: Table, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """Position of every row in its group; rows left out for a missing value keep theirs."""
    everywhere = np.arange(table.n)
    there = everywhere[~np.any([table.missing(name) for name in names], axis=0)] if names else everywhere
    codes = np.zeros(len(there), int)
    if names:
        codes, _ = group_levels(names, [table.take(name, there) for name in names])
    position = np.zeros(table.n, np.int32)
    position[there] = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return position[rows]


def _visits(column: pd.Series, name: str) -> tuple[np.ndarray, Levels]:
    """Codes of the visits that occur: in the order of categories, of numbers, or of those in their labels."""
    codes, levels = group_levels([name], [column])
    if hasattr(column, "cat") and column.cat.ordered:
        return codes, levels
    order = natural_order(list(levels.labels))
    labels = levels.labels[order]
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return rank[codes], Levels((name,), (labels,), (), labels)


def _distances(
    correlation: Correlation, table: Table, rows: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, TimeScale, Space]:
    """Places of the rows in internal units, what these are, and how far the places reach."""
    read = [
        read_times(table.raw(name).take(rows).reset_index(drop=True), name, table.index[rows])
        for name in correlation.columns
    ]
    times, clocks = [t for t, _ in read], tuple(clock for _, clock in read)
    if correlation.reads == "time":
        place, step, first = on_lattice(times[0], codes, clocks[0], correlation.name)
        scale = TimeScale(clocks, step, first)
        return place, scale, Space(int(place.max()) + 1, typical_gap(place, codes))
    point = points(times, clocks)
    unit = _neighbours(point, codes)
    return point / unit, TimeScale(clocks, unit), Space(_largest(codes))


def _neighbours(place: np.ndarray, codes: np.ndarray) -> float:
    """Median distance of a row from the nearest of its group."""
    points = place if place.ndim > 1 else place[:, None]
    nearest = []
    for code in np.unique(codes)[:100]:
        own = points[codes == code][:200]
        gaps = np.sqrt(((own[:, None] - own[None]) ** 2).sum(axis=-1))
        gaps[gaps == 0] = np.inf
        nearest.append(gaps.min(axis=1))
    found = np.concatenate(nearest)
    found = found[np.isfinite(found)]
    return float(np.median(found)) if len(found) else 1.0


def _seen(levels: Levels, column: pd.Series, what: str) -> np.ndarray:
    """Codes of new rows; ValueError names levels that the fit has not."""
    codes = levels.codes([column])
    if np.any(codes < 0):
        unseen = list(dict.fromkeys(str(v) for v in column[codes < 0]))
        raise ValueError(
            f"{what}: {levels.names[0]!r} has levels that the model was not fitted with: "
            f"{', '.join(unseen[:8])}; drop those rows"
        )
    return codes


def _wider(correlation: Correlation, own: ResidualDesign, place: np.ndarray, codes: np.ndarray) -> Space:
    """The space with room for the distances of new rows; ValueError if these have no correlation."""
    space, near = own.named.space, place[codes >= 0]
    if correlation.reads != "time" or not len(near):
        return space
    if near.dtype.kind == "f" and not correlation.fractional:
        raise ValueError(
            f"{correlation.name}: some times of {correlation.columns[0]!r} lie between the steps of the fit, "
            "where it has no correlation: predict without kriging, or use CAR1"
        )
    reach = int(np.ceil(max(near.max(), own.place.max() - near.min())))
    wide = dataclasses.replace(space, size=max(space.size, reach + 1))
    if len(correlation.parameters(wide)) > len(correlation.parameters(space)):
        raise ValueError(
            f"{correlation.name}: times of {correlation.columns[0]!r} are {reach} steps apart and the fit "
            f"has correlations up to {space.size - 1}: predict without kriging"
        )
    return wide


def _numbers(column: pd.Series, name: str, index: pd.Index) -> np.ndarray:
    if hasattr(column, "cat") or not pd.api.types.is_numeric_dtype(column.dtype):
        raise ValueError(f"column {name!r} of the residual structure is not numeric: convert it to numbers")
    values = column.to_numpy().astype(float)
    require_finite(values, f"column {name!r}", index)
    return values
