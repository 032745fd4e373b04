"""From a model and many responses to `FittedMany`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.batch import estimate_many
from lmmjax.fitted.checks import require_choice, require_switch
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.kept import kept
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.fitted.records import Fitted, FittedMany
from lmmjax.fitted.responses import beside, response_matrix

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
) -> FittedMany:
    """Fit a model to every column of `responses`; see `Model.fit_batch`."""
    require_choice("dtype", dtype, DTYPES)
    reml = require_switch("reml", reml)
    if by_mean(data):
        raise ValueError("a variance function of the fitted values differs between responses: fit one by one")
    names, values = response_matrix(data, responses)
    own = None if weights is None else beside(data, weights, names, "weights")
    if own is not None and not np.all(own >= 0):
        raise ValueError("weights must be at least zero, and not missing")
    if offset is not None:
        values = values - beside(data, offset, names, "offset")
    estimate = estimate_many(data.maker, values, reml, max_iter, own, dtype)
    return FittedMany(data, names, values, estimate, reml, own)


def fit_draws(data: ModelData, y: np.ndarray, reml: bool, name: str) -> FittedMany:
    """Fits of responses y (n, T) that were drawn on the rows of the model; `name` is that of their index."""
    names = pd.RangeIndex(y.shape[1], name=name)
    return FittedMany(data, names, y, estimate_many(data.maker, y, reml), reml)


@kept
def by_reml_many(fits: FittedMany) -> FittedMany:
    """The same responses fitted by REML: themselves, if they are."""
    if fits.reml:
        return fits
    estimate = estimate_many(fits.data.maker, fits.y, weights=fits.weights)
    return FittedMany(fits.data, fits.names, fits.y, estimate, True, fits.weights)


def some_of_many(fits: FittedMany, at: np.ndarray) -> FittedMany:
    """The fits of the responses at positions `at`, without refitting."""
    weights = None if fits.weights is None else fits.weights[:, at]
    estimate = jax.tree.map(lambda a: np.asarray(a)[at], fits.estimate)
    return dataclasses.replace(
        fits, names=fits.names[at], y=fits.y[:, at], estimate=estimate, weights=weights, cache={}
    )


def one_of_many(fits: FittedMany, k: int) -> Fitted:
    """The fit of response k on the rows that it has, without refitting."""
    estimate = jax.tree.map(lambda a: a[k], fits.estimate)
    y, w = fits.y[:, k], None if fits.weights is None else fits.weights[:, k]
    keep = np.isfinite(y) if w is None else np.isfinite(y) & (w > 0)
    name = str(fits.names[k])
    if w is None and (keep.all() or not keep.any()):
        return Fitted(fits.data, y, estimate, fits.reml, name)
    return Fitted(fits.data.subset(keep, w), y[keep], estimate, fits.reml, name)
