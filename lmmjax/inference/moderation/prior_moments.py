"""A prior of residual variances from the moments of their logarithms; natural splines for its trend.

With e = log s² − ψ(d/2) + log(d/2) and ψ the digamma function, E(e) = log s₀² − ψ(d₀/2) + log(d₀/2) and
Var(e) = ψ'(d/2) + ψ'(d₀/2), where s²/s₀² ~ F(d, d₀).

Source: Smyth (2004), doi:10.2202/1544-6115.1027, section 6.2 and appendix.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, polygamma


def prior_moments(
    x: np.ndarray, df: np.ndarray, covariate: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """d₀ and s₀² by the mean and variance of e = log s² − ψ(d/2) + log(d/2)."""
    e = np.log(x) - digamma(df / 2) + np.log(df / 2)
    basis = _spline(covariate)
    if basis is None:
        mean, left = e.mean(), len(e) - 1
    else:
        mean, left = basis @ np.linalg.lstsq(basis, e, rcond=None)[0], len(e) - basis.shape[1]
    excess = np.sum((e - mean) ** 2) / left - polygamma(1, df / 2).mean() if left > 0 else 0.0
    if excess > 0:
        d0 = 2.0 * trigamma_inverse(excess)
        return np.array(d0), np.exp(mean + digamma(d0 / 2) - np.log(d0 / 2))
    # all variances are equal, but for the covariate
    return np.array(np.inf), np.asarray(x.mean() if basis is None else np.exp(mean))


def _spline(covariate: np.ndarray | None) -> np.ndarray | None:
    """Basis (T, k) of natural cubic splines with knots at quantiles, k up to 4 by T; None for a constant."""
    if covariate is None:
        return None
    t = len(covariate)
    k = min(1 + (t >= 3) + (t >= 6) + (t >= 30), len(np.unique(covariate)))
    if k < 2:
        return None
    from scipy.interpolate import CubicSpline

    knots = np.unique(np.quantile(covariate, np.linspace(0.0, 1.0, k)))
    if len(knots) < 3:
        return np.column_stack([np.ones(t), covariate - knots[0]])
    return CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(covariate)


def trigamma_inverse(x: float) -> float:
    """y with ψ'(y) = x > 0, by Newton's method for 1/ψ'(y), which is convex."""
    if x > 1e7:
        return 1.0 / np.sqrt(x)
    if x < 1e-6:
        return 1.0 / x
    y = 0.5 + 1.0 / x
    for _ in range(50):
        value = polygamma(1, y)
        step = value * (1.0 - value / x) / polygamma(2, y)
        y += step
        if -step / y < 1e-12:
            break
    return float(y)
