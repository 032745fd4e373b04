"""Data and fitted values of every group over a covariate: all in one, or a panel a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, fitted_values, require_estimates, require_known, response_vector
from lmmjax.formula import Table, nearest
from lmmjax.plot.axes import (
    BLUE,
    GREY,
    PALE,
    SKY,
    SMALL,
    colours,
    date_axis,
    ink,
    legend_above,
    letters,
    level_name,
    panels,
    shortened,
    text_size,
)
from lmmjax.plot.levels import name_along
from lmmjax.postestimation.diagnostics.influence import units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 24
"""Panels that are drawn by default."""


def trajectories(fitted: Fitted, x: Any, group: str | None = None, by: str | None = None) -> pd.DataFrame:
    """Columns level, x, y, fit, population and, if asked for, by: a row a level and value of x, in order.

    fit is Xβ̂ + Zb̂ + offset and population Xβ̂ + offset at the rows of the fit; rows of a level at the same x
    are averaged.

    Parameters
    ----------
    x : a column of the data, or values (n,) of the rows of the fit.
    group : a grouping factor of random effects or residuals; may be left out if there is one.
    by : a column of the data.
    """
    require_estimates(fitted)
    codes, index = units(fitted.data, group)
    name = x if isinstance(x, str) else getattr(x, "name", None) or "x"
    columns = {"code": codes, "x": _source(fitted, x) if isinstance(x, str) else _given(fitted, x)}
    if by is not None:
        columns["by"] = _source(fitted, by)
    columns |= {"y": fitted.y, "fit": fitted_values(fitted), "population": fitted.population}
    keys = ["code", *(["by"] if by is not None else []), "x"]
    found: Any = pd.DataFrame(columns).groupby(keys, sort=True, observed=True, as_index=False).mean()
    labels = np.asarray(index, dtype=object)
    found.insert(0, "level", labels[found.pop("code").to_numpy()])
    response = fitted.data.frame.response or fitted.response or "y"
    found.attrs = {"x": str(name), "group": str(index.name), "by": by, "response": response}
    return found


def _source(fitted: Fitted, name: str) -> Any:
    """A column of the data on the rows of the fit."""
    frame = fitted.data.frame
    if frame.source is None:
        raise ValueError(f"this model was built from matrices: give the values of {name!r}, one a row")
    table = Table(frame.source.data)
    if name not in table:
        raise ValueError(f"the data have no column {name!r}: {nearest(name, table.keys)}")
    column = table.take(name, frame.rows)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.as_ordered().array
    return column.to_numpy()


def _given(fitted: Fitted, values: Any) -> np.ndarray:
    return response_vector(fitted.data, values, "x")


def plot_spaghetti(
    table: pd.DataFrame,
    ax: Any = None,
    *,
    levels: Sequence[Any] | None = None,
    each: bool = False,
) -> Any:
    """Data as pale lines and fitted values as coloured ones; or a panel a level, with the population's line.

    Parameters
    ----------
    table : as `trajectories` makes it.
    ax : one Axes, with `each` as many as there are levels; new ones if None.
    levels : which to draw, in this order; all if None, of more than 24 panels as many at equal steps.
    each : whether every level has a panel.

    Returns
    -------
    the Axes; with `each` an array (k,).

    Raises
    ------
    ValueError : an unknown level. ImportError without matplotlib.
    """
    known = list(dict.fromkeys(table["level"]))
    if levels is not None:
        require_known("level", map(str, levels), map(str, known))
        named = {str(v): v for v in known}
        wanted = [named[str(v)] for v in levels]
    else:
        wanted = known
    if each:
        return _each(table, ax, wanted, len(known), levels is None)
    one = panels(ax, 1, 1, 2.6)[0]
    _together(one, table[table["level"].isin(wanted)], len(wanted))
    return one


def _together(ax: Axes, table: Any, count: int) -> None:
    many = count > 40
    _name_places(ax, table)
    ax.plot(
        *_broken(table, "y"), color=PALE, linewidth=0.5 if many else 0.8, alpha=0.6, label="data", zorder=1
    )
    tints = _tints(table, SKY)
    for value, own in _families(table):
        ax.plot(
            *_broken(own, "fit"),
            color=tints[value],
            linewidth=0.6 if many else 1.0,
            alpha=0.5 if many else 0.85,
            label=_label(table, value),
            zorder=2,
        )
    ax.set_xlabel(shortened(table.attrs["x"]))
    ax.set_ylabel(shortened(table.attrs["response"]))
    legend_above(ax)


def _families(table: Any) -> list[tuple[Any, Any]]:
    """Rows by the levels of `by`; all, called "fit", without."""
    return [("fit", table)] if table.attrs["by"] is None else list(table.groupby("by", observed=True))


def _label(table: Any, value: Any) -> str:
    return str(value) if table.attrs["by"] is None else level_name(table.attrs["by"], value)


def _tints(table: Any, alone: str) -> dict[Any, Any]:
    """Colours of the levels of `by`; one without."""
    names = [value for value, _ in _families(table)]
    return dict(zip(names, [alone] if table.attrs["by"] is None else colours(len(names)), strict=True))


def _broken(table: Any, column: str) -> tuple[Any, np.ndarray]:
    """x and a column, with a gap between levels, so that one line draws all."""
    codes = pd.factorize(table["level"])[0]
    if table.attrs["by"] is not None:
        codes = codes * (1 + table["by"].nunique()) + pd.factorize(table["by"])[0]
    cut = np.flatnonzero(np.diff(codes)) + 1
    x, y = _axis(table["x"]), table[column].to_numpy(float)
    return np.insert(x, cut, x[:1] if len(x) else 0), np.insert(y, cut, np.nan)


def _axis(column: Any) -> np.ndarray:
    """Places on the axis: of a factor the codes of its levels, of spans of time days."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(float)
    values = column.to_numpy()
    return values / np.timedelta64(1, "D") if values.dtype.kind == "m" else values


