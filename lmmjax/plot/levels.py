"""Names of the levels of a factor along an axis, or how many they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmmjax.plot.axes import shortened, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 60
"""Levels up to which all are named."""

LINE, UNNAMED = 0.125, 2.6
"""Inches: a named level, and all levels without names."""

NAME = 18
"""Letters of a name."""

NARROW = 1.5
"""Inches of Axes that are one of several."""


def height_of(count: int) -> float:
    """Inches that a number of levels takes."""
    return max(LINE * count, 0.4) if count <= NAMED else UNNAMED


def name_levels(ax: Axes, levels: Sequence[Any], group: str | None) -> None:
    """Names of levels 0, 1, … from below and of their factor; of many how many they are.

    Parameters
    ----------
    group : the factor; None where another panel has the names.
    """
    count = len(levels)
    ax.set_ylim(-0.7, count - 0.3)
    ax.tick_params(axis="y", length=0)
    if group is None or count > NAMED:
        ax.set_yticks([])
    if group is None:
        return
    if count > NAMED:
        ax.set_ylabel(f"{count} levels of {shortened(group)}, sorted")
        return
    room = 72.0 * ax.get_window_extent().height / ax.figure.dpi / count
    size = min(text_size(ax, small=True), 0.95 * room)
    ax.set_yticks(range(count), [shortened(name, NAME) for name in levels], fontsize=size)
    ax.set_ylabel(shortened(group))


def name_along(ax: Axes, levels: Sequence[Any]) -> None:
    """Names of levels 0, 1, … along the horizontal axis, on a slant or upright where they are many."""
    count, size, width = len(levels), text_size(ax, small=True), ax.get_window_extent().width / ax.figure.dpi
    names = [shortened(v, 16 if width > NARROW else 10) for v in levels]
    room, whole = 72.0 * width / count, max(map(len, names)) * count
    turn = 0 if 0.8 * size * whole <= 72.0 * width else 35 if count <= 12 and width > NARROW else 90
    ax.set_xticks(range(count), names, fontsize=min(size, 0.95 * room) if turn == 90 else size)
    slant: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if turn == 35 else {}
    for tick in ax.get_xticklabels():
        tick.set(rotation=turn, **slant)
