"""Profile likelihood: ζ by parameter, and contours of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator, RectBivariateSpline
from scipy.special import chdtri, ndtri

from lmmjax.fitted import Fitted, by_criterion, require_level, sd_scale
from lmmjax.plot.axes import (
    BLUE,
    PALE,
    SKY,
    VERMILLION,
    axes_or_new,
    ink,
    panels,
    said,
    shortened,
    text_size,
    titled,
)
from lmmjax.postestimation.parameters.profiles import targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = (0.5, 0.8, 0.95, 0.99)

FINE = 120
"""Values along each axis of the grid that contours are drawn through."""


def profile_limits(table: pd.DataFrame, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Where ζ is ∓ the normal quantile of a level: columns parameter, level, lower, upper.

    By monotone cubic interpolation between the points of the profile; NaN beyond them.

    Parameters
    ----------
    table : as `Fit.profile` gives it.
    """
    out = []
    for name, own in table.groupby("parameter", sort=False):
        zeta, value = own["zeta"].to_numpy(float), own["value"].to_numpy(float)
        rising = np.isfinite(zeta) & (zeta > np.fmax.accumulate(np.concatenate([[-np.inf], zeta[:-1]])))
        enough = np.count_nonzero(rising) > 1
        curve = PchipInterpolator(zeta[rising], value[rising], extrapolate=False) if enough else None
        for level in levels:
            z = float(ndtri(0.5 + require_level(level) / 2))
            ends = (np.nan, np.nan) if curve is None else (float(curve(-z)), float(curve(z)))
            out.append((name, level, *ends))
    return pd.DataFrame(out, columns=["parameter", "level", "lower", "upper"])


def plot_profile(table: pd.DataFrame, ax: Any = None, *, levels: Sequence[float] = LEVELS) -> Any:
    """ζ, the signed root of the rise of the deviance, by value, a panel a parameter.

    A straight line is what Wald's intervals take it for; uprights end where the profile intervals of `levels`
    do. ζ is within normal quantiles there.

    Parameters
    ----------
    table : as `Fit.profile` gives it.
    ax : as many Axes as there are parameters; new ones if None.
    levels : of the intervals that are drawn.

    Returns
    -------
    the Axes, an array (k,) if there are several. ImportError without matplotlib.

    Raises
    ------
    ValueError : the table has no parameter.
    """
    names = list(dict.fromkeys(table["parameter"]))
    if not names:
        raise ValueError("the table has no profile: no parameter of this model has one")
    limits = profile_limits(table, levels)
    rows = -(-len(names) // 2)
    axes = panels(ax, len(names), 2, 2.4 if len(names) == 1 else 0.1 + 1.35 * rows)
    for k, (one, name) in enumerate(zip(axes, names, strict=True)):
        _zeta(one, table[table["parameter"] == name], limits[limits["parameter"] == name])
        titled(one, name)
        if k % 2 == 0 or ax is not None:
            one.set_ylabel("ζ")
    return axes[0] if len(axes) == 1 else axes


def _zeta(ax: Axes, own: Any, limits: Any) -> None:
    zeta, value = own["zeta"].to_numpy(float), own["value"].to_numpy(float)
    if np.count_nonzero(np.isfinite(zeta)) < 2:
        said(ax, "no profile")
        return
    ax.axhline(0.0, color=PALE, linewidth=0.6, zorder=0)
    for tint, row in zip(_tints(len(limits)), limits.itertuples(), strict=True):
        for end, sign in ((row.lower, -1.0), (row.upper, 1.0)):
            if np.isfinite(end):
                z = sign * float(ndtri(0.5 + row.level / 2))
                ax.vlines(end, 0.0, z, color=tint, linewidth=1.0, zorder=1)
    ax.plot(value, zeta, color=BLUE, linewidth=1.4, zorder=3)
    least = int(np.nanargmin(np.abs(zeta)))
    ax.plot(value[least], 0.0, "o", color=BLUE, markersize=3.0, zorder=4)
    ax.margins(x=0.04)


def _tints(count: int) -> list[str]:
    """Shades of the levels, the widest the palest."""
    return [VERMILLION, "#E08A4F", "#E9B08C", "#F0CFBA"][:count] if count <= 4 else [VERMILLION] * count


def contour_centre(fitted: Fitted, table: pd.DataFrame) -> tuple[float, float]:
    """Estimates of the two parameters of `Fit.contour` by its criterion."""
    best = by_criterion(fitted, table.attrs["criterion"] == "REML")
    rows = best.data.components
    values = np.concatenate([sd_scale(np.asarray(best.estimate.psi), rows)[0], best.estimate.beta])
    known = dict(zip(targets(best), values, strict=True))
    return float(known[str(table.index.name)]), float(known[str(table.columns.name)])


def refined(u: np.ndarray, v: np.ndarray, rise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A finer grid of a smooth surface (u, v), by cubic splines, transposed as matplotlib's contours take it.

    The grid as it is where values are missing or too few.
    """
    if min(rise.shape) < 4 or not np.isfinite(rise).all():
        return u, v, np.ma.masked_invalid(rise.T)
    fine = [np.linspace(axis[0], axis[-1], FINE) for axis in (u, v)]
    return fine[0], fine[1], RectBivariateSpline(u, v, rise)(*fine).T


def plot_contour(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    centre: tuple[float, float] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Axes:
    """Borders of joint confidence regions of two parameters, where the rise is χ²₂'s quantile.

    Parameters
    ----------
    table : as `Fit.contour` gives it: the rise, values of the first × of the second parameter.
    ax : Axes to draw on; new ones if None.
    centre : the estimates, to be marked.
    levels : of the regions.

    Returns
    -------
    the Axes. ImportError without matplotlib.
    """
    ax = axes_or_new(ax, 2.8)
    u, v = table.index.to_numpy(float), table.columns.to_numpy(float)
    ax.set_xlabel(shortened(table.index.name, 32))
    ax.set_ylabel(shortened(table.columns.name, 32))
    if np.count_nonzero(np.isfinite(table)) < 4:
        said(ax, "no profile")
        return ax
    heights = {float(chdtri(2, 1.0 - require_level(level))): f"{level:.0%}" for level in sorted(levels)}
    tints = (BLUE, "#3F8FC4", SKY, "#9DCFEC")
    drawn = ax.contour(
        *refined(u, v, table.to_numpy(float)),
        levels=list(heights),
        colors=tints[: len(heights)] if len(heights) <= len(tints) else BLUE,
        linewidths=1.2,
    )
    for limit, values in ((ax.set_xlim, u), (ax.set_ylim, v)):
        margin = 0.04 * (values[-1] - values[0])
        limit(values[0] - margin, values[-1] + margin)
    ax.clabel(drawn, fmt=heights, fontsize=text_size(ax, small=True), colors=ink(ax), inline=True)
    if centre is not None:
        ax.plot(*centre, "+", color=VERMILLION, markersize=8.0, markeredgewidth=1.5)
    return ax
