"""Tables of variance components."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import Component, component_names, sd_limits, sd_scale


def varcorr_table(rows: list[Component], psi: np.ndarray, cov: np.ndarray) -> pd.DataFrame:
    """Columns group, term1, term2, vcov, sdcor, se.

    The standard error is that of vcov; of other parameters, which have no vcov, of the parameter in sdcor.
    """
    values, _ = sd_scale(psi, rows)
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(cov))
    return pd.DataFrame(
        {
            "group": [row.group for row in rows],
            "term1": pd.Series([row.term1 for row in rows], dtype=object),
            "term2": pd.Series([row.term2 for row in rows], dtype=object),
            "vcov": np.where([row.kind == "parameter" for row in rows], np.nan, psi),
            "sdcor": values,
            "se": se,
        }
    )


def sd_intervals(rows: list[Component], psi: np.ndarray, cov: np.ndarray, level: float) -> pd.DataFrame:
    """The limits of one fit, rows as `component_names`."""
    lower, upper = sd_limits(rows, psi, cov, level)
    return pd.DataFrame({"lower": lower, "upper": upper}, index=component_names(rows))
