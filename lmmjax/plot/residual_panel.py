"""Residuals four ways: by fitted value, against a normal distribution, their spread, by leverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from lmmjax.fitted import Fitted, fitted_values, require_known, residuals
from lmmjax.plot.axes import GREY, VERMILLION, panels, points, said, titled
from lmmjax.plot.point_labels import label_points, settle
from lmmjax.plot.smooth import local_linear
from lmmjax.postestimation.diagnostics.leverage import hat, residuals_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXTREMES = 3
"""Rows whose labels are written, those with the largest studentized residuals."""


def residual_table(fitted: Fitted) -> pd.DataFrame:
    """Columns fitted, resid, studentized, leverage, a row an observation; all of the conditional fit."""
    return pd.DataFrame(
        {
            "fitted": fitted_values(fitted),
            "resid": residuals(fitted),
            "studentized": residuals_of(fitted, "studentized"),
            "leverage": hat(fitted, "conditional", None),
        },
        index=fitted.data.frame.index,
    )


def normal_places(n: int) -> np.ndarray:
    """Quantiles (n,) of the standard normal distribution for n values in order, at (i − a)/(n + 1 − 2a).

    a = 3/8 up to n = 10 and 1/2 beyond, as R's `ppoints`.
    """
    a = 0.375 if n <= 10 else 0.5
    return ndtri((np.arange(1, n + 1) - a) / (n + 1.0 - 2.0 * a))


def plot_residuals(
    table: pd.DataFrame, ax: Any = None, *, panels_shown: Sequence[str] | str | None = None
) -> Any:
    """Residuals by fitted value, normal quantiles, scale and location, residuals by leverage.

    Parameters
    ----------
    table : columns fitted, resid, studentized, leverage, as `residual_table` makes it.
    ax : as many Axes as there are panels; new ones if None.
    panels_shown : of "fitted", "qq", "scale", "leverage"; all if None.

    Returns
    -------
    the Axes: an array (2, 2) of all four, (k,) of some, or a single one.

    Raises
    ------
    ValueError : an unknown panel, or another number of Axes. ImportError without matplotlib.
    """
    wanted = list(PANELS) if panels_shown is None else panels_shown
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    require_known("panel", wanted, PANELS)
    count = len(wanted)
    shape = np.shape(ax) if ax is not None else (2, 2) if count == 4 else ()
    axes = panels(ax, count, 2, 1.75 * -(-count // 2) if count > 1 else 2.6)
    there: Any = table[np.isfinite(table.to_numpy(float)).all(axis=1)]
    named = [PANELS[name](one, there) for one, name in zip(axes, wanted, strict=True)]
    if left := len(table) - len(there):
        titled(axes[0], f"not drawn: {left}")
    if len(there):
        settle(axes[0])
        first = np.argsort(-np.abs(there["studentized"].to_numpy()))[:EXTREMES]
        for one, (x, y) in zip(axes, named, strict=True):
            label_points(one, x[first], y[first], [_row(there.index[k]) for k in first])
    return axes[0] if count == 1 else axes.reshape(shape or count)


Spots = tuple[np.ndarray, np.ndarray]
"""Where the rows of the table are in a panel."""


def _by_fitted(ax: Axes, table: Any) -> Spots:
    ax.set_xlabel("fitted value")
    return _scattered(ax, table, "fitted", table["resid"], "residual")


def _quantiles(ax: Axes, table: Any) -> Spots:
    values = table["studentized"].to_numpy()
    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = normal_places(len(values))
    ax.set_xlabel("normal quantile")
    ax.set_ylabel("studentized residual")
    if not len(values):
        said(ax, "no residuals")
        return places, values
    # the line through the quartiles, as R's qqline
    low, high = np.quantile(values, [0.25, 0.75])
    slope = (high - low) / (ndtri(0.75) - ndtri(0.25))
    ends = np.array([places.min(), places.max()])
    ax.plot(ends, 0.5 * (low + high) + slope * ends, color=GREY, linewidth=0.8)
    points(ax, places, values)
    ax.margins(x=0.08, y=0.08)
    return places, values


def _scale(ax: Axes, table: Any) -> Spots:
    spread = np.sqrt(np.abs(table["studentized"]))
    ax.set_xlabel("fitted value")
    spots = _scattered(ax, table, "fitted", spread, "√|studentized|", zero=False)
    ax.set_ylim(bottom=0.0)
    return spots


def _by_leverage(ax: Axes, table: Any) -> Spots:
    spots = _scattered(ax, table, "leverage", table["studentized"], "studentized residual")
    if len(table):
        ax.axvline(float(table["leverage"].mean()), color=GREY, linewidth=0.8, linestyle=":")
    ax.set_xlabel("leverage")
    return spots


PANELS: dict[str, Callable[[Axes, Any], Spots]] = {
    "fitted": _by_fitted,
    "qq": _quantiles,
    "scale": _scale,
    "leverage": _by_leverage,
}
"""What draws a panel, by its name."""


def _scattered(ax: Axes, table: Any, across: str, values: Any, label: str, zero: bool = True) -> Spots:
    """Points with a smooth curve."""
    x, y = table[across].to_numpy(), values.to_numpy()
    ax.set_ylabel(label)
    if not len(x):
        said(ax, "no residuals")
        return x, y
    if zero:
        ax.axhline(0.0, color=GREY, linewidth=0.8)
    points(ax, x, y)
    ax.plot(*local_linear(x, y), color=VERMILLION, linewidth=1.2)
    ax.margins(x=0.08, y=0.08)
    return x, y


def _row(label: Any) -> str:
    return ":".join(map(str, label)) if isinstance(label, tuple) else str(label)
