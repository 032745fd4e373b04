"""From a model and many responses to `FittedMany`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.core import Tracer

from lmmjax.arrays.device_columns import GIVEN_AWAY, DeviceColumns, on_device
from lmmjax.arrays.sparse_columns import Columns, pieces
from lmmjax.batch import Outcome, Starts, estimate_many
from lmmjax.batch.device import placed
from lmmjax.fitted.checks import beyond, require_choice, require_evaluations, require_switch
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.kept import kept
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.fitted.records import Fitted, FittedMany
from lmmjax.fitted.responses import beside, response_matrix
from lmmjax.optimize import Status

DTYPES = ("float64", "float32")


def fit_many(
    data: ModelData,
    responses: Any,
    reml: bool = True,
    *,
    weights: Any = None,
    offset: Any = None,
    max_iter: int = 100,
    dtype: str = "float64",
    starts: Any = None,
) -> FittedMany:
    """Fit a model to every column of `responses`; see `Model.fit_batch`."""
    require_choice("dtype", dtype, DTYPES)
    reml = require_switch("reml", reml)
    if by_mean(data):
        raise ValueError("a variance function of the fitted values differs between responses: fit one by one")
    beside_y = weights is not None or offset is not None
    responses = _left_there(responses) if offset is None else responses
    there = isinstance(responses, DeviceColumns)
    names, values = response_matrix(data, responses, sparse=there or not beside_y)
    own = None if weights is None else beside(data, weights, names, "weights")
    if own is not None and not np.all(own >= 0):
        row, k = np.argwhere(~(own >= 0))[0]
        raise ValueError(
            f"weights must be at least 0 and not missing: {own[row, k]:g} for response {names[k]!r} in row "
            f"{data.frame.index[row]}; 0 leaves a value out"
        )
    if offset is not None:
        values = np.asarray(values) - beside(data, offset, names, "offset")
    begin = descent_starts(data, starts)
    found = estimate_many(data.maker, values, reml, require_evaluations(max_iter), own, dtype, begin)
    return record_of(data, names, values, reml, own, _without_beyond(values, found))


def _left_there(responses: Any) -> Any:
    """Arrays that lie on a device as columns that stay there, where batches are fitted on devices."""
    if isinstance(responses, Tracer):
        raise ValueError(
            "responses are traced, by jit, grad or vmap: there take estimate(model.problem(y)) of each"
        )
    if not on_device(responses):
        return responses
    if responses.is_deleted():
        raise ValueError(GIVEN_AWAY)
    return responses if placed() is None else DeviceColumns(responses)


def _without_beyond(values: Columns, found: Outcome) -> Outcome:
    """Responses of which nothing seems to be left because their squares are no doubles are not finite."""
    perfect = np.asarray(found.estimate.status) == Status.PERFECT_FIT
    if not perfect.any():
        return found
    far, where = np.zeros(len(perfect), bool), np.flatnonzero(perfect)
    for part, y in pieces(values[:, where]):
        far[where[part]] = beyond(np.max(np.abs(y), axis=0, initial=0.0, where=~np.isnan(y)))
    return found.without(far, Status.NOT_FINITE, "not finite: its values have squares that are no doubles")


def record_of(
    data: ModelData, names: pd.Index, y: Any, reml: bool, weights: np.ndarray | None, found: Outcome
) -> FittedMany:
    """The record of responses y (n, T), with the fixed effects that they do not determine named."""
    fits = FittedMany(
        data, names, y, found.estimate, reml, found.reasons, found.optima, weights, found.starts
    )
    for k in np.flatnonzero(~fits.kept.all(axis=1)):
        lost = ", ".join(name for name, kept in zip(data.x_names, fits.kept[k], strict=True) if not kept)
        text = f"its rows do not determine {lost}: aliased with other columns, or of levels that it lacks"
        found.reasons[k] = "; ".join(t for t in (found.reasons[k], text) if t)
    return fits


def descent_starts(data: ModelData, starts: Any) -> Starts:
    """What `starts` of `Model.fit_batch` says; ValueError unless it is None, a number ≥ 1, or θ (k, m)."""
    if starts is None:
        return Starts()
    m = data.design.structure.n_params
    if isinstance(starts, int | np.integer) and not isinstance(starts, bool):
        if starts < 1:
            raise ValueError(f"starts must be at least 1, not {starts}")
        return Starts(int(starts))
    given = np.asarray(starts, dtype=float)
    given = given[None] if given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != m or not len(given) or np.isinf(given).any():
        raise ValueError(
            f"starts have shape {np.shape(starts)}: pass how many descents to make, or θ for each, (k, {m})"
        )
    return Starts(given=given)


def fit_draws(data: ModelData, y: np.ndarray, reml: bool, name: str) -> FittedMany:
    """Fits of responses y (n, T) that were drawn on the rows of the model; `name` is that of their index."""
    names = pd.RangeIndex(y.shape[1], name=name)
    return record_of(data, names, y, reml, None, estimate_many(data.maker, y, reml, starts=Starts(1)))


@kept
def by_reml_many(fits: FittedMany) -> FittedMany:
    """The same responses fitted by REML: themselves, if they are."""
    if fits.reml:
        return fits
    found = estimate_many(fits.data.maker, fits.y, weights=fits.weights)
    return record_of(fits.data, fits.names, fits.y, True, fits.weights, found)


def some_of_many(fits: FittedMany, at: np.ndarray) -> FittedMany:
    """The fits of the responses at positions `at`, without refitting."""
    weights = None if fits.weights is None else fits.weights[:, at]
    estimate = jax.tree.map(lambda a: np.asarray(a)[at], fits.estimate)
    return dataclasses.replace(
        fits,
        names=fits.names[at],
        y=fits.y[:, at],
        estimate=estimate,
        weights=weights,
        reasons=fits.reasons[at],
        n_optima=fits.n_optima[at],
        n_starts=fits.n_starts[at],
        cache={},
    )


def one_of_many(fits: FittedMany, k: int) -> Fitted:
    """The fit of response k on the rows that it has, without refitting."""
    estimate, columns = jax.tree.map(lambda a: a[k], fits.estimate), np.flatnonzero(fits.kept[k])
    estimate = dataclasses.replace(
        estimate, beta=estimate.beta[columns], cov_beta=estimate.cov_beta[np.ix_(columns, columns)]
    )
    y, w = fits.y[:, k], None if fits.weights is None else fits.weights[:, k]
    keep = np.isfinite(y) if w is None else np.isfinite(y) & (w > 0)
    name = str(fits.names[k])
    if (w is None and keep.all()) or not np.isfinite(estimate.psi).all():
        return Fitted(fits.data, y, estimate, fits.reml, name)
    return Fitted(fits.data.subset(keep, w, columns), y[keep], estimate, fits.reml, name)
