"""Tests of residuals against what a model says of them: spread, order, outliers, normality."""

from __future__ import annotations

import numpy as np
from scipy import stats

from lmmjax.inference.diagnostics.deletion import Held

SHAPIRO = 5000
"""Values up to which the p-value of Shapiro & Wilk's test is good."""


def spread(residuals: np.ndarray, along: np.ndarray) -> tuple[float, float]:
    """Ratio of the sds of residuals (n,) in the upper and lower third of `along` (n,), and a p-value.

    The test is Koenker's form of Breusch & Pagan's: n R² of the squared residuals on `along` is χ²₁.

    Source: Koenker (1981), doi:10.1016/0304-4076(81)90062-2.
    """
    square = residuals**2 - np.mean(residuals**2)
    centred = along - along.mean()
    sizes = np.sum(centred**2) * np.sum(square**2)
    if not sizes > 0:
        return 1.0, 1.0
    p = float(stats.chi2.sf(len(square) * (centred @ square) ** 2 / sizes, 1))
    low, high = np.quantile(along, [1 / 3, 2 / 3])
    below, above = np.std(residuals[along <= low]), np.std(residuals[along >= high])
    return float(above / below) if below > 0 else np.inf, p


def spread_between(residuals: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Ratio of the largest sd to the least over levels of five rows and more, and Brown & Forsythe's p-value.

    Source: Brown & Forsythe (1974), doi:10.1080/01621459.1974.10482955.
    """
    parts = [residuals[codes == level] for level in np.unique(codes)]
    parts = [part for part in parts if len(part) >= 5]
    sds = [float(np.std(part, ddof=1)) for part in parts]
    if len(parts) < 2 or min(sds) == 0:
        return 1.0, 1.0
    return max(sds) / min(sds), float(stats.levene(*parts, center="median").pvalue)


def serial(fit: Held, codes: np.ndarray) -> tuple[float, float]:
    """Correlation of errors of neighbouring rows in a group of codes (n,), and a two-sided p-value.

    One scoring step from zero: with u = Py, E u_i u_j = P_ij, Var u_i u_j = P_ii P_jj + P_ij², of pairs that
    are taken for uncorrelated. The estimate is relative to the sds of the errors.
    """
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    i, j = order[:-1][same], order[1:][same]
    if len(i) < 10:
        return 0.0, 1.0
    at = fit.at
    between = np.asarray(at.residual[i, j]).ravel() - at.rows(at.f[i], at.f[j])
    between = between - np.einsum("kp,kp->k", fit.g[i] @ fit.phi, fit.g[j])
    own = fit.row_precision()
    # the covariance is ρ r_i r_j, so that every pair weighs as much as its errors' sds
    weight = np.sqrt(at.variance[i] * at.variance[j])
    score = np.nansum(weight * (fit.py[i] * fit.py[j] - between))
    information = np.nansum(weight**2 * (own[i] * own[j] + between**2))
    z = score / np.sqrt(information)
    return float(score / information), float(2.0 * stats.norm.sf(abs(z)))


def outliers(t: np.ndarray, df: float) -> np.ndarray:
    """Bonferroni's p-values (n,) of deleted residuals; NaN where there is none."""
    known = np.isfinite(t)
    p = 2.0 * stats.t.sf(np.abs(t), max(df, 1.0))
    return np.where(known, np.minimum(p * known.sum(), 1.0), np.nan)


def normality(values: np.ndarray) -> tuple[float, float, float]:
    """Skewness, excess kurtosis, and the p-value of Shapiro & Wilk's test, of d'Agostino's for many.

    Source: Royston (1995), doi:10.2307/2986146; d'Agostino & Pearson (1973), doi:10.1093/biomet/60.3.613.
    """
    values = values[np.isfinite(values)]
    if len(values) < 8 or not np.ptp(values) > 0:
        return 0.0, 0.0, 1.0
    test = stats.shapiro(values) if len(values) <= SHAPIRO else stats.normaltest(values)
    return float(stats.skew(values)), float(stats.kurtosis(values)), float(test.pvalue)
