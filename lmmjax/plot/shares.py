"""Shares of variance of many responses: a violin a term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_known
from lmmjax.plot.axes import PALE, SERIES, axes_or_new, ink, said, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 25
"""Responses from which on there is a violin; fewer are points."""

WIDTH, ROOM = 0.8, 44
"""Of a violin; letters of labels that stand side by side."""


def plot_shares(table: pd.DataFrame, ax: Axes | None = None, *, order: str = "median") -> Axes:
    """A violin of the shares of every term over the responses, with the median and the middle half.

    Up to 24 responses are drawn as points.

    Parameters
    ----------
    table : responses × terms, as `BatchFit.variance_shares` gives it; "Residual" is the last of them.
    ax : Axes to draw on; new ones if None.
    order : "median", terms with the largest first; "model", as they come.

    Responses without shares are not drawn.

    Returns
    -------
    the Axes.

    Raises
    ------
    ValueError : an unknown order. ImportError without matplotlib.

    Source: Hoffman & Schadt (2016), doi:10.1186/s12859-016-1323-z.
    """
    require_known("order", [order], ["median", "model"])
    own: Any = table[np.isfinite(table.to_numpy(float)).all(axis=1)]
    ax = axes_or_new(ax, 2.6)
    ax.set_ylabel("share of the variance, %")
    if not len(own):
        said(ax, "no response has shares")
        return ax
    names = _ordered(own, order)
    tint = {name: SERIES[k % len(SERIES)] for k, name in enumerate(n for n in names if n != "Residual")}
    for k, name in enumerate(names):
        _one(ax, k, 100.0 * own[name].to_numpy(float), tint.get(name, PALE))
    turned = len(names) * max(len(shortened(name, 18)) for name in names) > ROOM
    ax.set_xticks(range(len(names)), [shortened(name, 18) for name in names])
    if turned:
        for label in ax.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(-2.0, 102.0)
    return ax


def _ordered(table: Any, order: str) -> list[str]:
    names = [name for name in table.columns if name != "Residual"]
    if order == "median":
        names.sort(key=lambda name: -float(table[name].median()))
    return names + [name for name in table.columns if name == "Residual"]


def _one(ax: Axes, at: int, values: np.ndarray, tint: str) -> None:
    line = ink(ax)
    if len(values) < FEWEST:
        beside = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(at + beside, np.sort(values), "o", color=tint, markersize=3.5, markeredgewidth=0.0)
        ax.hlines(np.median(values), at - 0.3, at + 0.3, color=line, linewidth=1.2)
        return
    # values that are all the same have no density
    if np.ptp(values) > 1e-9 * max(1.0, float(np.abs(values).max())):
        made = ax.violinplot([values], [at], widths=WIDTH, showextrema=False, points=120)
        for body in made["bodies"]:  # pyright: ignore[reportGeneralTypeIssues]
            body.set(facecolor=tint, edgecolor="none", alpha=0.75)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    ax.vlines(at, low, high, color=line, linewidth=2.5)
    ax.plot([at], [middle], "o", color="white", markeredgecolor=line, markersize=3.5, markeredgewidth=0.8)
