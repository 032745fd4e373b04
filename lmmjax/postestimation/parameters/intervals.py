"""Wald intervals of the parameters of a fit."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lmmjax.fitted import Fitted
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.hypotheses.fixed_tests import coef_table
from lmmjax.postestimation.parameters.varcorr import sd_intervals


def wald_limits(
    fitted: Fitted, level: float, which: str, ddf: str, robust: str | None = None, cluster: Any = None
) -> pd.DataFrame:
    """Columns lower and upper, of sds and correlations first if `which` is "all"; see `Fit.conf_int`."""
    table = coef_table(fitted, ddf, robust, cluster)
    half = t_quantile(table["df"].to_numpy(), level) * table["se"]
    fixed = pd.DataFrame({"lower": table["estimate"] - half, "upper": table["estimate"] + half})
    fixed.attrs.update(table.attrs)
    if which == "fixed":
        return fixed
    return pd.concat([sd_intervals(fitted, level), fixed])
