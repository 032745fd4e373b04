"""Cross-validation of a fit: rows predicted from fits without them, and scores of the predictions."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays.memory import require_memory
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import (
    Fitted,
    fit_many,
    require_count,
    require_estimates,
    require_key,
    require_switch,
)
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.fitted.responses import on_rows
from lmmjax.formula import nearest
from lmmjax.formula.clusters import model_factors
from lmmjax.formula.labelled import Labelled
from lmmjax.formula.matching import own_index
from lmmjax.inference.diagnostics.deletion import held
from lmmjax.inference.diagnostics.left_out import LeftOut, crps, each_row, left_out, log_density
from lmmjax.postestimation.diagnostics.influence import OBSERVATION, held_at, units
from lmmjax.postestimation.simulation.resample import independent_blocks

SCORES = ["rmse", "mae", "r2", "lpd", "crps"]


def cross_validated(
    fitted: Fitted, by: Any, folds: Any, key: Any, fixed_variances: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Predictions, a row an observation, scores, a row a fold, and over all; see `Fit.cross_validate`."""
    require_estimates(fitted)
    fixed = require_switch("fixed_variances", fixed_variances)
    fold, labels = fold_codes(fitted, by, folds, key)
    status = ["fixed variances"] * len(labels)
    if fixed:
        found = _held_folds(fitted, fold, len(labels))
    else:
        found, status = _refitted_folds(fitted, fold, len(labels))
    lost = np.isnan(found.error)
    if lost.any():
        warnings.warn(
            f"{int(lost.sum())} of {len(lost)} rows are not predicted, as the rows left do not determine it "
            "or the fit without their fold has failed; they are NaN and count in no score: see .table",
            EstimabilityWarning,
            stacklevel=4,
        )
    observed = np.asarray(fitted.y, float)
    predictions = pd.DataFrame(
        {
            "observed": observed,
            "fit": observed - found.error,
            "se": np.sqrt(found.variance),
            "fold": labels.take(fold),
        },
        index=fitted.data.frame.index,
    )
    baseline = _means_of_others(observed, fold, len(labels))
    rows = [scores(observed, found, baseline, fold == k) for k in range(len(labels))]
    table = pd.DataFrame(rows, index=labels)
    table["status"] = status
    whole = scores(observed, found, baseline, np.ones(len(fold), bool))
    return predictions, table, pd.Series(whole, name="score")


