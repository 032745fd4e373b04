"""Fits as plain frames, in broom's three shapes: a row a term, a row a fit, a row an observation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    Fitted,
    component_names,
    fitted_values,
    identified_population,
    identified_psi,
    identified_sds,
    residuals,
    scaled_residuals,
    sd_errors,
)
from lmmjax.postestimation.hypotheses.fixed_tests import coef_table

TIDY = ["effect", "group", "term", "estimate", "se", "df", "t", "p"]
GLANCE = ["nobs", "sigma", "llf", "deviance", "aic", "bic", "aicc", "reml", "converged", "is_singular"]


def tidy(fitted: Fitted) -> pd.DataFrame:
    """See `Fit.tidy`."""
    fixed = coef_table(fitted, "satterthwaite").rename_axis("term").reset_index()
    fixed.insert(0, "effect", "fixed")
    rows, structure = fitted.data.components, fitted.data.design.structure
    random = pd.DataFrame(
        {
            "effect": "random",
            "group": [row.group for row in rows],
            "term": [name.split("|")[0] for name in component_names(rows)],
            "estimate": identified_sds(structure, rows, fitted.estimate),
            "se": sd_errors(structure, rows, fitted.estimate),
        }
    )
    return pd.concat([fixed, random], ignore_index=True).reindex(columns=TIDY)


def glance(fitted: Fitted) -> pd.DataFrame:
    """See `Fit.glance`."""
    estimate = fitted.estimate
    own = {"sigma": float(np.sqrt(identified_psi(estimate)[-1])), "is_singular": bool(estimate.singular)}
    return pd.DataFrame([{name: own[name] if name in own else getattr(fitted, name) for name in GLANCE}])


def augment(fitted: Fitted) -> pd.DataFrame:
    """See `Fit.augment`."""
    columns = {
        fitted.response or "y": np.asarray(fitted.y),
        "fitted": fitted_values(fitted),
        "fixed": identified_population(fitted),
        "resid": residuals(fitted),
        "scaled_resid": scaled_residuals(fitted),
    }
    return pd.DataFrame(columns, index=fitted.data.frame.index)
