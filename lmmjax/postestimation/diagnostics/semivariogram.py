"""The semivariogram of residuals within groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.core.residuals import of_pairs, residual_root, variances
from lmmjax.fitted import (
    Fitted,
    require_choice,
    require_count,
    require_estimates,
    require_switch,
    response_vector,
)
from lmmjax.formula.clusters import source_numbers
from lmmjax.inference.diagnostics.variogram import pairs, semivariogram
from lmmjax.postestimation.diagnostics.influence import units
from lmmjax.postestimation.diagnostics.leverage import residuals_of

KINDS = ("pearson", "normalized", "conditional")


def variogram(
    fitted: Fitted,
    kind: str,
    robust: bool,
    time: Any,
    group: str | None,
    bins: int,
    max_distance: float | None,
) -> pd.DataFrame:
    """See `Fit.semivariogram`."""
    require_estimates(fitted)
    kind = _kind(kind)
    robust, bins = require_switch("robust", robust), require_count("bins", bins)
    first, second, distance = _near(fitted, time, group, max_distance)
    values = residuals_of(fitted, kind)
    found = semivariogram(distance, values[first] - values[second], bins, robust)
    return pd.DataFrame(dict(zip(("dist", "semivariance", "n"), found, strict=True)))


def expected_variogram(
    fitted: Fitted, kind: str, time: Any, group: str | None, bins: int, max_distance: float | None
) -> np.ndarray:
    """What the residual structure has in the bins of `variogram` (k,), ½(vᵢ + vⱼ) − cᵢⱼ, mean over pairs.

    Of the errors themselves; residuals, which b̂ and β̂ have been taken from, vary somewhat less.
    """
    kind, bins = _kind(kind), require_count("bins", bins)
    first, second, distance = _near(fitted, time, group, max_distance)
    design, psi = fitted.data.design, np.asarray(fitted.estimate.psi)
    half = np.ones(len(distance))
    if kind != "normalized":
        variance, own = variances(design, psi), design.residual
        cov = np.zeros(len(distance))
        if own is not None:
            root = residual_root(design, psi)
            cov = of_pairs(design, psi, own, own, first, second, False) * root[first] * root[second]
            cov = np.where(own.codes[first] == own.codes[second], cov, 0.0)
        if kind == "pearson":
            half = 1.0 - cov / np.sqrt(variance[first] * variance[second])
        else:
            half = 0.5 * (variance[first] + variance[second]) - cov
    return semivariogram(distance, np.sqrt(np.maximum(2.0 * half, 0.0)), bins, False)[1]


def _kind(kind: str) -> str:
    kind = kind.replace("ised", "ized") if isinstance(kind, str) else kind
    require_choice("kind", kind, KINDS)
    return kind


def _near(
    fitted: Fitted, time: Any, group: str | None, max_distance: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows of a group and their distances (m,), of those within reach."""
    codes, places = _codes(fitted, group), _places(fitted, time)
    if places is None:
        places = _order(codes)
    first, second, distance = pairs(codes, places)
    if max_distance is not None:
        near = distance <= max_distance
        first, second, distance = first[near], second[near], distance[near]
    if not len(distance):
        raise ValueError("no two rows of a group are within reach: give a coarser group or a longer distance")
    return first, second, distance


def _codes(fitted: Fitted, group: str | None) -> np.ndarray:
    own = fitted.data.design.residual
    if group is None and own is not None and own.structure.residual.correlation is not None:
        return np.asarray(own.codes)
    return units(fitted.data, group)[0]


def _places(fitted: Fitted, time: Any) -> np.ndarray | None:
    """Coordinates (n, k) in the user's units; None for the order of the rows."""
    if isinstance(time, str):
        return source_numbers(fitted.data.frame, time)[:, None]
    if time is not None:
        return response_vector(fitted.data, time, "time")[:, None]
    columns = fitted.data.frame.residual
    if columns is None or columns.design is None or columns.residual.correlation is None:
        return None
    places = np.asarray(columns.design.place, float) * columns.unit
    return places if places.ndim > 1 else places[:, None]


def _order(codes: np.ndarray) -> np.ndarray:
    """0, 1, … (n, 1) within every group, as the rows come."""
    return pd.Series(codes).groupby(codes).cumcount().to_numpy(float)[:, None]
