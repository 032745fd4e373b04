"""Predictions for new rows: fixed part, offset and the random terms that are asked for, with their limits."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.core.kriging import NewResiduals, n_pairs, new_residuals
from lmmjax.fitted import (
    Fitted,
    FitWarning,
    ModelData,
    linear_part,
    require_choice,
    require_level,
    require_rows,
    require_switch,
    residuals,
)
from lmmjax.formula import NewFrame, fitted_rows, new_frame
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.hypotheses.estimability import warn_of_rows
from lmmjax.postestimation.hypotheses.fixed_tests import METHODS, ddf_method, notes, source
from lmmjax.postestimation.predictions.limits import Wanted, equations_at, relative_psi, standard_errors

INTERVALS = ("confidence", "prediction")

PAIRS = 1 << 22
"""Pairs of a new row and a row of its group whose covariances are held at a time."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `Fit.predict`."""

    re: Any = "all"
    new_levels: str = "error"
    offset: Any = None
    weights: Any = None
    kriging: bool = False
    se: bool = False
    interval: str | None = None
    level: float = 0.95
    ddf: str = "satterthwaite"

    @property
    def errors(self) -> bool:
        """Whether standard errors are asked for."""
        return self.se or self.interval is not None

    @property
    def residual(self) -> str:
        """What is to be known of the residuals of new rows."""
        if self.kriging:
            return "kriging"
        return "variance" if self.interval == "prediction" else ""


def predict_new(fitted: Fitted, newdata: Any, request: Request) -> pd.Series | pd.DataFrame:
    """See `Fit.predict`."""
    check(fitted.data, newdata, request)
    ddf = ddf_method(request.ddf)
    made_from = source(fitted, ddf) if request.errors else fitted
    new = new_rows(made_from.data, newdata, request)
    values, se, half = predicted(made_from, new, request, ddf)
    if not request.errors:
        return pd.Series(values, index=new.index, name="predicted")
    out = pd.DataFrame(
        {"fit": values, "se": se, "lower": values - half, "upper": values + half}, index=new.index
    )
    own = {"interval": request.interval or "confidence", "level": request.level}
    out.attrs.update(notes(fitted, ddf) | own)
    warn_of_limits(half, ddf)
    return out


