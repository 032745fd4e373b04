"""t tests of the fixed effects of many responses, and q-values over the responses."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import stdtr

from lmmjax.batch.ddf import Responses, single_tests
from lmmjax.design import aliases
from lmmjax.fitted import FittedMany, by_reml_many, covariances_many, kept, open_effects_many
from lmmjax.postestimation.hypotheses.batch_robust import robust_of_many
from lmmjax.postestimation.hypotheses.fixed_tests import ADJUSTED, ddf_method
from lmmjax.postestimation.hypotheses.robust import Robust, robust_choice

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


def t_tests(
    fits: FittedMany,
    rows: np.ndarray,
    ddf: str,
    estimable: np.ndarray | None = None,
    robust: Robust | None = None,
) -> dict[str, np.ndarray]:
    """Columns of `TABLE` for the rows (k, p) of L, each (T, k); `ddf` as in `Fit.coef_table`.

    Parameters
    ----------
    estimable : (T, k) which to report; by default those that have no part of what a response leaves out.
    robust : the covariance, in place of the model's.
    """
    ddf = ddf_method(ddf)
    source = by_reml_many(fits) if ddf in ADJUSTED else fits
    plain = ~np.any(~source.kept[:, None, :] & (rows != 0), axis=2)
    reported = plain if estimable is None else estimable
    value, variance = combinations(source, rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(np.where(reported, variance, np.nan))
        value = np.where(reported, value, np.nan)
        se = np.where(np.isnan(value), np.nan, se)
        df = np.where(np.isnan(se), np.nan, np.inf)
        if robust is not None:
            cov, own = robust_of_many(fits, robust, rows)
            se = np.where(np.isnan(se), np.nan, np.sqrt(np.diagonal(cov, axis1=1, axis2=2)))
            df = np.where(np.isnan(se), np.nan, df if ddf == "normal" else own)
        elif ddf != "normal":
            df, own = single_tests(responses_of(source), rows, ddf)
            own, df = np.where(np.isnan(se), np.nan, own), np.where(np.isnan(se), np.nan, df)
            se = own if ddf in ADJUSTED else se
        t = value / se
    p = 2.0 * stdtr(df, -np.abs(t))
    return dict(zip(TABLE, (value, se, df, t, p, adjust(p)), strict=True))


def responses_of(fits: FittedMany) -> Responses:
    """The responses with what tests of them need."""
    estimate = fits.estimate
    return Responses(
        fits.data.maker, fits.y, estimate.psi, estimate.cov_relative, fits.reml, fits.weights, fits.kept
    )


def combinations(fits: FittedMany, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lβ̂ (T, k) for the rows (k, p) of L and its variance, where coefficients that are not `kept` are zero.

    What moves along what the data leave open is missing.
    """
    beta, cov, kept = fits.estimate.beta, fits.estimate.cov_beta, fits.kept
    value, variance = _combined(beta, cov, kept, rows)
    for j, (phi, moves) in covariances_many(fits, rows).items():
        variance[j] = np.where(np.diagonal(moves), np.nan, np.einsum("kp,pr,kr->k", rows, phi, rows))
    gone = open_effects_many(fits, rows)
    return np.where(gone, np.nan, value), np.where(gone, np.nan, variance)


def _combined(
    beta: np.ndarray, cov: np.ndarray, kept: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not kept.all():
        beta = np.where(kept, beta, 0.0)
        cov = np.where(kept[:, :, None] & kept[:, None, :], cov, 0.0)
    if not np.isnan(cov).any():
        return beta @ rows.T, np.einsum("kp,tpr,kr->tk", rows, cov, rows)
    # a covariance that is missing spoils those that use it, and no others
    parts = [(row[row != 0], row != 0) for row in rows]
    variance = [np.einsum("p,tpr,r->t", row, cov[:, used][:, :, used], row) for row, used in parts]
    lost = np.isnan(beta).all(axis=1, keepdims=True) & (beta.shape[1] > 0)
    return beta @ rows.T, np.where(lost, np.nan, np.stack(variance, axis=1))


def estimable_combinations(fits: FittedMany, rows: np.ndarray) -> np.ndarray:
    """Which of the combinations, rows (k, p) of L, the rows of each response determine: (T, k)."""
    kept, out = fits.kept, np.ones((len(fits.names), len(rows)), bool)
    known: dict[bytes, np.ndarray] = {}
    for k in np.flatnonzero(~kept.all(axis=1)):
        present = np.isfinite(fits.y[:, k]) & (True if fits.weights is None else fits.weights[:, k] > 0)
        key = present.tobytes() + kept[k].tobytes()
        if key not in known:
            own = aliases(fits.data.design.x[present], np.flatnonzero(kept[k]))
            known[key] = np.ones(len(rows), bool) if own is None else own.estimable(rows)
        out[k] = known[key]
    return out


def fixed_t_tests(
    fits: FittedMany, ddf: str, robust: str | None = None, cluster: Any = None
) -> dict[str, np.ndarray]:
    """`t_tests` of the fixed effects, (T, p) each."""
    ddf = ddf_method(ddf)
    chosen = robust_choice(fits.data, robust, cluster, ddf)
    if chosen is None:
        return _fixed(fits, ddf)
    return _robust_fixed(fits, ddf, chosen.kind, chosen.cluster, chosen.codes.astype(np.int64).tobytes())


@kept
def _fixed(fits: FittedMany, ddf: str) -> dict[str, np.ndarray]:
    return t_tests(fits, np.eye(fits.data.design.p), ddf)


@kept
def _robust_fixed(fits: FittedMany, ddf: str, kind: str, cluster: str, codes: bytes) -> dict[str, np.ndarray]:
    robust = Robust(kind, cluster, np.frombuffer(codes, np.int64))
    return t_tests(fits, np.eye(fits.data.design.p), ddf, robust=robust)


def covariances(fits: FittedMany, robust: str | None, cluster: Any) -> np.ndarray:
    """See `BatchFit.cov_params`."""
    cov = fits.estimate.cov_beta
    chosen = robust_choice(fits.data, robust, cluster)
    if chosen is None:
        return cov
    return np.where(np.isnan(cov), np.nan, robust_of_many(fits, chosen, np.eye(fits.data.design.p))[0])
