"""Predictions for new rows: fixed part, offset and the random terms that are asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.core.residuals import extrapolated
from lmmjax.fitted import Fitted, random_part, require_choice, require_switch, residuals
from lmmjax.formula import new_frame, wanted_terms
from lmmjax.postestimation.estimability import warn_of_rows


def predict_new(
    fitted: Fitted, newdata: Any, re: Any, new_levels: str, offset: Any, kriging: bool
) -> pd.Series:
    """See `Fit.predict`."""
    require_choice("new_levels", new_levels, ("error", "population"))
    require_switch("kriging", kriging)
    wanted = _wanted(re)
    frame, design, places = fitted.data.frame, fitted.data.design, None
    if kriging and (design.residual is None or newdata is None):
        raise ValueError("kriging is for new rows of a model with a residual structure: pass newdata")
    if newdata is None:
        if offset is not None:
            raise ValueError("offset is for new rows: pass newdata with it")
        values, known = frame.x @ fitted.estimate.beta, frame.offset
        rows = [(term.z, term.codes, term.text) for term in wanted_terms(frame.random, wanted)]
        index = frame.index
    else:
        new = new_frame(frame, newdata, groups=wanted, offset=offset, residual=kriging)
        places = new.places
        warn_of_rows(fitted.data, new)
        for term in new.random:
            if term.unseen and new_levels == "error":
                shown = ", ".join(map(str, term.unseen[:5])) + (", …" if len(term.unseen) > 5 else "")
                raise ValueError(
                    f"new levels of {term.group!r}: {shown}; pass new_levels='population' to predict "
                    "them with b = 0"
                )
        values, known, index = new.x @ fitted.estimate.beta, new.offset, new.index
        rows = [(term.z, term.codes, term.text) for term in new.random]
    if known is not None:
        values = values + known
    number = {term.text: k for k, term in enumerate(frame.random)}
    terms = [(number[text], z, codes) for z, codes, text in rows]
    values = values + random_part(fitted, terms, len(values))
    if places is not None and design.residual is not None:
        # a variance that is a function of the mean is one of the predicted mean
        at = places.design
        variances = design.residual.structure.residual.variances
        pairs = zip(variances, at.covariates, strict=False)
        of_variances = tuple(values[places.rows] if v.source is None else c for v, c in pairs)
        covariates = of_variances + at.covariates[len(variances) :]
        at = dataclasses.replace(at, covariates=covariates)
        expected = extrapolated(design, fitted.estimate.psi, residuals(fitted), at)
        values[places.rows] += expected if places.weights is None else expected / np.sqrt(places.weights)
    return pd.Series(values, index=index, name="predicted")


def _wanted(re: Any) -> list[str] | None:
    if isinstance(re, str):
        return None if re == "all" else [] if re == "none" else [re]
    if not isinstance(re, list | tuple | set | frozenset):
        raise ValueError(f"re must be 'all', 'none' or a list of grouping factors, not {re!r}")
    return list(re)
