"""t tests of the fixed effects of many responses, and q-values over the responses."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtr

from lmmjax.batch.ddf import single_tests
from lmmjax.fitted import FittedMany, by_reml_many, kept
from lmmjax.postestimation.fixed_tests import ADJUSTED, ddf_method

TABLE = ["estimate", "se", "df", "t", "p", "q"]


def adjust(p: np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg q-values of p (T, ...), each column by itself; missing values stay out of it.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎ the q-value of p₍ᵢ₎ is min over j ≥ i of m p₍ⱼ₎/j, at most 1.

    Source: Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    p = np.asarray(p, float)
    order = np.argsort(p, axis=0)
    count = np.sum(~np.isnan(p), axis=0)
    rank = np.arange(1, len(p) + 1).reshape((-1,) + (1,) * (p.ndim - 1))
    # missing values sort last: infinity there leaves the running minimum alone
    raised = np.nan_to_num(np.take_along_axis(p, order, axis=0) * count / rank, nan=np.inf)
    least = np.minimum(np.minimum.accumulate(raised[::-1], axis=0)[::-1], 1.0)
    q = np.empty_like(p)
    np.put_along_axis(q, order, least, axis=0)
    return np.where(np.isnan(p), np.nan, q)


def t_tests(fits: FittedMany, rows: np.ndarray, ddf: str) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for the rows (k, p) of L, each (T, k); `ddf` as in `Fit.coef_table`."""
    ddf = ddf_method(ddf)
    source = by_reml_many(fits) if ddf in ADJUSTED else fits
    estimate = source.estimate
    value = estimate.beta @ rows.T
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(np.einsum("kp,tpr,kr->tk", rows, estimate.cov_beta, rows))
        df = np.where(np.isnan(se), np.nan, np.inf)
        if ddf != "normal":
            df, own = single_tests(
                fits.data.maker,
                fits.y,
                estimate.psi,
                estimate.cov_relative,
                rows,
                reml=source.reml,
                method=ddf,
                weights=fits.weights,
            )
            se = own if ddf in ADJUSTED else se
        t = value / se
    p = 2.0 * stdtr(df, -np.abs(t))
    return dict(zip(TABLE, (value, se, df, t, p, adjust(p)), strict=True))


def fixed_t_tests(fits: FittedMany, ddf: str) -> dict[str, np.ndarray]:
    """`t_tests` of the fixed effects, (T, p) each."""
    return _fixed(fits, ddf_method(ddf))


@kept
def _fixed(fits: FittedMany, ddf: str) -> dict[str, np.ndarray]:
    return t_tests(fits, np.eye(fits.data.design.p), ddf)
