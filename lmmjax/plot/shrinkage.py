"""What partial pooling does: coefficients of every level alone, and in the model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from lmmjax.core.residuals import variances, whitened
from lmmjax.fitted import Fitted, fitted_modes, identified_psi, require_estimates, require_known, residuals
from lmmjax.plot.axes import BLUE, COLUMN, ORANGE, PALE, VERMILLION, legend_above, panels, said, shortened
from lmmjax.plot.levels import NAMED, height_of, name_levels
from lmmjax.postestimation.predictions.modes import only_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIRST = 4
"""Coefficients of which pairs are drawn by default."""

SHARES = (0.5, 0.95)
"""Of the levels, that contours of their distribution hold."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pooling:
    """Coefficients of the G levels of a grouping factor with no, partial and complete pooling.

    Attributes
    ----------
    none, partial : frames, levels × coefficients.
    complete : the fixed effects, by coefficient; 0 where there is none of that name.
    cov : the covariance of the coefficients between levels, as estimated.
    """

    none: pd.DataFrame
    partial: pd.DataFrame
    complete: pd.Series
    cov: pd.DataFrame


def pooling(fitted: Fitted, group: str | None = None) -> Pooling:
    """The coefficients z'(β + b) of every level, in the model and by its own rows.

    With ê the residuals and R their covariance, those of a level j by its own rows are

        β̂ + b̂_j + (Z_jᵀR_j⁻¹Z_j)⁻¹ Z_jᵀR_j⁻¹ê_j,

    generalised least squares of what y is off the other fixed effects and random terms, which stay as the
    model has them; without these it is the level's own regression. NaN where its rows do not determine them.
    R_j is diagonal here where residuals correlate across levels.

    Parameters
    ----------
    group : the grouping factor; may be left out if there is one.
    """
    require_estimates(fitted)
    frame, design = fitted.data.frame, fitted.data.design
    group = only_group(list(dict.fromkeys(term.group for term in frame.random)), group)
    pairs = [(t, m) for t, m in zip(frame.random, fitted_modes(fitted), strict=True) if t.group == group]
    term, names = pairs[0][0], [name for t, _ in pairs for name in t.names]
    fixed = dict(zip(fitted.data.x_names, np.asarray(fitted.estimate.beta), strict=True))
    complete = np.array([fixed.get(name, fixed.get(name.strip("()"), 0.0)) for name in names])
    partial = complete + np.concatenate([m.b for _, m in pairs], axis=1)
    columns = np.column_stack([residuals(fitted), *(t.z for t, _ in pairs)])
    own = design.residual
    nested = own is not None and _nested(np.asarray(own.codes), term.codes)
    psi = np.asarray(fitted.estimate.psi)
    if own is None or not nested:
        columns = columns / np.sqrt(variances(design, psi))[:, None]
    else:
        columns = whitened(design, psi, columns)
    none = partial + _by_level(columns[:, 1:], columns[:, 0], term.codes, len(term.levels))
    index = pd.Index(term.levels, name=group)
    own_terms = [k for k, t in enumerate(frame.random) if t.group == group]
    return Pooling(
        pd.DataFrame(none, index=index, columns=names),
        pd.DataFrame(partial, index=index, columns=names),
        pd.Series(complete, index=names),
        pd.DataFrame(_between(fitted, own_terms), index=names, columns=names),
    )


def _between(fitted: Fitted, terms: list[int]) -> np.ndarray:
    """D (q, q) of some random terms, uncorrelated with each other; NaN where the data leave it open."""
    design, psi = fitted.data.design, identified_psi(fitted.estimate)
    slices = design.structure.slices()
    blocks = [np.asarray(design.terms[k].family.matrix(psi[slices[k]], design.terms[k].q)) for k in terms]
    return np.asarray(block_diag(*blocks))


def ellipse(centre: np.ndarray, cov: np.ndarray, share: float) -> np.ndarray:
    """Contour (2, k) of a normal distribution that holds a share of it; cov (2, 2) may be singular."""
    values, axes = np.linalg.eigh(cov)
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    circle = np.sqrt(-2.0 * np.log1p(-share)) * np.stack([np.cos(angle), np.sin(angle)])
    return centre[:, None] + (axes * np.sqrt(np.maximum(values, 0.0))) @ circle


