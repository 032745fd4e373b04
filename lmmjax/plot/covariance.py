"""Covariance and correlation matrices as heat maps with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.plot.axes import COLUMN, panels, shortened, text_size, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST = 3.5
"""Points below which numbers are left out, and a bar says what colours mean."""


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
    axes = panels(ax, len(cells), columns, rows * (width / columns + 0.3), width)
    for one, (title, matrix, kind) in zip(axes, cells, strict=True):
        _heat(one, correlations(matrix) if kind else matrix, kind, title if cor is not None else "")
        if title and cor is None:
            # covariances and correlations of a level side by side
            both = f"{shortened(title)}\n{one.get_title(loc='left')}"
            one.set_title(both, loc="left", fontsize=text_size(one))
    return axes[0] if len(axes) == 1 else axes


def _heat(ax: Axes, matrix: pd.DataFrame, cor: bool, title: str) -> None:
    value = matrix.to_numpy(float)
    most = 1.0 if cor else float(np.nanmax(np.abs(value), initial=0.0)) or 1.0
    image = ax.imshow(np.ma.masked_invalid(value), cmap="RdBu_r", vmin=-most, vmax=most)
    ax.set_facecolor("0.9")
    power = 0 if cor or 0.01 <= most < 9999.5 else int(np.floor(np.log10(most)))
    digits = 2 if cor else int(np.clip(2 - np.floor(np.log10(most / 10.0**power)), 0, 3))
    texts = [[_number(v / 10.0**power, digits) for v in row] for row in value]
    inches = min(ax.get_window_extent().width, ax.get_window_extent().height) / ax.figure.dpi
    cell, longest = 0.85 * 72.0 * inches / len(value), max(len(t) for row in texts for t in row)
    size = min(text_size(ax, small=True), 0.95 * cell / (0.58 * longest))
    if size >= SMALLEST:
        for i, row in enumerate(texts):
            for j, text in enumerate(row):
                dark = abs(value[i, j]) > 0.55 * most
                ax.text(
                    j, i, text, ha="center", va="center", fontsize=size, color="white" if dark else "black"
                )
    else:
        power = 0
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.6)
        bar.ax.tick_params(labelsize=text_size(ax, small=True))
        bar.ax.yaxis.get_offset_text().set_fontsize(text_size(ax, small=True))
    _name(ax, matrix.index)
    kind = "correlation" if cor else "covariance" + (f" / $10^{{{power}}}$" if power else "")
    titled(ax, title or kind)
    ax.spines[:].set_visible(False)


def _number(value: float, digits: int) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def _name(ax: Axes, index: pd.Index) -> None:
    names = [":".join(map(str, v)) if isinstance(v, tuple) else _label(v) for v in index]
    step = -(-len(names) // 16)
    places = range(0, len(names), step)
    shown = [shortened(names[k], 12) for k in places]
    ax.set_xticks(places, shown)
    ax.set_yticks(places, shown)
    if max(map(len, shown)) * len(shown) > 18:
        ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0)
    ax.set_xlabel(shortened(index.name or ""))


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
