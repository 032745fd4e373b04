"""Posterior distributions of parameters, beside their priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax.fitted import require_known, require_level
from lmmjax.plot.axes import BLUE, ORANGE, SKY, panels, text_size, titled
from lmmjax.postestimation.posterior.draws import Draws
from lmmjax.postestimation.posterior.prior_density import marginals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST, PLACES = 24, 200
"""Parameters that are drawn by default; values at which a prior density is computed."""

Curve = tuple[np.ndarray, np.ndarray]


def prior_curves(draws: Draws, names: Sequence[str]) -> dict[str, Curve]:
    """Values (k,) over the range of the draws and the prior's density (k,) there, by name.

    Parameters whose prior is flat or improper, or has no closed form, are left out; see
    `lmmjax.postestimation.posterior.prior_density.marginals`.
    """
    own, out = marginals(draws), {}
    for name in names:
        prior = own.get(name)
        if prior is None:
            continue
        values = draws.values[..., draws.names.index(name)]
        at = np.linspace(*_range(values), PLACES)
        out[name] = at, prior.density(at)
    return out


def chosen(known: Sequence[str], parameters: str | Sequence[str] | None) -> list[str]:
    """The parameters that are meant: the first 24 of those known if None."""
    if parameters is None:
        return list(known)[:MOST]
    names = [parameters] if isinstance(parameters, str) else list(parameters)
    require_known("parameter", names, known)
    return names


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def plot_posterior(
    draws: pd.DataFrame,
    ax: Any = None,
    *,
    prior: Mapping[str, Curve] | None = None,
    parameters: str | Sequence[str] | None = None,
    level: float = 0.95,
) -> Any:
    """A histogram of the draws of every parameter, its interval and median, and the prior as a line.

    Parameters
    ----------
    draws : draws × parameters, as `Posterior.frame` gives it.
    ax : as many Axes as there are parameters; new ones if None.
    prior : curves by name, as `prior_curves` makes them.
    parameters : names; the first 24 if None.
    level : of the interval between quantiles.

    Returns
    -------
    the Axes, an array (k,) if there are several.

    Raises
    ------
    ValueError : an unknown parameter. ImportError without matplotlib.
    """
    names = chosen(list(draws.columns), parameters)
    tail = 0.5 * (1.0 - require_level(level))
    rows = -(-len(names) // 2)
    axes = panels(ax, len(names), 2, 2.2 if len(names) == 1 else 0.25 + 1.2 * rows)
    for one, name in zip(axes, names, strict=True):
        _histogram(one, draws[name].to_numpy(float), None if prior is None else prior.get(name), tail)
        titled(one, name)
    if prior:
        first = next((one for one, name in zip(axes, names, strict=True) if name in prior), axes[0])
        first.legend(
            frameon=False, fontsize=text_size(first, small=True), handlelength=1.2, borderaxespad=0.0
        )
    return axes[0] if len(axes) == 1 else axes


def _histogram(ax: Axes, values: np.ndarray, prior: Curve | None, tail: float) -> None:
    good = values[np.isfinite(values)]
    lower, median, upper = np.quantile(good, [tail, 0.5, 1.0 - tail])
    bins = min(60, max(10, int(np.sqrt(len(good)) / 1.5)))
    ax.hist(good, bins=bins, density=True, color=SKY, alpha=0.7, label="posterior")
    top = ax.get_ylim()[1]
    if prior is not None:
        ax.plot(*prior, color=ORANGE, linewidth=1.4, label="prior")
        # a prior with a pole does not flatten the posterior
        ax.set_ylim(0.0, max(top, min(1.3 * top, float(np.nanmax(prior[1]) * 1.05))))
    base = -0.05 * ax.get_ylim()[1]
    ax.plot([lower, upper], [base, base], color=BLUE, linewidth=2.0, solid_capstyle="butt")
    ax.plot(median, base, "o", color=BLUE, markersize=3.5)
    ax.set_ylim(bottom=2.2 * base)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
