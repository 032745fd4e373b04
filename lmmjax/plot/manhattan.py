"""Scans along the genome: −log₁₀ p or LOD of every marker, chromosome by chromosome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.plot.axes import BLUE, GREY, SKY, VERMILLION, axes_or_new, points, said, shortened, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.01
"""Room between chromosomes, of the length of all."""


def plot_manhattan(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    p: str | None = None,
    chromosome: Any = None,
    position: Any = None,
    threshold: float | None = 5e-8,
) -> Axes:
    """−log₁₀ p of the markers of a scan of one response, in their order or by chromosome and position.

    Parameters
    ----------
    table : of `Fit.scan`, a row a marker; p : its column, by default the first of p_wald, p_lrt and p_score.
    chromosome, position : (M,) of each row, in the order of the table; without, markers are one apart.
    threshold : p at which a line is drawn; None: no line.

    Returns
    -------
    the Axes. ValueError for several responses, or positions of another number; ImportError without
    matplotlib.
    """
    known = [name for name in ("p_wald", "p_lrt", "p_score") if name in table]
    column = p or (known[0] if known else "p")
    with np.errstate(divide="ignore"):
        smallest = np.finfo(float).smallest_subnormal
        height = -np.log10(np.maximum(_values(table, column), smallest))
    ax = _drawn(table, height, ax, chromosome, position, lines=False)
    ax.set_ylabel("$-\\log_{10}\\,p$")
    if threshold is not None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is a p between 0 and 1, not {threshold!r}")
        ax.axhline(-np.log10(threshold), color=VERMILLION, linewidth=0.8, linestyle="--")
    return ax


def plot_lod(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    chromosome: Any = None,
    position: Any = None,
    threshold: float | None = None,
) -> Axes:
    """The LOD curve of a scan of one response; arguments as of `plot_manhattan`, `threshold` a LOD."""
    ax = _drawn(table, _values(table, "lod"), ax, chromosome, position, lines=True)
    ax.set_ylabel("LOD")
    if threshold is not None:
        ax.axhline(threshold, color=VERMILLION, linewidth=0.8, linestyle="--")
    return ax


def _values(table: pd.DataFrame, column: str) -> np.ndarray:
    if column not in table:
        raise ValueError(f"the table has no column {column!r}: make the scan with it (test=)")
    if "response" in table and len(set(table["response"])) > 1:
        raise ValueError(
            f"the table has {len(set(table['response']))} responses: take one, table[table.response == …]"
        )
    if "term" in table and len(set(table["term"])) > 1:
        raise ValueError("the table has several terms a marker: take one, table[table.term == …]")
    return table[column].to_numpy(float)


def places(count: int, chromosome: Any, position: Any) -> tuple[np.ndarray, list[tuple[Any, np.ndarray]]]:
    """Where markers (M,) stand side by side, and the chromosomes with the rows of each."""
    for name, given in (("chromosome", chromosome), ("position", position)):
        if given is not None and len(given) != count:
            raise ValueError(f"{name} has {len(given)} values for {count} rows of the table")
    own = np.arange(count, dtype=float) if position is None else np.asarray(position, float)
    if chromosome is None:
        return own, [("", np.arange(count))]
    labels = np.asarray(chromosome, dtype=object)
    groups = [(label, np.flatnonzero(labels == label)) for label in dict.fromkeys(labels)]
    room = GAP * sum(np.ptp(own[rows]) for _, rows in groups) if position is not None else GAP * count
    out, start = np.empty(count), 0.0
    for _, rows in groups:
        out[rows] = start + own[rows] - own[rows].min()
        start = out[rows].max() + room + (position is None)
    return out, groups


def _drawn(
    table: pd.DataFrame, height: np.ndarray, ax: Axes | None, chromosome: Any, position: Any, lines: bool
) -> Axes:
    ax = axes_or_new(ax, 2.2)
    if not np.isfinite(height).any():
        said(ax, "no marker has a value")
        return ax
    x, groups = places(len(table), chromosome, position)
    for k, (_, rows) in enumerate(groups):
        tint = (BLUE, SKY)[k % 2]
        if lines:
            order = rows[np.argsort(x[rows], kind="stable")]
            ax.plot(x[order], height[order], color=tint, linewidth=1.0)
        else:
            points(ax, x[rows], height[rows], color=tint, alpha=0.8)
    ax.set_ylim(0.0, 1.08 * max(float(np.nanmax(height)), 1.0))
    span = float(np.ptp(x)) or 1.0
    ax.set_xlim(x.min() - 0.01 * span, x.max() + 0.01 * span)
    if len(groups) == 1:
        ax.set_xlabel("marker" if position is None else "position")
        return ax
    ax.set_xlabel("chromosome")
    size = text_size(ax, small=True)
    middle = [0.5 * (x[rows].min() + x[rows].max()) for _, rows in groups]
    ax.set_xticks(middle, [shortened(label, 6) for label, _ in groups], fontsize=size)
    ax.tick_params(axis="x", length=0, colors=GREY)
    return ax