def scores(observed: np.ndarray, found: LeftOut, baseline: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Number of rows predicted of `rows` (n,) bool, and their `SCORES`.

    Parameters
    ----------
    baseline : (n,) what each row is predicted by without a model.
    """
    rows = rows & ~np.isnan(found.error)
    n = int(rows.sum())
    if not n:
        return {"n": 0, **dict.fromkeys(SCORES, np.nan)}
    error, variance = found.error[rows], found.variance[rows]
    around = float(np.sum((observed - baseline)[rows] ** 2))
    return {
        "n": n,
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.sum(error**2)) / around if around > 0 else np.nan,
        "lpd": float(np.mean(log_density(error, variance))),
        "crps": float(np.mean(crps(error, variance))),
    }


def fold_codes(fitted: Fitted, by: Any, folds: Any, key: Any) -> tuple[np.ndarray, pd.Index]:
    """The fold (n,) of each row, 0 … K − 1, and the labels of the folds."""
    unit, labels = _units(fitted, by)
    if folds is None:
        if len(labels) < 2:
            raise ValueError(f"{labels.name!r} has one level: without it no row is left to fit")
        return unit, labels
    if isinstance(folds, bool | int | float | np.number):
        count = require_count("folds", folds, 2)
        if count > len(labels):
            raise ValueError(f"{count} folds for {len(labels)} levels of {labels.name!r}: ask for fewer")
        require_key(key)
        place = np.empty(len(labels), int)
        place[np.asarray(jax.random.permutation(key, len(labels)))] = np.arange(len(labels)) % count
        return place[unit], pd.RangeIndex(count, name="fold")
    codes, names = _given(fitted, folds, "folds")
    if len(names) < 2:
        raise ValueError("folds put all rows of the model into one: give at least two")
    if len(np.unique(np.stack([unit, codes]), axis=1).T) > len(labels):
        raise ValueError(
            f"folds cut {labels.name!r}: rows of one of its levels lie in several; pass by={OBSERVATION!r}"
        )
    return codes, names.rename("fold")


def _units(fitted: Fitted, by: Any) -> tuple[np.ndarray, pd.Index]:
    """Codes (n,) and labels of what is left out as a whole."""
    frame = fitted.data.frame
    if not isinstance(by, str):
        return _given(fitted, by, "by")
    known = model_factors(frame)
    if by in known:
        codes, labels = known[by], pd.Index(frame.factor_levels.get(by, ()), name=by)
        groups = [term.group for term in frame.random]
        if by in groups:
            codes, labels = units(fitted.data, by)
        present, codes = np.unique(codes, return_inverse=True)
        labels = labels.take(present) if len(labels) > present[-1] else pd.RangeIndex(len(present))
        return codes, labels.rename(by)
    if by != OBSERVATION:
        raise ValueError(
            f"unknown factor {by!r}: {nearest(by, [*known, OBSERVATION])}. For another pass its column, as "
            f"in by=data[{by!r}]"
        )
    return units(fitted.data, OBSERVATION)


def _given(fitted: Fitted, values: Any, what: str) -> tuple[np.ndarray, pd.Index]:
    """Codes (n,) and labels of one label a row, of the model or its data."""
    raw = np.asarray(values, dtype=object)
    if raw.ndim != 1:
        raise ValueError(f"{what} must be a name, or one label for each row of the model")
    codes, labels = pd.factorize(raw)
    found = on_rows(fitted.data.frame, Labelled(codes.astype(float), own_index(values)), what)
    if np.any(found < 0):
        raise ValueError(f"{what}: {int(np.sum(found < 0))} rows of the model have no label: give each one")
    present, codes = np.unique(found.astype(int), return_inverse=True)
    name = getattr(values, "name", None)
    return codes, pd.Index(labels[present], name=what if name is None else name)


def _held_folds(fitted: Fitted, fold: np.ndarray, folds: int) -> LeftOut:
    """All folds with the variance parameters of the fit."""
    fit = held_at(fitted)
    if folds == len(fold):
        return each_row(fit)
    parts = _parts(fitted)
    out = LeftOut(np.full(len(fold), np.nan), np.full(len(fold), np.nan))
    order = np.argsort(fold, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(fold, minlength=folds))[:-1]):
        _put(out, rows, left_out(fit, rows, parts))
    return out


def _refitted_folds(fitted: Fitted, fold: np.ndarray, folds: int) -> tuple[LeftOut, list[str]]:
    """All folds with the variance parameters of the fit without the fold, and how that fit ended."""
    data = fitted.data
    if by_mean(data):
        raise ValueError(
            "the residual variance is a function of the fitted values, which differ from fold to fold: pass "
            "fixed_variances=True"
        )
    require_memory(f"responses without each of {folds:,} folds", 2, len(fold), folds)
    y = np.where(fold[:, None] == np.arange(folds), np.nan, fitted.y[:, None])
    fits = fit_many(data, y, fitted.reml)
    parts = _parts(fitted)
    out = LeftOut(np.full(len(fold), np.nan), np.full(len(fold), np.nan))
    status = []
    for k, (psi, end, reason) in enumerate(zip(fits.estimate.psi, fits.status, fits.reasons, strict=True)):
        status.append("; ".join(text for text in (end, reason) if text))
        if np.all(np.isfinite(psi)) and psi[-1] > 0:
            rows = np.flatnonzero(fold == k)
            _put(out, rows, left_out(held(data.design, fitted.y, psi), rows, parts))
    return out, status


def _put(out: LeftOut, rows: np.ndarray, found: LeftOut) -> None:
    out.error[rows], out.variance[rows] = found.error, found.variance


def _parts(fitted: Fitted) -> np.ndarray:
    """Labels (n,) that differ between rows which are independent."""
    parts = np.empty(fitted.nobs, int)
    for k, rows in enumerate(independent_blocks(fitted.data.design)):
        parts[rows] = k
    return parts


def _means_of_others(y: np.ndarray, fold: np.ndarray, folds: int) -> np.ndarray:
    """The mean (n,) of the rows in other folds than each row's own."""
    count, total = np.bincount(fold, minlength=folds), np.bincount(fold, y - y.mean(), minlength=folds)
    return y.mean() + ((total.sum() - total) / (len(y) - count))[fold]
