"""Fits whose residual variance is a function of the fitted values, which change with it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lmmjax.model import Model
    from lmmjax.results import Fit

MOST = 100
SETTLED = 1e-10
"""Relative change of the fitted values at which they are taken as settled."""


def by_mean(model: Model) -> bool:
    """Whether a variance function is of the fitted values."""
    own = model.design.residual
    return own is not None and any(v.source is None for v in own.structure.residual.variances)


def fit_by_mean(model: Model, y: np.ndarray, reml: bool, **options: Any) -> Fit:
    """Fit with the fitted values of the fit before as covariate until they settle; first, of equal variances.

    The likelihood is that of the variances at the last fitted values, as in nlme (Pinheiro & Bates 2000,
    section 5.2, doi:10.1007/b98882).
    """
    plain = type(model)(dataclasses.replace(model.frame, residual=None), backend=model._backend)
    values = plain.fit_response(y, reml).fittedvalues.to_numpy()
    for _ in range(MOST):
        fit = _with_covariate(model, values).fit_response(y, reml, settled=True, **options)
        before, values = values, fit.fittedvalues.to_numpy()
        if np.max(np.abs(values - before)) <= SETTLED * np.max(np.abs(values)):
            return fit
        options["start"] = fit.theta if np.all(np.isfinite(fit.theta)) else None
    raise ValueError(
        f"the fitted values that the residual variance depends on have not settled in {MOST} fits: "
        "take a covariate of the data instead"
    )


def _with_covariate(model: Model, values: np.ndarray) -> Model:
    """The model with |fitted values| as the covariate of its variance functions of the mean."""
    columns = model.frame.residual
    assert columns is not None
    own = columns.design
    assert own is not None
    covariates = tuple(
        values if v.source is None else c
        for v, c in zip(own.structure.residual.variances, own.covariates, strict=True)
    )
    design = dataclasses.replace(own, covariates=covariates)
    frame = dataclasses.replace(model.frame, residual=dataclasses.replace(columns, design=design))
    return type(model)(frame, backend=model._backend)
