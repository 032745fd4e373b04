"""The Axes that pictures are drawn on: as wide as a column, 8 pt text, colours that everybody tells apart.

Sizes are set on Axes that are made here, never in matplotlib's global settings; Axes that are given keep
theirs, and text beside points follows the size of their labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN = 85.0 / 25.4
"""Width of a journal's column in inches."""

TEXT, SMALL = 8.0, 7.0
"""Points, of labels and of numbers."""

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
"""Colours of Okabe & Ito (2008), https://jfly.uni-koeln.de/color/."""

GREY, PALE = "0.45", "0.75"

SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*"

MOST_LABELS = 24
"""Labels that a legend has at most; more are counted."""

LONGEST = 24
"""Letters of a label that are shown."""


def pyplot() -> Any:
    """matplotlib's interface for figures; ImportError says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'lmmjax[plot]'") from error
    return plt


def axes_or_new(ax: Axes | None, height: float = 2.6) -> Axes:
    """`ax`, or Axes of a new figure of a column's width and a height in inches."""
    return panels(ax, 1, 1, height)[0]


def panels(
    ax: Any,
    count: int,
    columns: int,
    height: float,
    width: float = COLUMN,
) -> np.ndarray:
    """Axes (count,): those that are given, or of a new figure, row by row.

    Parameters
    ----------
    ax : Axes, an array, list or dict of them, or None.
    columns : how many stand side by side; height, width : of the figure, in inches.

    Raises
    ------
    ValueError : something else than Axes, or Axes of another number.
    """
    if ax is not None:
        given = np.array(list(ax.values()) if isinstance(ax, dict) else ax, dtype=object).ravel()
        wrong = next((one for one in given if not hasattr(one, "add_patch")), None)
        if wrong is not None:
            raise ValueError(f"ax is matplotlib's Axes, or an array of them, not {type(wrong).__name__}")
        if len(given) != count:
            raise ValueError(
                f"this picture has {count} panel{'s' * (count > 1)} and ax has {len(given)} Axes: give as "
                "many, or none"
            )
        return given
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    size = {"figsize": (width, height), "layout": "constrained"}
    made = pyplot().subplots(rows, columns, squeeze=False, **size)[1].ravel()
    for one in made[count:]:
        one.remove()
    for one in made[:count]:
        _own_sizes(one)
    return made[:count]


def rows_of_panels(counts: Sequence[int], heights: Sequence[float]) -> np.ndarray:
    """Axes of a new figure whose rows have numbers of panels and heights in inches of their own."""
    figure = pyplot().figure(figsize=(COLUMN, sum(heights)), layout="constrained")
    parts = math.lcm(*counts)
    grid = figure.add_gridspec(len(counts), parts, height_ratios=list(heights))
    made = []
    for row, count in enumerate(counts):
        step = parts // count
        made += [figure.add_subplot(grid[row, k * step : (k + 1) * step]) for k in range(count)]
    for one in made:
        _own_sizes(one)
    return np.array(made, dtype=object)


def _own_sizes(ax: Axes) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(TEXT)
        axis.get_offset_text().set_fontsize(SMALL)
    ax.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    # numbers of six figures would run into each other
    ax.ticklabel_format(axis="x", scilimits=(-4, 5))
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)


def text_size(ax: Axes, small: bool = False) -> float:
    """Size in points of text that goes with the labels of Axes; small, of that beside points."""
    size = float(ax.xaxis.label.get_fontsize())
    return size * SMALL / TEXT if small else size


def ink(ax: Axes) -> Any:
    """The colour of words, which a style of the user may have set."""
    return ax.xaxis.label.get_color()


def titled(ax: Axes, text: str, small: bool = False, colour: Any = None) -> None:
    """A title that starts where the Axes do: smaller, on two lines or cut where it is wider than they are."""
    size = text_size(ax, small)
    text = " ".join(str(text).split())
    if len(text) > letters(ax, size):
        size = text_size(ax, small=True)
    room = max(8, int(letters(ax, size)))
    end = max((text.rfind(mark, 0, room) for mark in " .|:"), default=-1)
    if len(text) > room and end > room // 3 and len(text) - end <= room + 1:
        text = f"{text[: end + 1].rstrip()}\n{text[end + 1 :]}"
    else:
        text = shortened(text, room)
    ax.set_title(text, loc="left", fontsize=size, color=colour or ink(ax))


def legend_above(ax: Axes, title: str | None = None, *, whole: bool = False, markers: float = 1.0) -> None:
    """A legend above the Axes, in as many columns as its labels leave room for.

    Parameters
    ----------
    whole : above all panels of a figure that was made here.
    markers : how many times as large as in the Axes.
    """
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    if len(labels) > MOST_LABELS:
        titled(ax, f"{len(labels)} levels" + (f" of {title}" if title else ""), small=True, colour=GREY)
        return
    longest = max(map(len, labels))
    room = letters(ax.figure if whole else ax, text_size(ax, small=True))
    fitting = max(1, int(room / (longest + 4)))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
    if whole:
        place = {"loc": "outside upper left"}
    (ax.figure if whole else ax).legend(
        handles,
        labels,
        title=title,
        ncols=min(fitting, len(labels)),
        frameon=False,
        fontsize=text_size(ax, small=True),
        title_fontsize=text_size(ax, small=True),
        alignment="left",
        handlelength=1.5,
        markerscale=markers,
        handletextpad=0.5,
        columnspacing=1.2,
        borderpad=0.1,
        borderaxespad=0.2,
        **place,
    )


def letters(ax: Any, size: float) -> float:
    """About how many letters of a size in points fit into the width of Axes, or of a figure."""
    inches = ax.get_window_extent().width / ax.figure.dpi
    return 72.0 * inches / (0.58 * size)


def colours(count: int) -> list[Any]:
    """Colours of a number of series: Okabe and Ito's, or viridis where they are more."""
    if count <= len(SERIES):
        return list(SERIES[:count])
    return list(pyplot().get_cmap("viridis")(np.linspace(0.0, 0.92, count)))


def shortened(text: Any, longest: int = LONGEST) -> str:
    """A label on one line, its middle left out where it is long."""
    text = " ".join(str(text).split())
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - half - 1]}…{text[-half:]}"


def level_name(factor: str, value: Any) -> str:
    """What a level is called in a legend: a number with the name of its variable, a text by itself."""
    if isinstance(value, str):
        return shortened(value)
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return shortened(f"{factor} = " + (f"{value:.3g}".replace("-", "−") if number else str(value)))


def points(ax: Axes, x: Any, y: Any, **options: Any) -> None:
    """A scatter whose points are smaller and paler the more there are; many are an image in vector files."""
    count = len(np.atleast_1d(x))
    size, alpha = (3.0, 0.75) if count <= 300 else (2.2, 0.45) if count <= 3000 else (1.4, 0.3)
    own = {"markersize": size, "alpha": alpha, "color": BLUE, "markeredgewidth": 0.0}
    ax.plot(x, y, "o", rasterized=count > 3000, **(own | options))


def date_axis(ax: Axes, values: Any) -> None:
    """Short labels along the horizontal axis, if the values are dates."""
    if np.asarray(values).dtype.kind == "M":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=6)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def whole_ticks(ax: Axes) -> None:
    """Whole numbers along the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def said(ax: Axes, text: str) -> None:
    """A remark in the middle of Axes that have nothing to show."""
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=text_size(ax, small=True),
        color=GREY,
    )
