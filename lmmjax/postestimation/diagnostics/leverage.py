"""Leverages and residuals of every kind, with the variance parameters held."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    normalized_residuals,
    require_choice,
    require_estimates,
    residuals,
    scaled_residuals,
)
from lmmjax.postestimation.diagnostics.influence import held_at, units

PARTS = ("conditional", "fixed", "random")

RESIDUALS = (
    "conditional",
    "marginal",
    "pearson",
    "normalized",
    "studentized",
    "studentized-marginal",
    "deleted",
)


def hat(fitted: Fitted, part: str, group: str | None) -> pd.Series | pd.DataFrame:
    """See `Fit.hat`."""
    require_choice("part", part, PARTS)
    require_estimates(fitted)
    fit = held_at(fitted)
    values = np.zeros(fitted.nobs)
    if part != "random":
        values = values + fit.fixed_leverage()
    if part != "fixed":
        values = values + fit.random_leverage()
    if group is None:
        return pd.Series(values, index=fitted.data.frame.index, name="hat")
    codes, index = units(fitted.data, group)
    count = np.bincount(codes, minlength=len(index))
    total = np.bincount(codes, values, minlength=len(index))
    with np.errstate(invalid="ignore"):
        return pd.DataFrame({"n": count, "total": total, "mean": total / count}, index=index)


def residuals_of(fitted: Fitted, kind: str) -> np.ndarray:
    """See `Fit.residuals`."""
    kind = kind.replace("ised", "ized") if isinstance(kind, str) else kind
    require_choice("kind", kind, RESIDUALS)
    plain = {"conditional": residuals, "pearson": scaled_residuals, "normalized": normalized_residuals}
    if kind in plain:
        return plain[kind](fitted)
    if kind == "marginal":
        return fitted.y - fitted.population
    require_estimates(fitted)
    fit = held_at(fitted)
    if kind == "deleted":
        return fit.deleted(profiled=fitted.data.design.known is None)
    if kind == "studentized-marginal":
        return fit.marginal / np.sqrt(fit.marginal_variance())
    return residuals(fitted) / np.sqrt(fit.conditional_variance())
