"""A fit with another formula, or on other data."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.fitted import Fitted, ModelView, announce, fit_one, require_switch


def updated(
    model: ModelView, fitted: Fitted, formula: str | None, reml: bool | None, changes: dict[str, Any]
) -> Any:
    """See `Fit.update`."""
    frame = fitted.data.frame
    reml = fitted.reml if reml is None else require_switch("reml", reml)
    made = model.update(formula, **changes)
    own = frame.y is None or not np.array_equal(fitted.y, frame.y)
    if not own or (made.data.frame.response != frame.response and made.data.frame.y is not None):
        again = fit_one(made.data, made.data.response(), reml)
    elif "data" in changes or not np.array_equal(made.data.frame.rows, frame.rows):
        raise ValueError(
            "the fit is of a response that is not in its formula, and the updated model has other rows: use "
            "fit.model.update(...).fit_response(y) with a response on those"
        )
    else:
        again = fit_one(made.data, fitted.y, reml, name=fitted.response)
    announce(again)
    return made._wrap(again)
