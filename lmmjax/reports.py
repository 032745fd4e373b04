"""Fits as plain frames, in broom's three shapes: a row a term, a row a fit, a row an observation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmmjax import varcomp

if TYPE_CHECKING:
    from lmmjax.results import Fit

TIDY = ["effect", "group", "term", "estimate", "se", "df", "t", "p"]
GLANCE = ["nobs", "sigma", "llf", "deviance", "aic", "bic", "aicc", "reml", "converged", "is_singular"]


def tidy(fit: Fit) -> pd.DataFrame:
    """See `Fit.tidy`."""
    fixed = fit.coef_table().rename_axis("term").reset_index()
    fixed.insert(0, "effect", "fixed")
    rows, psi = fit.model.components, fit.estimate.psi
    values, jacobian = varcomp.sd_scale(psi, rows)
    random = pd.DataFrame(
        {
            "effect": "random",
            "group": [row.group for row in rows],
            "term": [name.split("|")[0] for name in varcomp.names(rows)],
            "estimate": values,
            "se": varcomp.delta_se(jacobian, fit.estimate.cov_psi),
        }
    )
    return pd.concat([fixed, random], ignore_index=True).reindex(columns=TIDY)


def glance(fit: Fit) -> pd.DataFrame:
    """See `Fit.glance`."""
    return pd.DataFrame([{name: getattr(fit, name) for name in GLANCE}])


def augment(fit: Fit) -> pd.DataFrame:
    """See `Fit.augment`."""
    columns = {
        fit.response or "y": np.asarray(fit.y),
        "fitted": fit.fittedvalues,
        "fixed": fit.predict(re="none"),
        "resid": fit.resid,
        "scaled_resid": fit.scaled_resid,
    }
    return pd.DataFrame(columns, index=fit.model.frame.index)