def _name_places(ax: Axes, table: pd.DataFrame) -> None:
    if isinstance(table["x"].dtype, pd.CategoricalDtype):
        name_along(ax, list(table["x"].cat.categories))
    else:
        date_axis(ax, table["x"])


def _each(table: pd.DataFrame, ax: Any, wanted: list[Any], total: int, thin: bool) -> np.ndarray:
    if thin and ax is None and len(wanted) > MOST:
        wanted = [wanted[k] for k in np.linspace(0, len(wanted) - 1, MOST).round().astype(int)]
    count = len(wanted)
    # as few empty places as can be, and room for long names
    factor = isinstance(table["x"].dtype, pd.CategoricalDtype)
    long = factor or max(len(str(level)) for level in wanted) > 9
    columns = min(min((3, 2) if long else (4, 3, 5), key=lambda c: -count % c), count)
    # names stand upright below the last row, and below the one before where it is longer
    below = 0.65 * factor * (1 + bool(count % columns and count > columns))
    axes = panels(ax, count, columns, 0.35 + below + 0.85 * -(-count // columns))
    shown: Any = table[table["level"].isin(wanted)]
    low, high = np.nanmin(shown[["y", "fit"]].to_numpy()), np.nanmax(shown[["y", "fit"]].to_numpy())
    margin = 0.06 * (high - low)
    tints = _tints(table, BLUE)
    for k, (one, level) in enumerate(zip(axes, wanted, strict=True)):
        own = shown[shown["level"] == level]
        _name_places(one, table)
        one.plot(*_broken(own, "y"), "o", color=ink(one), markersize=2.0, label="data", zorder=3)
        one.plot(*_broken(own, "population"), "--", color=GREY, linewidth=0.8, label="population", zorder=1)
        for value, mine in _families(own):
            one.plot(
                *_broken(mine, "fit"), color=tints[value], linewidth=1.2, label=_label(table, value), zorder=2
            )
        one.set_ylim(low - margin, high + margin)
        size = text_size(one, small=True)
        one.set_title(shortened(level, max(6, int(letters(one, size)))), fontsize=size, pad=2.0)
        if ax is None:
            one.tick_params(labelsize=SMALL - 1.0)
            one.tick_params(labelleft=k % columns == 0, labelbottom=k + columns >= count)
    ends = _axis(shown["x"])
    for one in axes if ends.dtype.kind == "f" or ends.dtype.kind in "iu" else ():
        one.set_xlim(*_padded(float(ends.min()), float(ends.max())))
    if ax is None:
        figure = axes[0].figure
        note = f" ({count} of {total} levels of {table.attrs['group']})" if count < total else ""
        figure.supxlabel(shortened(table.attrs["x"]) + note, fontsize=text_size(axes[0]))
        figure.supylabel(shortened(table.attrs["response"]), fontsize=text_size(axes[0]))
        legend_of(axes)
    return axes


def legend_of(axes: np.ndarray) -> None:
    """A legend of all panels above them."""
    entries = {}
    for one in axes:
        entries |= dict(zip(*one.get_legend_handles_labels()[::-1], strict=True))
    for label, handle in entries.items():
        if label not in axes[0].get_legend_handles_labels()[1]:
            axes[0].plot([], [], color=handle.get_color(), label=label)
    legend_above(axes[0], whole=True)


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin
