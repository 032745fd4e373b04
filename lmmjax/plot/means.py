"""Marginal means with limits and comparison arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmmjax.plot.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = ("estimate", "se", "df", "lower", "upper")
LIMITS, ARROWS, POINTS = "#9ecae1", "#d6604d", "#08306b"


def plot_means(
    table: pd.DataFrame,
    by: Sequence[str],
    arrows: np.ndarray | None = None,
    misled: Sequence[tuple[int, int]] = (),
    ax: Axes | None = None,
) -> Axes:
    """A line a mean, families apart from each other, the first row on top.

    Parameters
    ----------
    table : columns of levels, then `NUMBERS`; by : columns that make families.
    arrows : (k, 2) ends, or None for none; misled : pairs of rows for which they say the wrong thing.
    """
    names = [name for name in table.columns if name not in NUMBERS and name not in by]
    own = [" ".join(str(v) for v in row) for row in table[names].itertuples(index=False)]
    families = [
        ", ".join(f"{n} = {v}" for n, v in zip(by, row, strict=True))
        for row in table[list(by)].itertuples(index=False)
    ]
    steps = np.array([k > 0 and families[k] != families[k - 1] for k in range(len(table))])
    place = -(np.arange(len(table)) + 1.2 * np.cumsum(steps)).astype(float)
    ax = axes_or_new(ax, figsize=(6.0, 0.9 + 0.34 * (-place[-1] + 1 + bool(by))))
    value, lower, upper = (table[name].to_numpy(float) for name in ("estimate", "lower", "upper"))
    level = table.attrs.get("level")
    ax.hlines(
        place,
        lower,
        upper,
        color=LIMITS,
        linewidth=7,
        label="limits" if level is None else f"{level:.0%} limits",
    )
    for end in () if arrows is None else arrows.T:
        # where a mean is the first or the last there is nothing to point at
        for x, to, y in zip(value, end, place, strict=True):
            if np.isfinite(to) and to != x:
                ax.annotate(
                    "",
                    (to, y),
                    (x, y),
                    arrowprops={"arrowstyle": "-|>", "color": ARROWS, "shrinkA": 0, "shrinkB": 0},
                )
    if arrows is not None:
        ax.plot([], [], color=ARROWS, label="overlap: no difference")
    ax.plot(value, place, "o", color=POINTS, markersize=5, zorder=3)
    ax.set_yticks(place, own)
    for k in (k for k in range(len(table)) if by and (k == 0 or steps[k])):
        ax.annotate(
            families[k],
            (0.012, place[k] + 0.75),
            xycoords=("axes fraction", "data"),
            va="center",
            fontweight="bold",
        )
    ax.set_ylim(place[-1] - 0.7, 1.2 if by else 0.7)
    ax.set_ylabel(" ".join(map(str, names)))
    scale = table.attrs.get("scale")
    ax.set_xlabel("estimate" if scale in (None, "response") else f"estimate of {scale}")
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14 if len(table) > 6 else -0.25), ncols=2, frameon=False
    )
    if misled:
        shown = ", ".join(f"{own[i]} and {own[j]}" for i, j in list(misled)[:3])
        ax.set_title(f"arrows mislead about {shown}", fontsize="small", loc="left")
    return ax
