"""Conditional modes with their intervals, levels in order: a caterpillar a term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from lmmjax.fitted import require_choice, require_known, require_level
from lmmjax.plot.axes import BLUE, GREY, SKY, panels, rows_of_panels, said, titled
from lmmjax.plot.levels import NAMED, height_of, name_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABREAST, AROUND = 3, 0.5
"""Terms that stand side by side; inches above and below the levels."""


def plot_ranef(
    table: pd.DataFrame,
    ax: Any = None,
    *,
    level: float = 0.95,
    spread: str = "cond_sd",
    order: str | None = None,
) -> Any:
    """Modes of every level with intervals mode ± z·sd, a panel a grouping factor and term.

    Parameters
    ----------
    table : columns group, level, term, value and `spread`, as `Fit.ranef` gives it.
    ax : as many Axes as there are factors and terms; new ones if None.
    level : of the intervals, by normal quantiles.
    spread : "cond_sd", given the parameters, as lme4's `dotplot(ranef(m))`; or "pred_se", with what the
        estimation of β costs.
    order : the term by whose modes the levels of a factor are sorted, by default its first; "level": as they
        come, the first on top.

    Levels are named up to 60 of them. Modes that the data leave open are not drawn.

    Returns
    -------
    the Axes, an array (k,) if there are several.

    Raises
    ------
    ValueError : no random effects, an unknown spread or term. ImportError without matplotlib.
    """
    if not len(table):
        raise ValueError("the model has no random effects: there are no modes to draw")
    require_choice("spread", spread, ("cond_sd", "pred_se"))
    z = float(ndtri(0.5 + require_level(level) / 2))
    if order not in (None, "level"):
        require_known("term", [str(order)], list(dict.fromkeys(table["term"])))
    rows = _rows(table)
    axes = _laid_out(ax, table, rows)
    cells = [(group, term, k == 0) for group, terms in rows for k, term in enumerate(terms)]
    for one, (group, term, named) in zip(axes, cells, strict=True):
        own: Any = table[table["group"] == group]
        by = order if order in set(own["term"]) else own["term"].iloc[0]
        levels = _ordered(own, None if order == "level" else str(by))
        mine = own[own["term"] == term].set_index("level").loc[levels]
        _caterpillar(one, mine["value"].to_numpy(float), z * mine[spread].to_numpy(float))
        name_levels(one, levels, str(group) if named else None)
        titled(one, term)
    return axes[0] if len(axes) == 1 else axes


def _rows(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The terms that stand side by side, with their factor."""
    out = []
    for group, own in table.groupby("group", sort=False):
        terms = list(dict.fromkeys(own["term"]))
        out += [(group, terms[k : k + ABREAST]) for k in range(0, len(terms), ABREAST)]
    return out


def _laid_out(ax: Any, table: pd.DataFrame, rows: list[tuple[str, list[str]]]) -> np.ndarray:
    count = sum(len(terms) for _, terms in rows)
    if ax is not None:
        return panels(ax, count, 1, 1.0)
    sizes = [table.loc[table["group"] == group, "level"].nunique() for group, _ in rows]
    return rows_of_panels([len(terms) for _, terms in rows], [AROUND + height_of(size) for size in sizes])


def _ordered(own: Any, by: str | None) -> list[Any]:
    """Levels from below, by the modes of a term or, without one, the first on top."""
    if by is None:
        return list(dict.fromkeys(own["level"]))[::-1]
    mine = own[own["term"] == by].sort_values("value", kind="stable", na_position="first")
    return list(mine["level"])


def _caterpillar(ax: Axes, value: np.ndarray, half: np.ndarray) -> None:
    place = np.arange(len(value))
    if not np.isfinite(value).any():
        said(ax, "not identified")
        ax.set_xticks([])
        return
    thick = 3.0 if len(value) <= NAMED else 1.0
    ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=1)
    ax.hlines(place, value - half, value + half, color=SKY, linewidth=thick, zorder=2)
    ax.plot(value, place, "o", color=BLUE, markersize=3.0 if len(value) <= NAMED else 1.5, zorder=3)
