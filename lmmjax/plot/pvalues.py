"""p-values of many responses: their histogram, and their quantiles beside uniform ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import betaincinv, chdtri

from lmmjax.fitted import require_count, require_level
from lmmjax.plot.axes import BLUE, PALE, SKY, VERMILLION, axes_or_new, legend_above, points, said, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def null_share(p: np.ndarray) -> float:
    """An estimate of the share of true null hypotheses from p (k,): #{p > λ}/((1 − λ)k), at most 1.

    Source: Storey (2002), doi:10.1111/1467-9868.00346, λ = 1/2.
    """
    p = p[np.isfinite(p)]
    return float(min(1.0, 2.0 * np.mean(p > 0.5))) if len(p) else np.nan


def inflation(p: np.ndarray) -> float:
    """The median of χ²₁ quantiles of p (k,) over that of χ²₁: 1 if p are uniform.

    Source: Devlin & Roeder (1999), doi:10.1111/j.0006-341X.1999.00997.x.
    """
    p = p[np.isfinite(p)]
    return float(chdtri(1, np.median(p)) / chdtri(1, 0.5)) if len(p) else np.nan


def uniform_limits(k: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means i/(k + 1) of k uniform order statistics and their quantiles, beta(i, k + 1 − i), (k,) each.

    Between them lie `level` of each by itself, for independent values.
    """
    i, tail = np.arange(1, k + 1, dtype=float), 0.5 * (1.0 - level)
    return i / (k + 1.0), betaincinv(i, k + 1.0 - i, tail), betaincinv(i, k + 1.0 - i, 1.0 - tail)


def plot_pvalues(p: Any, ax: Axes | None = None, *, bins: int = 20, term: str | None = None) -> Axes:
    """A histogram of p-values, with the height that uniform ones and the null ones among them would have.

    Flat with a peak at 0 is what a good test gives. A peak at 1, or a slope upwards, says that standard
    errors or degrees of freedom are wrong, a hump that responses depend on what the model leaves out.

    Parameters
    ----------
    p : p-values of the responses; missing ones are left out.
    ax : Axes to draw on; new ones if None.
    bins : of equal width from 0 to 1.
    term : name of the coefficient, for the axis.

    Returns
    -------
    the Axes. ImportError without matplotlib.

    Source: Breheny, Stromberg & Lambert (2018), doi:10.3390/ht7030023, on how to read it.
    """
    own = _present(p)
    ax = axes_or_new(ax, 2.3)
    ax.set_xlabel("p" if term is None else f"p of {shortened(term, 32)}")
    ax.set_ylabel("responses")
    if not len(own):
        said(ax, "no response has a p-value")
        return ax
    count = require_count("bins", bins, 2)
    ax.hist(own, bins=list(np.linspace(0.0, 1.0, count + 1)), color=SKY, edgecolor="white", linewidth=0.4)
    share = null_share(own)
    ax.axhline(len(own) / count, color=PALE, linewidth=1.0, linestyle="--", label="uniform")
    ax.axhline(
        share * len(own) / count, color=VERMILLION, linewidth=1.2, label=f"nulls: {share:.0%} of {len(own):,}"
    )
    ax.set_xlim(0.0, 1.0)
    legend_above(ax)
    return ax


def plot_qq(p: Any, ax: Axes | None = None, *, level: float = 0.95, term: str | None = None) -> Axes:
    """−log₁₀ p by what is expected of uniform ones, with limits and the inflation factor λ.

    Parameters
    ----------
    p : p-values of the responses; missing ones are left out.
    ax : Axes to draw on; new ones if None.
    level : of the limits of each order statistic by itself, for independent p-values.
    term : name of the coefficient, for the title.

    Returns
    -------
    the Axes. ImportError without matplotlib.
    """
    own = _present(p)
    ax = axes_or_new(ax, 2.8)
    ax.set_xlabel("expected $-\\log_{10}\\,p$")
    ax.set_ylabel("$-\\log_{10}\\,p$")
    if not len(own):
        said(ax, "no response has a p-value")
        return ax
    require_level(level)
    values = np.sort(own)
    mean, lower, upper = uniform_limits(len(values), level)
    smallest = np.finfo(float).smallest_subnormal
    expected, observed = -np.log10(mean), -np.log10(np.maximum(values, smallest))
    highest, lowest = (-np.log10(np.maximum(end, smallest)) for end in (lower, upper))
    label = f"{level:.0%} limits"
    ax.fill_between(expected, lowest, highest, color=PALE, alpha=0.5, linewidth=0.0, label=label, zorder=0)
    most = float(expected[0])
    ax.plot([0.0, most], [0.0, most], color=VERMILLION, linewidth=1.0, zorder=1)
    points(ax, expected, observed, color=BLUE, alpha=0.8, label=f"p, λ = {inflation(own):.2f}")
    ax.set_xlim(0.0, 1.05 * most)
    ax.set_ylim(0.0, 1.05 * max(float(observed[0]), float(highest[0])))
    legend_above(ax, title=None if term is None else shortened(term, 32))
    return ax


def _present(p: Any) -> np.ndarray:
    values = np.asarray(p, float).ravel()
    values = values[np.isfinite(values)]
    if np.any((values < 0) | (values > 1)):
        raise ValueError("p-values lie between 0 and 1: give those of a coefficient, not its t")
    return values
