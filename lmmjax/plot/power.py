"""Power curves with Monte Carlo limits."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pandas as pd

from lmmjax.plot.axes import DASHES, GREY, MARKERS, axes_or_new, colours, legend_above, whole_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


APART = 0.07
"""Of the axis, that sizes are at least apart where each has a tick."""


def name_sizes(ax: Axes, sizes: list[int]) -> None:
    """Ticks at the sizes, or at whole numbers where they are close to each other."""
    steps = [b - a for a, b in itertools.pairwise(sizes)]
    if len(sizes) > 1 and min(steps) >= APART * (sizes[-1] - sizes[0]):
        ax.set_xticks(sizes)
    else:
        whole_ticks(ax)


def plot_power(table: pd.DataFrame, ax: Axes | None = None, target: float | None = 0.8) -> Axes:
    """Power by size, a curve an effect; by effect where there is one size.

    Parameters
    ----------
    table : columns n, effect, power, lower, upper, with what n and effect are in its attributes.
    target : power that a line is drawn at, or None.
    """
    ax = axes_or_new(ax, 2.5)
    across, along = ("n", "effect") if len(set(table["n"])) > 1 else ("effect", "n")
    names = {"n": table.attrs.get("n", "n"), "effect": table.attrs.get("effect", "effect")}
    several = len(table[along].unique()) > 1
    families = list(table.groupby(along, sort=True, dropna=False))
    for k, ((value, own), tint) in enumerate(zip(families, colours(len(families)), strict=True)):
        own = own.sort_values(across)
        x, power = own[across].to_numpy(float), own["power"].to_numpy(float)
        errors = [power - own["lower"].to_numpy(float), own["upper"].to_numpy(float) - power]
        label = f"{names[along]} = {value:g}" if several else None
        ax.errorbar(
            x,
            power,
            yerr=errors,
            color=tint,
            marker=MARKERS[k % len(MARKERS)],
            linestyle=DASHES[k % len(DASHES)],
            markersize=3.5,
            linewidth=1.2,
            capsize=2.0,
            label=label,
        )
    if across == "n":
        name_sizes(ax, sorted({int(n) for n in table["n"]}))
    if target is not None:
        ax.axhline(target, color=GREY, linestyle=":", linewidth=0.8, zorder=0)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(f"number of {names['n']}" if across == "n" else f"effect {names['effect']}")
    ax.set_ylabel("power")
    if several:
        legend_above(ax)
    return ax
