"""Marginal means with limits and comparison arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmmjax.plot.axes import BLUE, SKY, VERMILLION, axes_or_new, legend_above, shortened, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = ("estimate", "se", "df", "lower", "upper")


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
        # without columns `itertuples` of pandas 2 has no rows
        for row in table[list(by)].to_numpy(dtype=object)
    ]
    steps = np.array([k > 0 and families[k] != families[k - 1] for k in range(len(table))])
    place = -(np.arange(len(table)) + 1.2 * np.cumsum(steps)).astype(float)
    ax = axes_or_new(ax, 0.75 + 0.21 * (-place[-1] + 1 + bool(by)))
    value, lower, upper = (table[name].to_numpy(float) for name in ("estimate", "lower", "upper"))
    level = table.attrs.get("level")
    ax.hlines(
        place,
        lower,
        upper,
        color=SKY,
        linewidth=5.0,
        alpha=0.6,
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
                    arrowprops={
                        "arrowstyle": "-|>,head_length=0.3,head_width=0.15",
                        "color": VERMILLION,
                        "shrinkA": 0,
                        "shrinkB": 0,
                    },
                )
    if arrows is not None:
        ax.plot([], [], color=VERMILLION, label="overlap: no difference")
    ax.plot(value, place, "o", color=BLUE, markersize=3.5, zorder=3)
    ax.set_yticks(place, [shortened(name) for name in own])
    ax.tick_params(axis="y", length=0)
    for k in (k for k in range(len(table)) if by and (k == 0 or steps[k])):
        ax.annotate(
            shortened(families[k], 40),
            (0.012, place[k] + 0.75),
            xycoords=("axes fraction", "data"),
            va="center",
            fontweight="bold",
            fontsize=text_size(ax, small=True),
        )
    ax.set_ylim(place[-1] - 0.7, 1.2 if by else 0.7)
    ax.set_ylabel(" ".join(map(str, names)))
    scale = table.attrs.get("scale")
    ax.set_xlabel("estimate" if scale in (None, "response") else f"estimate of {scale}")
    legend_above(ax)
    if misled:
        shown = ", ".join(f"{own[i]} and {own[j]}" for i, j in list(misled)[:3])
        ax.set_xlabel(f"{ax.get_xlabel()}\narrows mislead about {shortened(shown, 60)}")
    return ax
