"""Volcano and MA plots: estimates of many responses by their p-values, and by their means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import log_ndtr

from lmmjax.fitted import require_count, require_known, require_level
from lmmjax.plot.axes import BLUE, GREY, PALE, VERMILLION, axes_or_new, ink, legend_above, said, shortened
from lmmjax.plot.point_labels import label_points, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST = -np.log10(np.finfo(float).smallest_subnormal)
"""−log₁₀ of the smallest double: where p-values that underflow are drawn."""


def minus_log10(p: np.ndarray, t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """−log₁₀ p (k,) of two-sided p-values of t with df degrees of freedom.

    Where p is no double any more, that of a normal distribution is computed on the scale of logarithms; of
    other distributions it is that of the smallest double.
    """
    with np.errstate(divide="ignore"):
        out = -np.log10(p)
    lost = p == 0.0
    normal = -(np.log(2.0) + log_ndtr(-np.abs(t))) / np.log(10.0)
    return np.where(lost, np.where(np.isinf(df), normal, LARGEST), out)


def plot_volcano(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    q: float = 0.05,
    effect: float = 0.0,
    labels: int | Sequence[Any] = 10,
    term: str | None = None,
) -> Axes:
    """Estimates by −log₁₀ p, coloured where q is at most `q` and the estimate at least `effect` in size.

    Parameters
    ----------
    table : columns estimate, df, t, p, q, a row a response, as `BatchFit.top` gives it.
    ax : Axes to draw on; new ones if None.
    labels : how many of the smallest p-values that are coloured to name, or names of responses; those for
        which there is no room go without.
    term : name of the coefficient, for the axis.

    The dotted line is at the largest p whose q is small enough. Responses without a p-value are not drawn, p
    below the smallest double are drawn as triangles.

    Returns
    -------
    the Axes.

    Raises
    ------
    ValueError : an unknown response in labels. ImportError without matplotlib.
    """
    own = _with_p(table)
    height = minus_log10(own["p"].to_numpy(), own["t"].to_numpy(), own["df"].to_numpy())
    ax = axes_or_new(ax, 2.8)
    found = _found(own, q, effect)
    at = own["estimate"].to_numpy(float)
    _coloured(ax, at, height, found, q)
    edge = height == LARGEST
    if edge.any():
        ax.plot(at[edge], height[edge], "^", color=ink(ax), markersize=3.0)
    small = own["q"].to_numpy(float) <= q
    if small.any():
        ax.axhline(height[small].min(), color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    for side in (-effect, effect) if effect > 0 else ():
        ax.axvline(side, color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    if len(own):
        ax.set_xlim(*_symmetric(at))
        ax.set_ylim(0.0, 1.08 * max(float(height.max()), 1.0))
    ax.set_xlabel("estimate" if term is None else f"estimate of {shortened(term, 32)}")
    ax.set_ylabel("$-\\log_{10}\\,p$")
    _label(ax, own, at, height, found, labels)
    return ax


def plot_ma(
    table: pd.DataFrame,
    mean: Any,
    ax: Axes | None = None,
    *,
    q: float = 0.05,
    effect: float = 0.0,
    labels: int | Sequence[Any] = 10,
    term: str | None = None,
) -> Axes:
    """Estimates by the mean of the response, coloured where q is at most `q`.

    Parameters
    ----------
    table : columns estimate, p, q, a row a response, as `BatchFit.top` gives it.
    mean : of every row of the table (k,).
    ax, q, effect, labels, term : as of `plot_volcano`.

    Returns
    -------
    the Axes.

    Raises
    ------
    ValueError : an unknown response in labels. ImportError without matplotlib.
    """
    own: Any = _with_p(table.assign(mean=np.asarray(mean, float)))
    own = own[np.isfinite(own["mean"])]
    ax = axes_or_new(ax, 2.8)
    found = _found(own, q, effect)
    at, height = own["mean"].to_numpy(float), own["estimate"].to_numpy(float)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    _coloured(ax, at, height, found, q, by=height)
    if len(own):
        ax.set_ylim(*_symmetric(height))
        ax.margins(x=0.05)
    ax.set_xlabel("mean of the response")
    ax.set_ylabel("estimate" if term is None else f"estimate of {shortened(term)}")
    _label(ax, own, at, height, found, labels)
    return ax


def _with_p(table: Any) -> Any:
    """Responses that have an estimate and a p-value, the smallest p first."""
    there = np.isfinite(table["estimate"].to_numpy(float)) & np.isfinite(table["p"].to_numpy(float))
    order = np.lexsort((-np.abs(table["t"].to_numpy(float)), table["p"].to_numpy(float)))
    return table.iloc[order[there[order]]]


def _found(table: Any, q: float, effect: float) -> np.ndarray:
    if not effect >= 0:
        raise ValueError(
            f"effect is the least size of an estimate that is coloured, at least 0, not {effect!r}"
        )
    small = table["q"].to_numpy(float) <= require_level(q, "q")
    return small & (np.abs(table["estimate"].to_numpy(float)) >= effect)


def _coloured(
    ax: Axes, x: np.ndarray, y: np.ndarray, found: np.ndarray, q: float, by: np.ndarray | None = None
) -> None:
    """Points of three kinds, with how many they are."""
    sign = x if by is None else by
    if not len(x):
        said(ax, "no response has a p-value")
        return
    size, alpha = (3.0, 0.8) if len(x) <= 1000 else (2.0, 0.6)
    up, down = found & (sign > 0), found & (sign <= 0)
    kinds = ((~found, PALE, f"q > {q:g}"), (down, BLUE, "below 0"), (up, VERMILLION, "above 0"))
    for k, (mine, tint, label) in enumerate(kinds):
        if k == 0 and not mine.any():
            continue
        ax.plot(
            x[mine],
            y[mine],
            "o",
            color=tint,
            markersize=size,
            markeredgewidth=0.0,
            alpha=alpha,
            rasterized=len(x) > 3000,
            label=f"{label}: {np.count_nonzero(mine):,}",
            zorder=1 + k,
        )
    legend_above(ax, markers=2.0)


def _symmetric(values: np.ndarray) -> tuple[float, float]:
    most = 1.1 * float(np.abs(values).max()) or 1.0
    return -most, most


def _label(
    ax: Axes, table: pd.DataFrame, x: np.ndarray, y: np.ndarray, found: np.ndarray, labels: Any
) -> None:
    if isinstance(labels, int | np.integer):
        wanted = np.flatnonzero(found)[: require_count("labels", labels, 0)]
    else:
        names = [labels] if isinstance(labels, str) else list(labels)
        require_known("response with a p-value", map(str, names), map(str, table.index))
        place = {str(name): k for k, name in enumerate(table.index)}
        wanted = np.array([place[str(name)] for name in names], int)
    if len(wanted):
        settle(ax)
        label_points(ax, x[wanted], y[wanted], [table.index[k] for k in wanted])
