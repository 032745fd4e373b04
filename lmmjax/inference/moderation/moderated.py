"""Empirical Bayes for the residual variances of many responses, and what it does to tests.

s_g² ~ σ_g² χ²(d_g)/d_g, 1/σ_g² ~ χ²(d₀)/(d₀s₀²). Then s_g²/s₀² ~ F(d_g, d₀), from which d₀ and s₀² are
estimated by the moments of log s_g², each with a d_g of its own; and given s_g²

    s̃_g² = (d₀s₀² + d_g s_g²)/(d₀ + d_g)    with d₀ + d_g degrees of freedom.

s₀² may depend on a covariate. How d₀ and s₀² are estimated: `prior_moments`, `prior_robust`.

In a mixed model the variance v(ψ) of a contrast depends on σ² and on other components, and these are
estimated together. What is learned of σ² moves v̂ by the regression of log v̂ on log σ̂²,

    log ṽ = log v̂ + b log(s̃²/σ̂²),   b = Cov(log v̂, log σ̂²)/Var(log σ̂²),

by the delta method, which leaves it Var(log ṽ) = 2/ν − b²[2/d − 2/(d + d₀)] with Satterthwaite's ν, and
2/Var(log ṽ) degrees of freedom. Where v is a multiple of σ̂², as without random terms or for contrasts within
balanced groups, b = 1 and ν = d: ṽ/v̂ = s̃²/σ̂² with d + d₀ degrees of freedom. Between balanced groups b =
0: nothing is learned, and v̂ and ν stay.

Sources: Smyth (2004), doi:10.2202/1544-6115.1027; Phipson et al. (2016), doi:10.1214/16-AOAS920; McCarthy &
Smyth (2009), doi:10.1093/bioinformatics/btp053.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from scipy.special import stdtr

from lmmjax.inference.ddf import pooled_df
from lmmjax.inference.moderation.prior_moments import prior_moments
from lmmjax.inference.moderation.prior_robust import robust_prior


class CovariancesLike(Protocol):
    """Of contrasts of T responses, as `batch.ddf.Covariances`: phi, slopes, cov_psi, adjusted, sigma2."""

    @property
    def phi(self) -> np.ndarray: ...
    @property
    def slopes(self) -> np.ndarray: ...
    @property
    def cov_psi(self) -> np.ndarray: ...
    @property
    def adjusted(self) -> np.ndarray: ...
    @property
    def sigma2(self) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class VariancePrior:
    """df d₀ and variance s₀², numbers or (T,) of every response."""

    df: np.ndarray
    variance: np.ndarray

    def posterior(self, s2: np.ndarray, df: np.ndarray) -> np.ndarray:
        """s̃² (T,)."""
        with np.errstate(invalid="ignore"):
            mean = (self.df * self.variance + np.where(df > 0, df * s2, 0.0)) / (self.df + df)
        return np.where(np.isinf(self.df), self.variance + 0.0 * s2, mean)


def variance_prior(
    s2: np.ndarray, df: np.ndarray, covariate: np.ndarray | None = None, robust: bool = False
) -> VariancePrior:
    """The prior of variances s2 (T,) with degrees of freedom df (T,).

    Parameters
    ----------
    covariate : (T,) of which log s₀² is a smooth function.
    robust : winsorise, and d₀ for every response.

    Responses with a missing variance or without degrees of freedom do not count.

    Raises
    ------
    ValueError : fewer than two responses count.
    """
    ok = np.isfinite(s2) & np.isfinite(df) & (df > 1e-15) & (s2 > -1e-15)
    if covariate is not None:
        ok &= np.isfinite(covariate)
    if ok.sum() < 2:
        raise ValueError(
            f"{int(ok.sum())} of {len(ok)} responses have a residual variance with degrees of freedom: a "
            "prior needs "
            "at least two"
        )
    x = np.maximum(s2[ok], 0.0)
    # variances of zero have no logarithm
    middle = np.median(x)
    x = np.maximum(x, (1e-12 if robust else 1e-5) * (middle if middle > 0 else 1.0))
    own = None if covariate is None else covariate[ok]
    d0, s02 = (robust_prior if robust else prior_moments)(x, df[ok], own)
    return VariancePrior(_spread(d0, ok, covariate, own), _spread(s02, ok, covariate, own))


def _spread(
    values: np.ndarray, ok: np.ndarray, covariate: np.ndarray | None, own: np.ndarray | None
) -> np.ndarray:
    """Values of those that count on all: of the others the ones at the nearest covariate, or the median."""
    if values.ndim == 0 or ok.all():
        return values
    out = np.full(len(ok), np.median(values))
    out[ok] = values
    if covariate is not None and own is not None:
        left = np.flatnonzero(~ok & np.isfinite(covariate))
        at, first = np.unique(own, return_index=True)
        out[left] = np.interp(covariate[left], at, values[first])
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Regressions:
    """How much the variances of contrasts of T responses depend on σ̂².

    Attributes
    ----------
    b : (T, k) of log v̂ on log σ̂². variance : (T, k) of log v̂. residual : (T,) of log σ̂².
    """

    b: np.ndarray
    variance: np.ndarray
    residual: np.ndarray

    @classmethod
    def of(cls, slope: np.ndarray, cov_psi: np.ndarray, sigma2: np.ndarray) -> Regressions:
        """From derivatives (T, m + 1, k) of log v̂ in ψ, whose last element is σ² (T,), and Cov(ψ̂)."""
        moved, residual = cov_psi @ slope, cov_psi[:, -1, -1]
        b = moved[:, -1] * (sigma2 / residual)[:, None]
        return cls(b, np.sum(slope * moved, axis=1), residual / sigma2**2)


@dataclasses.dataclass(frozen=True, eq=False)
class JointTests:
    """F tests of k contrasts, taken apart into uncorrelated ones: what a prior may still change.

    Attributes
    ----------
    products : (T, k, k) whose sum is kF: aᵢ(VᵀΦ_A⁻¹V)ᵢⱼaⱼ with a = Vᵀ(Lβ̂ − rhs) and V of LΦLᵀ = VΛVᵀ.
    regressions : of the uncorrelated contrasts.
    """

    products: np.ndarray
    regressions: Regressions

    @classmethod
    def of(cls, own: CovariancesLike, difference: np.ndarray) -> JointTests:
        """Of differences Lβ̂ − rhs (T, k)."""
        values, vectors = np.linalg.eigh(own.phi)
        slope = -np.sum((own.slopes @ vectors[:, None]) * vectors[:, None], axis=-2) / values[:, None, :]
        back = np.swapaxes(vectors, 1, 2)
        apart = (back @ difference[..., None])[..., 0]
        inner = back @ np.linalg.solve(own.adjusted, vectors)
        products = apart[:, :, None] * inner * apart[:, None, :]
        return cls(products, Regressions.of(slope, own.cov_psi, own.sigma2))


@dataclasses.dataclass(frozen=True, eq=False)
class Shrinkage:
    """What the prior does to T responses.

    Attributes
    ----------
    df : (T,) d of σ̂²; total : (T,) d + d₀, at most the sum of all d. ratio : (T,) s̃²/σ̂².
    """

    df: np.ndarray
    total: np.ndarray
    ratio: np.ndarray

    @classmethod
    def by(cls, prior: VariancePrior, s2: np.ndarray, df: np.ndarray) -> Shrinkage:
        """Of all responses, of variances s2 (T,) with df (T,) degrees of freedom."""
        with np.errstate(divide="ignore", invalid="ignore"):
            post = np.where(np.isfinite(s2), prior.posterior(s2, df), np.nan)
            # there is no more in the data than all of their degrees of freedom
            return cls(df, np.minimum(df + prior.df, np.nansum(df)), post / s2)

    def some(self, which: np.ndarray) -> Shrinkage:
        """Of some of the responses."""
        return Shrinkage(self.df[which], self.total[which], self.ratio[which])

    def of(self, regressions: Regressions) -> tuple[np.ndarray, np.ndarray]:
        """ṽ/v̂ and degrees of freedom (T, k) of contrasts."""
        b, gained = regressions.b, regressions.residual - 2.0 / self.total
        return self.ratio[:, None] ** b, 2.0 / (regressions.variance - b**2 * gained[:, None])

    def f_tests(self, tests: JointTests) -> tuple[np.ndarray, np.ndarray]:
        """F and its denominator df, (T,) each.

        The k uncorrelated contrasts are moderated one by one, and their df put together as Satterthwaite's.
        """
        ratio, nu = self.of(tests.regressions)
        root = 1.0 / np.sqrt(ratio)
        total = np.sum(root[:, :, None] * tests.products * root[:, None, :], axis=(1, 2))
        return total / root.shape[1], np.asarray(pooled_df(nu))


def treat(
    estimate: np.ndarray, se: np.ndarray, df: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """t and p of |Lβ| ≤ threshold; t is that of the distance to the nearer end, 0 within.

    p = P(T > (|b| − τ)/se) + P(T > (|b| + τ)/se), of McCarthy & Smyth.
    """
    size = np.abs(estimate)
    near, far = (size - threshold) / se, (size + threshold) / se
    p = stdtr(df, -near) + stdtr(df, -far)
    return np.sign(estimate) * np.maximum(near, 0.0), np.minimum(p, 1.0)
