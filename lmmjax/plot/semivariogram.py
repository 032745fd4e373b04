"""The semivariogram of residuals, beside what the model has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmmjax.plot.axes import BLUE, VERMILLION, axes_or_new, legend_above, whole_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_semivariogram(
    table: pd.DataFrame, ax: Axes | None = None, *, expected: np.ndarray | None = None
) -> Axes:
    """Semivariance by distance, points as large as they have pairs; a line for what is expected.

    Parameters
    ----------
    table : columns dist, semivariance, n, as `Fit.semivariogram` gives it.
    ax : Axes to draw on; new ones if None.
    expected : (k,) of the model in the same bins.

    Returns
    -------
    the Axes. ImportError without matplotlib.
    """
    ax = axes_or_new(ax, 2.5)
    order = np.argsort(table["dist"].to_numpy())
    dist, value, count = (table[name].to_numpy(float)[order] for name in ("dist", "semivariance", "n"))
    ax.scatter(dist, value, s=8.0 + 40.0 * count / count.max(), color=BLUE, linewidths=0.0, label="residuals")
    if expected is not None:
        ax.plot(dist, expected[order], color=VERMILLION, linewidth=1.2, label="model", zorder=0)
        legend_above(ax)
    ax.set_ylim(0.0, 1.12 * max(float(np.nanmax(value)), 0.0 if expected is None else float(expected.max())))
    ax.margins(x=0.05)
    if (dist == np.round(dist)).all():
        whole_ticks(ax)
    ax.set_xlabel("distance")
    ax.set_ylabel("semivariance")
    return ax
