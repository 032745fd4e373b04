"""From a model and a response to `Fitted`."""

from __future__ import annotations

from typing import Any

from lmmjax.fitted.checks import require_switch
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.kept import kept
from lmmjax.fitted.mean_variance import by_mean, fit_by_mean
from lmmjax.fitted.multistart import multistart
from lmmjax.fitted.records import Fitted
from lmmjax.fitted.responses import response_vector


def fit_one(data: ModelData, y: Any, reml: bool = True, **options: Any) -> Fitted:
    """Fit a model to a response y (n,) on its rows, which it is matched with by its labels.

    Parameters
    ----------
    options : method, start and max_iter as for `Model.fit`; name, of the response, that of the formula if
        None.

    Raises
    ------
    ValueError : an unknown method, or a response or start that does not match the model or is not finite.
    """
    reml = require_switch("reml", reml)
    fit = fit_by_mean if by_mean(data) else multistart
    return fit(data, response_vector(data, y), reml, **options)


def refitted(fitted: Fitted, y: Any = None, reml: bool | None = None) -> Fitted:
    """The same model fitted to another response (n,), or by another criterion."""
    return fit_one(
        fitted.data,
        fitted.y if y is None else y,
        fitted.reml if reml is None else require_switch("reml", reml),
    )


@kept
def by_criterion(fitted: Fitted, reml: bool) -> Fitted:
    """The fit by REML or by maximum likelihood: itself, if it is."""
    return fitted if fitted.reml == reml else refitted(fitted, reml=reml)
