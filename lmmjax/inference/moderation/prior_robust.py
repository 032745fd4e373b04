"""A prior of residual variances that outliers do not move, with fewer degrees of freedom for them.

The mean and variance of log s², winsorised, are matched with those of log F(d, d₀). A response whose variance
is larger than the largest of T draws should be has its d₀ reduced.

Source: Phipson et al. (2016), doi:10.1214/16-AOAS920.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, betaln, chdtri, fdtri, gammainc, gammaincc, gammaln, hyp2f1

from lmmjax.inference.lowess import lowess
from lmmjax.inference.moderation.prior_moments import prior_moments

TAILS = (0.05, 0.1)
"""Shares of the smallest and largest variances that are winsorised."""

FEWEST = 10
"""Responses with which tails can be told from the rest; fewer have the plain prior."""

SPAN = 0.4
"""Of the trend, by lowess."""


def robust_prior(
    x: np.ndarray, df: np.ndarray, covariate: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """d₀ (T,) and s₀² by winsorised moments of z = log s², and the responses that are outliers."""
    t = len(x)
    # few variances of next to nothing would have all of the variance of log s²
    plain_df, plain_s02 = prior_moments(np.maximum(x, 1e-5 * np.median(x)), df, covariate)
    if t < FEWEST:
        return np.full(t, plain_df), plain_s02
    d = float(df.max())
    x = _with_df(x, df, d, plain_df, plain_s02)
    z = np.log(x)
    trend = _trimmed_mean(z, TAILS[1]) if covariate is None else lowess(covariate, z, SPAN)
    low, high = np.quantile(z - trend, [TAILS[0], 1.0 - TAILS[1]])
    winsorised = np.clip(z - trend, low, high)
    mean, variance = winsorised.mean(), winsorised.var(ddof=1)
    expected = _winsorised_moments(d, np.inf)
    if variance <= expected[1]:
        # variances vary by no more than chance
        d0 = np.inf
    elif np.isinf(plain_df):
        return np.full(t, plain_df), plain_s02
    else:
        d0 = _match(d, variance, float(plain_df))
        expected = _winsorised_moments(d, d0)
    s02 = np.exp(trend + mean - expected[0])
    return _outliers(np.exp(z) / s02, d, d0, t * d), s02


def _with_df(x: np.ndarray, df: np.ndarray, most: float, d0: np.ndarray, s02: np.ndarray) -> np.ndarray:
    """Variances with the same tail probabilities under F(most, d₀) that they have under F(df, d₀)."""
    fewer = np.flatnonzero(df < most - 1e-14)
    if not len(fewer):
        return x
    x, scale = x.copy(), np.broadcast_to(s02, x.shape)[fewer]
    f, own, prior = x[fewer] / scale, df[fewer], np.full(len(fewer), d0)
    upper, lower = f_tail(f, own, prior), f_tail(1.0 / f, prior, own)
    up = upper < lower
    moved = np.where(up, _f_point(np.where(up, upper, -1.0), most, prior), 1.0)
    x[fewer] = scale * np.where(up, moved, 1.0 / _f_point(np.where(up, -1.0, lower), prior, most))
    return x


def f_tail(f: np.ndarray, d1: np.ndarray | float, d2: np.ndarray | float) -> np.ndarray:
    """log P(F(d1, d2) > f), to where the probability itself underflows; d1 or d2 may be infinite."""
    f, d1, d2 = np.broadcast_arrays(np.asarray(f, float), d1, d2)
    with np.errstate(all="ignore"):
        at = np.where(d1 * f > 0, d2 / (d2 + d1 * f), 1.0)
        a, b = d2 / 2, d1 / 2
        tail = np.log(betainc(a, b, at))
        # I_x(a, b) = x^a (1 − x)^b F(a + b, 1; a + 1; x)/(a B(a, b))
        far = (
            a * np.log(at)
            + b * np.log1p(-at)
            - np.log(a)
            - betaln(a, b)
            + np.log(hyp2f1(a + b, 1, a + 1, at))
        )
        tail = np.where(tail > -690.0, tail, far)
        chi = np.log(gammaincc(b, b * f))
        chi = np.where(chi > -690.0, chi, (b - 1) * np.log(b * f) - b * f - gammaln(b))
        tail = np.where(np.isinf(d2), chi, tail)
        return np.where(np.isinf(d1), np.log(gammainc(a, a / f)), tail)


def _f_point(log_tail: np.ndarray, d1: np.ndarray | float, d2: np.ndarray | float) -> np.ndarray:
    """f with f_tail(f, d1, d2) = log_tail, by bisection in log f."""
    low, high = np.full(np.shape(log_tail), -745.0), np.full(np.shape(log_tail), 709.0)
    for _ in range(64):
        middle = 0.5 * (low + high)
        above = f_tail(np.exp(middle), d1, d2) > log_tail
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.exp(0.5 * (low + high))


def _trimmed_mean(z: np.ndarray, share: float) -> np.ndarray:
    cut = int(len(z) * share)
    return np.asarray(np.sort(z)[cut : len(z) - cut].mean())


def _winsorised_moments(d1: float, d2: float) -> tuple[float, float]:
    """Mean and variance of log F(d1, d2) winsorised at `TAILS`, by Gauss–Legendre quadrature in F/(1 + F)."""
    tails = np.array([1.0 - TAILS[0], TAILS[1]])
    ends = chdtri(d1, tails) / d1 if np.isinf(d2) else fdtri(d1, d2, 1.0 - tails)
    share = ends / (1.0 + ends)
    nodes, weights = np.polynomial.legendre.leggauss(128)
    at = share[0] + (share[1] - share[0]) * (nodes + 1.0) / 2
    f = at / (1.0 - at)
    density = np.exp(_log_density(f, d1, d2)) / (1.0 - at) ** 2
    weights = weights / 2 * (share[1] - share[0]) * density
    z, outside = np.log(f), np.array(TAILS)
    mean = weights @ z + outside @ np.log(ends)
    return mean, weights @ (z - mean) ** 2 + outside @ (np.log(ends) - mean) ** 2


def _log_density(f: np.ndarray, d1: float, d2: float) -> np.ndarray:
    if np.isinf(d2):
        return d1 / 2 * np.log(d1 / 2) + (d1 / 2 - 1) * np.log(f) - d1 / 2 * f - gammaln(d1 / 2)
    a, b = d1 / 2, d2 / 2
    return a * np.log(d1 / d2) + (a - 1) * np.log(f) - (a + b) * np.log1p(d1 * f / d2) - betaln(a, b)


def _match(d1: float, variance: float, start: float) -> float:
    """d₀ ≥ start of which log F(d1, d₀), winsorised, has this variance; in d₀/(1 + d₀)."""
    from scipy.optimize import brentq

    def gap(share: float) -> float:
        d0 = share / (1.0 - share) if share < 1.0 else np.inf
        return float(np.log(variance / _winsorised_moments(d1, d0)[1]))

    low = start / (1.0 + start)
    if gap(low) >= 0:
        return start
    share = float(np.asarray(brentq(gap, low, 1.0, xtol=1e-14)))
    return share / (1.0 - share)


def _outliers(f: np.ndarray, d1: float, d0: float, pooled: float) -> np.ndarray:
    """d₀ (T,): that of all, less where F is too large to be one of T, monotone in F."""
    t = len(f)
    tail = f_tail(f, d1, d0)
    rank = _ranks(f)
    inlier = np.minimum(tail - np.log((t - rank + 0.5) / t), 0.0)
    share, shrunk = np.exp(inlier), np.full(t, d0)
    if not np.any(inlier < 0):
        return shrunk
    order = np.argsort(tail, kind="stable")
    if np.isinf(d0):
        shrunk[inlier < 0] = share[inlier < 0] * pooled
        shrunk[order] = np.maximum.accumulate(shrunk[order])
        return shrunk
    # df with which the largest F is at the median
    least = np.log(0.5) / tail.min() * d0
    least = np.log(0.5) / float(f_tail(f.max(), d1, least)) * least
    shrunk = share * d0 + (1.0 - share) * least
    own = shrunk[order]
    running = np.cumsum(own) / np.arange(1, t + 1)
    at = int(np.argmin(running))
    own[: at + 1] = running[at]
    shrunk[order] = np.maximum.accumulate(own)
    return shrunk


def _ranks(f: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties at their mean."""
    _, inverse, counts = np.unique(f, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
