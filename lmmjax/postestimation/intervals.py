"""Wald intervals of the parameters of a fit."""

from __future__ import annotations

import pandas as pd
from scipy.special import ndtri, stdtrit

from lmmjax.fitted import Fitted
from lmmjax.postestimation.fixed_tests import coef_table
from lmmjax.postestimation.varcorr import sd_intervals


def wald_limits(fitted: Fitted, level: float, which: str, ddf: str) -> pd.DataFrame:
    """Columns lower and upper, of sds and correlations first if `which` is "all"; see `Fit.conf_int`."""
    table, estimate = coef_table(fitted, ddf), fitted.estimate
    quantile = ndtri(0.5 + level / 2) if ddf == "normal" else stdtrit(table["df"], 0.5 + level / 2)
    half = quantile * table["se"]
    # the table by Kenward & Roger of a fit by maximum likelihood has the estimates of REML
    beta = pd.Series(estimate.beta, index=table.index)
    fixed = pd.DataFrame({"lower": beta - half, "upper": beta + half})
    if which == "fixed":
        return fixed
    random = sd_intervals(fitted.data.components, estimate.psi, estimate.cov_psi, level)
    return pd.concat([random, fixed])
