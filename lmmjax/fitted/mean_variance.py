"""Fits whose residual variance is a function of the fitted values, which change with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.fitted.data import ModelData
from lmmjax.fitted.multistart import multistart
from lmmjax.fitted.records import Fitted
from lmmjax.fitted.values import fitted_values

MOST = 100
SETTLED = 1e-10
"""Relative change of the fitted values at which they are taken as settled."""


def by_mean(data: ModelData) -> bool:
    """Whether a variance function is of the fitted values."""
    own = data.design.residual
    return own is not None and any(v.source is None for v in own.structure.residual.variances)


def fit_by_mean(data: ModelData, y: np.ndarray, reml: bool, **options: Any) -> Fitted:
    """Fit with the fitted values of the fit before as covariate until they settle; first, of equal variances.

    The likelihood is that of the variances at the last fitted values, as in nlme (Pinheiro & Bates 2000,
    section 5.2, doi:10.1007/b98882).
    """
    plain = data.with_frame(dataclasses.replace(data.frame, residual=None))
    values = fitted_values(multistart(plain, y, reml))
    for _ in range(MOST):
        found = multistart(with_mean(data, values), y, reml, **options)
        before, values = values, fitted_values(found)
        if np.max(np.abs(values - before)) <= SETTLED * np.max(np.abs(values)):
            return found
        theta = found.estimate.theta
        options["start"] = theta if np.all(np.isfinite(theta)) else None
    raise ValueError(
        f"the fitted values that the residual variance depends on have not settled in {MOST} fits: "
        "take a covariate of the data instead"
    )


def with_mean(data: ModelData, values: np.ndarray) -> ModelData:
    """The model with |fitted values| as the covariate of its variance functions of the mean."""
    columns = data.frame.residual
    assert columns is not None
    own = columns.design
    assert own is not None
    variances = own.structure.residual.variances
    pairs = zip(variances, own.covariates, strict=False)
    of_variances = tuple(values if v.source is None else c for v, c in pairs)
    covariates = of_variances + own.covariates[len(variances) :]
    design = dataclasses.replace(own, covariates=covariates)
    return data.with_frame(
        dataclasses.replace(data.frame, residual=dataclasses.replace(columns, design=design))
    )