def _nested(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Whether rows of one inner group are of one outer group."""
    pairs = np.unique(np.stack([inner, outer]), axis=1).shape[1]
    return pairs == len(np.unique(inner))


def _by_level(z: np.ndarray, e: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Least squares (G, q) of e (n,) on z (n, q) in the rows of every level, NaN where they are too few."""
    q = z.shape[1]
    square, product = np.zeros((count, q, q)), np.zeros((count, q))
    np.add.at(square, codes, z[:, :, None] * z[:, None, :])
    np.add.at(product, codes, z * e[:, None])
    root = np.sqrt(np.diagonal(square, axis1=1, axis2=2))
    safe = np.where(root > 0, root, 1.0)
    scaled = square / safe[:, :, None] / safe[:, None, :]
    full = np.asarray((root > 0).all(axis=1) & np.isfinite(product).all(axis=1))
    full[full] &= np.linalg.eigvalsh(scaled[full])[:, 0] > 1e-10
    out = np.full((count, q), np.nan)
    if full.any():
        solved = np.linalg.solve(scaled[full], (product[full] / safe[full])[:, :, None])[:, :, 0]
        out[full] = solved / safe[full]
    return out


def plot_shrinkage(given: Pooling, ax: Any = None, *, columns: Sequence[str] | None = None) -> Any:
    """Every level's coefficients by its own rows, and where the model moves them.

    One coefficient is drawn a line a level, in order; of several every pair in a plane, with arrows, and
    contours of the normal distribution between levels that the model estimates.

    Parameters
    ----------
    given : as `pooling` makes it.
    ax : as many Axes as there are pairs; new ones if None.
    columns : coefficients to draw; the first four if None.

    Levels whose rows do not determine their coefficients have a point only where the model puts them.

    Returns
    -------
    the Axes, an array (k,) if there are several pairs.

    Raises
    ------
    ValueError : an unknown coefficient. ImportError without matplotlib.
    """
    known = list(given.partial.columns)
    wanted = known[:FIRST] if columns is None else [columns] if isinstance(columns, str) else list(columns)
    require_known("coefficient", wanted, known)
    if len(wanted) == 1:
        return _along(given, wanted[0], ax)
    pairs = list(itertools.combinations(wanted, 2))
    across = min(2, len(pairs))
    height = COLUMN * 0.9 if len(pairs) == 1 else 1.75 * -(-len(pairs) // 2) + 0.2
    axes = panels(ax, len(pairs), across, height)
    for k, (one, (first, second)) in enumerate(zip(axes, pairs, strict=True)):
        _plane(one, given, first, second, legend=k == 0)
    return axes[0] if len(axes) == 1 else axes


def _plane(ax: Axes, given: Pooling, first: str, second: str, legend: bool) -> None:
    none, partial = (frame[[first, second]].to_numpy(float) for frame in (given.none, given.partial))
    many = len(none) > NAMED
    moved = np.isfinite(none).all(axis=1) & np.isfinite(partial).all(axis=1)
    step = (partial - none)[moved]
    if moved.any():
        ax.quiver(
            *none[moved].T,
            *step.T,
            angles="xy",
            scale_units="xy",
            scale=1.0,
            units="dots",
            width=0.012 * ax.figure.dpi * (0.5 if many else 1.0),
            headwidth=4.0,
            headlength=5.0,
            headaxislength=4.5,
            color=PALE,
            zorder=1,
        )
    size = 2.0 if many else 3.5
    ax.plot(
        *none.T,
        "o",
        markersize=size,
        markerfacecolor=ax.get_facecolor(),
        markeredgecolor=ORANGE,
        markeredgewidth=0.8,
        label="no pooling",
        zorder=2,
    )
    ax.plot(*partial.T, "o", markersize=size, color=BLUE, label="partial pooling", zorder=3)
    centre = np.array([given.complete[first], given.complete[second]], float)
    cov = given.cov.loc[[first, second], [first, second]].to_numpy(float)
    for k, share in enumerate(SHARES if np.isfinite(cov).all() else ()):
        label = f"{SHARES[0]:.0%}, {SHARES[1]:.0%} of levels" if k == 0 else None
        ax.plot(*ellipse(centre, cov, share), color=PALE, linewidth=0.8, linestyle=":", label=label, zorder=0)
    ax.plot(
        *centre, "P", color=VERMILLION, markersize=6.0, markeredgewidth=0.4, label="fixed effects", zorder=4
    )
    if not np.isfinite(partial).any():
        said(ax, "not identified")
    ax.margins(0.06)
    ax.set_xlabel(shortened(first))
    ax.set_ylabel(shortened(second))
    if legend:
        legend_above(ax)


def _along(given: Pooling, name: str, ax: Any) -> Any:
    middle: Any = given.complete[name]
    partials: Any = given.partial[name]
    order = partials.sort_values(kind="stable", na_position="first").index
    none, partial = (frame.loc[order, name].to_numpy(float) for frame in (given.none, given.partial))
    count, place = len(order), np.arange(len(order))
    many = count > NAMED
    one = panels(ax, 1, 1, 0.8 + height_of(count))[0]
    one.axvline(float(middle), color=VERMILLION, linewidth=1.0, label="fixed effect", zorder=1)
    one.hlines(place, none, partial, color=PALE, linewidth=0.8 if many else 1.5, zorder=2)
    own = {"markerfacecolor": one.get_facecolor(), "markeredgecolor": ORANGE, "markeredgewidth": 0.8}
    size = 2.0 if many else 3.5
    one.plot(none, place, "o", markersize=size, label="no pooling", zorder=3, **own)
    one.plot(partial, place, "o", markersize=size, color=BLUE, label="partial pooling", zorder=4)
    name_levels(one, list(order), str(order.name))
    if not np.isfinite(partial).any():
        said(one, "not identified")
    one.set_xlabel(shortened(name))
    legend_above(one)
    return one
