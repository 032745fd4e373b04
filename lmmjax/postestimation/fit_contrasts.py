"""Contrasts of the coefficients of a fit, each by itself, with simultaneous limits and p-values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, require_level
from lmmjax.postestimation.adjust import Family
from lmmjax.postestimation.contrasts import contrast_matrix
from lmmjax.postestimation.estimability import lost_contrasts
from lmmjax.postestimation.fixed_tests import covariance_for, ddf_method, notes, t_table
from lmmjax.postestimation.robust import robust_choice


def contrast_frame(
    fitted: Fitted,
    contrasts: Any,
    adjust: str,
    ddf: str,
    level: float,
    robust: str | None = None,
    cluster: Any = None,
) -> pd.DataFrame:
    """See `Fit.contrast`."""
    ddf, level = ddf_method(ddf), require_level(level)
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    rows, labels, _ = contrast_matrix(contrasts, fitted.data.x_names, fitted.data.frame.aliased)
    table = t_table(fitted, rows, np.zeros(len(rows)), ddf, chosen)
    lost = lost_contrasts(fitted.data, rows, labels)
    table = {name: np.where(lost, np.nan, column) for name, column in table.items()}

    def correlation() -> np.ndarray:
        cov = rows @ covariance_for(fitted, ddf, chosen) @ rows.T
        sd = np.sqrt(np.diagonal(cov))
        return cov / sd[:, None] / sd[None, :]

    family = Family(table["t"], table["df"], len(rows), correlation, pairwise=False)
    half = family.critical(adjust, level) * table["se"]
    table["p"] = family.p_values(adjust)
    table |= {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    columns = ("estimate", "se", "df", "lower", "upper", "t", "p")
    out = pd.DataFrame({name: table[name] for name in columns}, index=pd.Index(labels, name="contrast"))
    out.attrs.update(notes(fitted, ddf, chosen) | {"level": level, "adjust": adjust})
    return out
