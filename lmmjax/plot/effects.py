"""Predicted means over a predictor, with bands, by the levels of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    ModelData,
    require_count,
    require_estimates,
    require_known,
    require_rows,
    residuals,
)
from lmmjax.formula.many_rows import ManyRows
from lmmjax.formula.text.safety import read_expression
from lmmjax.plot.axes import (
    DASHES,
    GREY,
    MARKERS,
    PALE,
    colours,
    date_axis,
    legend_above,
    level_name,
    panels,
    points,
    said,
    shortened,
    titled,
)
from lmmjax.plot.levels import name_along
from lmmjax.postestimation.means.linear import marginal_means
from lmmjax.postestimation.means.reference_grid import Predictor, predictors
from lmmjax.postestimation.means.tables import means_table, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RUG = 300
"""Most values of a covariate that are marked on its axis."""


def effects_table(
    fitted: Fitted,
    x: str,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    points: int = 60,
    weights: str = "equal",
    ddf: str = "satterthwaite",
    level: float = 0.95,
    type: str = "link",
    robust: str | None = None,
    cluster: Any = None,
) -> pd.DataFrame:
    """Marginal means over x: columns x, by, then estimate, se, df, lower, upper; see `Fit.emmeans`.

    A covariate x has `points` values from its least to its largest, one in `by` its mean and the values a
    standard deviation from it, unless `at` has others; factors have their levels.
    """
    require_estimates(fitted)
    own = {p.name: p for p in predictors(fitted.data)}
    groups = [by] if isinstance(by, str) else list(by or ())
    require_known("predictor", [str(x), *map(str, groups)], own)
    if len(groups) > 2 or x in groups:
        raise ValueError("by is one or two predictors other than x: the first has colours, the second panels")
    given = dict(at or {})
    if x not in given and continuous(own[x]):
        given[x] = _between(fitted.data, x, require_count("points", points, 2))
    for name in groups:
        if name not in given and continuous(own[name]):
            given[name] = _about_mean(fitted.data, name)
    how = view(fitted, ddf, level, type, False, None, robust, cluster)
    table: Any = means_table(fitted, marginal_means(fitted.data, [x], groups, given, weights, None), how)
    table = table[[x, *groups, "estimate", "se", "df", "lower", "upper"]]
    levels = {name: list(given.get(name, own[name].levels)) for name in (x, *groups)}
    place = {name: {value: k for k, value in enumerate(found)} for name, found in levels.items()}
    codes = {name: table[name].map(place[name]) for name in (*groups, x)}
    table = table.iloc[np.lexsort(list(codes.values())[::-1])].reset_index(drop=True)
    table.attrs |= {"x": x, "by": groups, "levels": levels, "continuous": continuous(own[x])}
    table.attrs["response"] = fitted.data.frame.response or fitted.response or "y"
    return table


def continuous(p: Predictor) -> bool:
    """Whether a predictor is a covariate with more than two values."""
    return p.covariate and len(p.known) != 2


def _column(data: ModelData, name: str) -> Any:
    assert data.frame.columns is not None
    return data.frame.columns[name]


def _between(data: ModelData, name: str, count: int) -> Any:
    column = _column(data, name)
    low, high = column.min(), column.max()
    if column.dtype.kind in "mM":
        return [low + share * (high - low) for share in np.linspace(0.0, 1.0, count)]
    return np.linspace(float(low), float(high), count)


def _about_mean(data: ModelData, name: str) -> Any:
    """The mean and a standard deviation either way, within the data."""
    column = _column(data, name)
    mean, base = next(p for p in predictors(data) if p.name == name).levels[0], data.frame.base
    if column.dtype.kind in "mM":
        return [mean]
    sd = base.spread[name] if isinstance(base, ManyRows) else column.std()
    return np.unique(np.clip([mean - sd, mean, mean + sd], column.min(), column.max()))


def partial_residuals(fitted: Fitted, table: pd.DataFrame) -> pd.DataFrame:
    """The line of a row's by-levels at its x, plus its residual: columns x, by, value.

    Rows whose levels are not in the table are left out; one with a covariate in `by` goes to the nearest.

    Source: Fox & Weisberg (2018), doi:10.18637/jss.v087.i09.
    """
    require_rows(fitted.data, "a plot of partial residuals")
    x, by = table.attrs["x"], table.attrs["by"]
    rows: Any = pd.DataFrame({name: _column(fitted.data, name).to_numpy() for name in (x, *by)})
    for name in by:
        levels = table[name].unique()
        if pd.api.types.is_numeric_dtype(rows[name]) and pd.api.types.is_numeric_dtype(table[name]):
            away = np.abs(rows[name].to_numpy(float)[:, None] - levels.astype(float))
            rows[name] = levels[away.argmin(axis=1)]
    value = np.full(len(rows), np.nan)
    for key, own in _families(table, by):
        mine = np.ones(len(rows), bool)
        for name, one in zip(by, key, strict=True):
            mine &= (rows[name] == one).to_numpy()
        if table.attrs["continuous"]:
            places, at = _numbers(own[x]), _numbers(rows.loc[mine, x])
            order = np.argsort(places)
            value[mine] = np.interp(at, places[order], own["estimate"].to_numpy()[order], np.nan, np.nan)
        else:
            found = dict(zip(own[x], own["estimate"], strict=True))
            value[mine] = [found.get(v, np.nan) for v in rows.loc[mine, x]]
    rows["value"] = value + residuals(fitted)
    return rows[np.isfinite(rows["value"].to_numpy())]


def _numbers(column: Any) -> np.ndarray:
    values = np.asarray(column)
    return values.astype("int64").astype(float) if values.dtype.kind in "mM" else values.astype(float)


def _families(table: pd.DataFrame, by: Sequence[str]) -> list[tuple[Any, pd.DataFrame]]:
    if not by:
        return [((), table)]
    return [(key, own) for key, own in table.groupby(list(by), sort=False, observed=True)]


def plot_effects(
    table: pd.DataFrame, ax: Any = None, *, data: pd.DataFrame | None = None, rug: Any = None
) -> Any:
    """Lines with bands over a covariate, points with limits over a factor; a colour a level of `by`.

    Parameters
    ----------
    table : as `effects_table` makes it.
    ax : as many Axes as the second of `by` has levels, else one; new ones if None.
    data : points to draw below, as `partial_residuals` makes them.
    rug : values of a covariate to mark on its axis.

    Returns
    -------
    the Axes, an array (k,) if there are several. ImportError without matplotlib.
    """
    by, x = list(table.attrs["by"]), table.attrs["x"]
    parts = _families(table, by[1:])
    count = len(parts)
    axes = panels(ax, count, 2, 2.6 if count == 1 else 0.4 + 1.7 * -(-count // 2))
    ends = []
    for k, (one, (key, part)) in enumerate(zip(axes, parts, strict=True)):
        mine: Any = data
        if data is not None and key:
            mine = data[(data[by[1]] == key[0]).to_numpy()]
        _panel(one, part, x, by[:1], mine)
        if key:
            titled(one, level_name(by[1], key[0]))
        if rug is not None and table.attrs["continuous"]:
            _rug(one, rug)
        date_axis(one, table[x])
        one.set_xlabel(shortened(x))
        if k % 2 == 0 or ax is not None:
            one.set_ylabel(_response(table))
        ends.append(one.get_ylim())
    for one in axes if count > 1 else ():
        one.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    if by:
        text = all(isinstance(value, str) for value in table.attrs["levels"][by[0]])
        legend_above(axes[0], shortened(by[0]) if text else None, whole=count > 1 and ax is None)
    elif over := table.attrs.get("averaged_over"):
        titled(axes[0], f"averaged over {', '.join(over)}", small=True, colour=GREY)
    return axes[0] if count == 1 else axes


def _panel(ax: Axes, part: pd.DataFrame, x: str, by: list[str], data: pd.DataFrame | None) -> None:
    families = _families(part, by)
    tints = colours(len(families))
    levels = part.attrs["levels"][x]
    if not np.isfinite(part["estimate"].to_numpy(float)).any():
        said(ax, "not estimable")
    for k, ((key, own), tint) in enumerate(zip(families, tints, strict=True)):
        label = level_name(by[0], key[0]) if key else None
        estimate, lower, upper = (own[name].to_numpy(float) for name in ("estimate", "lower", "upper"))
        mine = data
        if data is not None and key:
            mine = data[(data[by[0]] == key[0]).to_numpy()]
        if part.attrs["continuous"]:
            at = _places(own[x])
            if mine is not None:
                points(ax, _places(mine[x]), mine["value"], color=tint, alpha=_alpha(mine), zorder=1)
            alpha = min(0.18, 0.3 / len(families))
            ax.fill_between(at, lower, upper, color=tint, alpha=alpha, linewidth=0.0, zorder=2)
            ax.plot(at, estimate, DASHES[k % len(DASHES)], color=tint, linewidth=1.8, label=label, zorder=3)
            continue
        aside = 0.0 if len(families) == 1 else 0.5 * (k / (len(families) - 1) - 0.5)
        at = np.array([levels.index(v) for v in own[x]]) + aside
        if mine is not None:
            spots = np.array([levels.index(v) for v in mine[x]], float) + aside
            spots += 0.06 * np.sin(12.9898 * np.arange(len(spots)))
            points(ax, spots, mine["value"], color=tint, alpha=_alpha(mine), zorder=1)
        ax.vlines(at, lower, upper, color=tint, linewidth=1.5, zorder=2)
        ax.plot(at, estimate, MARKERS[k % len(MARKERS)], color=tint, markersize=4.0, label=label, zorder=3)
    if not part.attrs["continuous"]:
        name_along(ax, levels)
        ax.set_xlim(-0.5, len(levels) - 0.5)


def _alpha(data: Any) -> float:
    return 0.3 if len(data) <= 3000 else 0.05


def _places(column: Any) -> np.ndarray:
    """Values that matplotlib can place: spans of time in days."""
    values = np.asarray(column)
    return values / np.timedelta64(1, "D") if values.dtype.kind == "m" else values


def _rug(ax: Axes, values: Any) -> None:
    at = np.unique(_places(values))
    at = at[np.linspace(0, len(at) - 1, min(len(at), RUG)).round().astype(int)]
    ax.plot(
        at,
        np.zeros(len(at)),
        "|",
        transform=ax.get_xaxis_transform(),
        color=PALE,
        markersize=5.0,
        markeredgewidth=0.5,
        clip_on=False,
        zorder=1,
    )


def _response(table: pd.DataFrame) -> str:
    name = table.attrs["response"]
    if table.attrs.get("scale") == "response":
        inside = list(read_expression(name).values)
        name = inside[0] if len(inside) == 1 else f"{name}, transformed back"
    return shortened(name)
