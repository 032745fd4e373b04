"""Contrasts of the coefficients of a fit, and hypotheses about them, each by itself, with limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, require_level
from lmmjax.postestimation.hypotheses.adjust import Family
from lmmjax.postestimation.hypotheses.contrasts import contrast_matrix, hypothesis, written
from lmmjax.postestimation.hypotheses.estimability import lost_contrasts
from lmmjax.postestimation.hypotheses.fixed_tests import covariance_for, ddf_method, notes, t_table
from lmmjax.postestimation.hypotheses.robust import Robust, robust_choice


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
    index = pd.Index(labels, name="contrast")
    return _table(fitted, rows, np.zeros(len(rows)), index, adjust, ddf, level, chosen)


def t_tests_frame(
    fitted: Fitted,
    l: Any,
    ddf: str,
    rhs: Any,
    level: float,
    robust: str | None,
    cluster: Any,
) -> pd.DataFrame:
    """See `Fit.t_test`."""
    ddf, level, names = ddf_method(ddf), require_level(level), fitted.data.x_names
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    rows, right, _ = hypothesis(l, names, rhs, fitted.data.frame.aliased)
    # no −0
    index = pd.Index([f"{written(row, names)} = {r + 0.0:g}" for row, r in zip(rows, right, strict=True)])
    return _table(fitted, rows, right, index, "none", ddf, level, chosen)


def _table(
    fitted: Fitted,
    rows: np.ndarray,
    rhs: np.ndarray,
    index: pd.Index,
    adjust: str,
    ddf: str,
    level: float,
    chosen: Robust | None,
) -> pd.DataFrame:
    """Estimates of Lβ, rows (k, p), with limits, and tests that each is its right-hand side (k,)."""
    table = t_table(fitted, rows, rhs, ddf, chosen)
    lost = lost_contrasts(fitted.data, rows, list(index))
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
    out = pd.DataFrame({name: table[name] for name in columns}, index=index)
    out.attrs.update(notes(fitted, ddf, chosen) | {"level": level, "adjust": adjust})
    return out