def predicted(
    fitted: Fitted, new: NewFrame, request: Request, ddf: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions (k,) of new rows, their standard errors and half the lengths of the intervals.

    The latter are NaN where none are asked for. `ddf` is a key of `fixed_tests.METHODS`.
    """
    terms = [(term.term, term.z * term.columns, term.codes) for term in new.random]
    values = linear_part(fitted, new.x, [t for t in terms if np.any(t[2] >= 0)])
    values = values + (0.0 if new.offset is None else new.offset)
    if request.residual:
        new = _with_variances(fitted, new, values)
    se, half = np.full(len(values), np.nan), np.full(len(values), np.nan)
    known = np.isfinite(values)
    for term in new.random:
        known &= np.isfinite(term.z).all(axis=1)
    for rows, own in _pieces(fitted, new, np.flatnonzero(known), request):
        if own is not None and own.cross is not None:
            e = equations_at(fitted)
            values[rows] += (own.cross @ e.root.T) @ (e.root @ residuals(fitted))
        if request.errors:
            wanted = Wanted(new, rows, own, request.kriging, request.interval == "prediction")
            se[rows], total, df = standard_errors(fitted, wanted, ddf)
            half[rows] = half_length(df, total, request.level)
    return values, se, half


def half_length(df: np.ndarray, total: np.ndarray, level: float) -> np.ndarray:
    """Half the lengths of intervals with standard errors `total`; infinite below one degree of freedom.

    Such a variance is known to no power of ten, and quantiles of t are of 1e10 and more.
    """
    few = np.broadcast_to(df < 1.0, total.shape)
    with np.errstate(invalid="ignore"):
        return np.where(few & (total > 0.0), np.inf, t_quantile(np.where(few, 1.0, df), level) * total)


def warn_of_limits(half: np.ndarray, ddf: str) -> None:
    """A `FitWarning` that counts limits that are infinite."""
    if count := int(np.isinf(half).sum()):
        others = " or ".join(repr(name) for name in ("satterthwaite", "normal") if name != ddf)
        warnings.warn(
            f"limits of {count} of {half.size} predictions are infinite: their variance has less than one "
            f"degree of freedom ({METHODS[ddf]}), as of new levels where their variance is near zero: "
            f"pass re='none', or ddf={others}",
            FitWarning,
            stacklevel=stack_level(),
        )


def check(data: ModelData, newdata: Any, request: Request) -> None:
    """ValueError for what cannot be asked of predictions for `newdata`."""
    if newdata is None:
        require_rows(data, "a prediction for the rows of the fit")
    require_choice("new_levels", request.new_levels, ("error", "population"))
    require_switch("kriging", request.kriging)
    require_switch("se", request.se)
    require_level(request.level)
    if request.interval is not None:
        require_choice("interval", request.interval, INTERVALS)
    if request.kriging and (data.design.residual is None or newdata is None):
        raise ValueError("kriging is for new rows of a model with a residual structure: pass newdata")
    for name in ("offset", "weights"):
        if newdata is None and getattr(request, name) is not None:
            raise ValueError(f"{name} is for new rows: pass newdata with it")
    if request.weights is not None and not request.residual:
        raise ValueError(
            "weights of new rows enter with interval='prediction' and kriging=True only: ask for one of them"
        )


def new_rows(data: ModelData, newdata: Any, request: Request, warn: bool = True) -> NewFrame:
    """The rows to predict, those of the fit if `newdata` is None; not estimable ones are named, if `warn`."""
    frame, wanted, rest = data.frame, _wanted(request.re), request.interval == "prediction"
    if newdata is None:
        return fitted_rows(frame, groups=wanted)
    new = new_frame(
        frame,
        newdata,
        groups=wanted,
        rest=rest,
        offset=request.offset,
        weights=request.weights,
        residual=request.residual,
    )
    if warn:
        warn_of_rows(data, new)
    for term in new.random:
        if term.unseen and request.new_levels == "error":
            shown = ", ".join(map(str, term.unseen[:5])) + (", …" if len(term.unseen) > 5 else "")
            raise ValueError(
                f"new levels of {term.group!r}: {shown}; pass new_levels='population' to predict "
                "them with b = 0"
            )
    return new


def _with_variances(fitted: Fitted, new: NewFrame, values: np.ndarray) -> NewFrame:
    """The rows, where a variance that is a function of the mean is one of the predicted mean."""
    places, own = new.places, fitted.data.design.residual
    if places is None or places.design is None or own is None:
        return new
    at, variances = places.design, own.structure.residual.variances
    pairs = zip(variances, at.covariates, strict=False)
    of_variances = tuple(values[places.rows] if v.source is None else c for v, c in pairs)
    covariates = of_variances + at.covariates[len(variances) :]
    at = dataclasses.replace(at, covariates=covariates)
    return dataclasses.replace(new, places=dataclasses.replace(places, design=at))


def _pieces(
    fitted: Fitted, new: NewFrame, known: np.ndarray, request: Request
) -> Iterator[tuple[np.ndarray, NewResiduals | None]]:
    """The rows `known`, some at a time, with their residuals."""
    places, design = new.places, fitted.data.design
    if not request.residual or places is None:
        yield known, None
        return
    psi = relative_psi(fitted)
    at = np.searchsorted(places.rows, known)
    weights = np.ones(len(places.rows)) if places.weights is None else places.weights
    steps = np.zeros(len(known), int)
    if request.kriging and places.design is not None and design.residual is not None:
        counts = n_pairs(places.design.codes[at], design.residual.codes, design.residual.n_groups)
        steps = np.cumsum(counts) // PAIRS
    for step in np.unique(steps):
        some = steps == step
        own = None if places.design is None else places.design.at(at[some])
        yield known[some], new_residuals(design, psi, own, weights[at[some]], request.kriging)


def _wanted(re: Any) -> list[str] | None:
    if isinstance(re, str):
        return None if re == "all" else [] if re == "none" else [re]
    if not isinstance(re, list | tuple | set | frozenset):
        raise ValueError(f"re must be 'all', 'none' or a list of grouping factors, not {re!r}")
    return list(re)
