"""Covariance and correlation matrices as heat maps with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.plot.axes import COLUMN, panels, shortened, text_size, titled
from lmmjax.plot.point_labels import settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

SMALLEST = 3.5
"""Points below which numbers are left out, and a bar says what colours mean."""

LETTERS, LETTER = 12, 0.056
"""Of a name beside a matrix; inches of a letter of one that stands upright."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Figures of an exponent."""


def matrices_of(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The matrices of a table of `Fit.residual_cov`, by level of its `by`; one called "" without."""
    if isinstance(table.index, pd.MultiIndex) and not isinstance(table.columns, pd.MultiIndex):
        levels = table.index.get_level_values(0).unique()
        out = {}
        for level in levels:
            own = table.xs(level, level=0)
            out[f"{table.index.names[0]} = {level}"] = own[[c for c in own.columns if c in set(own.index)]]
        return out
    return {"": table}


def correlations(matrix: pd.DataFrame) -> pd.DataFrame:
    """The correlations of a covariance matrix."""
    value = matrix.to_numpy(float)
    root = np.sqrt(np.diagonal(value))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = value / root[:, None] / root[None, :]
    return pd.DataFrame(value, index=matrix.index, columns=matrix.columns)


def plot_covariance(given: Mapping[str, pd.DataFrame], ax: Any = None, *, cor: bool | None = None) -> Any:
    """Covariances, correlations or both as colours and numbers: blue is negative, red positive.

    Parameters
    ----------
    given : covariance matrices with labels, by title.
    ax : as many Axes as there are panels; new ones if None.
    cor : True for correlations, False for covariances, None for both, side by side.

    Numbers are left out where there is no room for them; correlations have colours from −1 to 1, covariances
    from −max to max.

    Returns
    -------
    the Axes, an array (k,) if there are several. ImportError without matplotlib.
    """
    kinds = [False, True] if cor is None else [bool(cor)]
    cells = [(title, matrix, kind) for title, matrix in given.items() for kind in kinds]
    columns = 1 if len(cells) == 1 else 2
    width = COLUMN if len(cells) == 1 or max(len(m) for m in given.values()) <= 6 else 2 * COLUMN
    rows = -(-len(cells) // columns)
    names = LETTER * max(_upright(matrix.index) for matrix in given.values())
    axes = panels(ax, len(cells), columns, rows * (width / columns + 0.3 + names), width)
    drawn = []
    for one, (title, matrix, kind) in zip(axes, cells, strict=True):
        shown = correlations(matrix) if kind else matrix
        drawn.append((one, shown, kind, _heat(one, shown, kind)))
        # covariances and correlations of the same rows stand side by side
        _name(one, matrix.index, left=not (kind and cor is None and ax is None))
        _title(one, title, kind, cor is None, _power(shown, kind))
    settle(axes[0])
    for one, shown, kind, image in drawn:
        _write(one, shown, kind, image)
    return axes[0] if len(axes) == 1 else axes


def _power(matrix: pd.DataFrame, cor: bool) -> int:
    """The power of ten that numbers are divided by."""
    most = _largest(matrix, cor)
    return 0 if cor or 0.01 <= most < 9999.5 else int(np.floor(np.log10(most)))


def _largest(matrix: pd.DataFrame, cor: bool) -> float:
    return 1.0 if cor else float(np.nanmax(np.abs(matrix.to_numpy(float)), initial=0.0)) or 1.0


def _title(ax: Axes, title: str, cor: bool, both: bool, power: int) -> None:
    kind = "correlation" if cor else "covariance" + (f" / 10{str(power).translate(RAISED)}" if power else "")
    if title and both:
        ax.set_title(f"{shortened(title)}\n{kind}", loc="left", fontsize=text_size(ax))
    else:
        titled(ax, title or kind)


def _heat(ax: Axes, matrix: pd.DataFrame, cor: bool) -> AxesImage:
    most = _largest(matrix, cor)
    ax.set_facecolor("0.9")
    ax.spines[:].set_visible(False)
    return ax.imshow(np.ma.masked_invalid(matrix.to_numpy(float)), cmap="RdBu_r", vmin=-most, vmax=most)


def _write(ax: Axes, matrix: pd.DataFrame, cor: bool, image: AxesImage) -> None:
    """The numbers, or a bar of what colours mean where there is no room for them; the layout is settled."""
    value, most, power = matrix.to_numpy(float), _largest(matrix, cor), _power(matrix, cor)
    digits = 2 if cor else int(np.clip(2 - np.floor(np.log10(most / 10.0**power)), 0, 3))
    texts = [[_number(v / 10.0**power, digits) for v in row] for row in value]
    inches = min(ax.get_window_extent().width, ax.get_window_extent().height) / ax.figure.dpi
    cell, longest = 72.0 * inches / len(value), max(len(t) for row in texts for t in row)
    size = min(text_size(ax, small=True), 0.9 * cell / (0.62 * longest))
    if size < SMALLEST:
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.6)
        bar.ax.tick_params(labelsize=text_size(ax, small=True))
        bar.ax.yaxis.get_offset_text().set_fontsize(text_size(ax, small=True))
        return
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            tint = "white" if abs(value[i, j]) > 0.55 * most else "black"
            ax.text(j, i, text, ha="center", va="center", fontsize=size, color=tint)


def _number(value: float, digits: int) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def _names(index: pd.Index) -> tuple[list[int], list[str]]:
    """Rows that are named, at most sixteen, and their names."""
    names = [":".join(map(str, v)) if isinstance(v, tuple) else _label(v) for v in index]
    places = list(range(0, len(names), -(-len(names) // 16)))
    return places, [shortened(names[k], LETTERS) for k in places]


def _upright(index: pd.Index) -> int:
    """Letters of the longest name where names stand upright below a matrix, else 0."""
    names = _names(index)[1]
    longest = max(map(len, names))
    return longest if longest * len(names) > 18 else 0


def _name(ax: Axes, index: pd.Index, left: bool) -> None:
    places, shown = _names(index)
    ax.set_xticks(places, shown)
    ax.set_yticks(places if left else [], shown if left else [])
    if _upright(index):
        ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0)
    ax.set_xlabel(shortened(index.name or ""))


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
