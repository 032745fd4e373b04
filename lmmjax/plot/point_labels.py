"""Names beside points, none of which covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmjax.plot.axes import ink, shortened, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACES = tuple((dx, dy) for dx in (1, -1) for dy in (1, -1, 0))
"""Sides of a point that its name may stand on, the first choice first."""


def settle(ax: Axes) -> None:
    """Has the figure of Axes find its layout, which it does when it is drawn."""
    root: Any = ax.figure
    while root.figure is not root:
        root = root.figure
    root.draw_without_rendering()


def label_points(ax: Axes, x: Any, y: Any, names: Sequence[Any]) -> list[str]:
    """Writes names beside points (k,), in order, and returns those for which there was room.

    A name that would cover one that is written, or leave the Axes, is tried on the other sides of its point
    and then left out. The layout has to be settled.
    """
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=1.5, foreground=ax.get_facecolor(), alpha=0.8)]
    inside, taken, shown = ax.get_window_extent().padded(-2.0), [], []
    for at, name in zip(np.column_stack([x, y]), names, strict=True):
        for dx, dy in PLACES:
            text = ax.annotate(
                shortened(name),
                at,
                (2.5 * dx, 2.0 * dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                va={1: "bottom", -1: "top", 0: "center"}[dy],
                fontsize=text_size(ax, small=True),
                color=ink(ax),
                path_effects=halo,
            )
            text.set_in_layout(False)
            box = text.get_window_extent().padded(1.5)
            within = (
                inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 <= box.y1 <= inside.y1
            )
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                shown.append(str(name))
                break
            text.remove()
    return shown
