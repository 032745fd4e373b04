"""Tests of candidates from their moments beside a null fit, V held up to its scale.

With r₁ = a − bᵀc⁻¹b, V in the units of the null fit's σ̂², and k columns a candidate,

    effect c⁻¹b,    cov = s·c⁻¹,    s = r₁/ν₁,    ν₁ = n − κ(p + k), s = 1 where σ² is known,
    column j:  t² = r₊/s and LRT = n log(1 + r₊/r₁), r₊ = effect_j²/(c⁻¹)_jj what it adds to the others,
    all:  F = bᵀc⁻¹b/(k s);    score  n r₊/(r₁ + r₊) at the null's ML fit.

Degrees of freedom are those of the larger model at the ratio held: Satterthwaite's with ∂c/∂ψ and the null
fit's cov ψ̂, on which the factor s has no influence.

Sources: Zhou & Stephens (2012), doi:10.1038/ng.2310, for one kernel; Fai & Cornelius (1996),
doi:10.1080/00949659608811740.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special

from lmmjax.inference.ddf import satterthwaite_joint
from lmmjax.inference.scan.null_model import Moments


@dataclasses.dataclass(frozen=True, eq=False)
class Fits:
    """What tests need of the fits of t responses without candidates.

    Attributes
    ----------
    n, p : rows and fixed effects; reml : whether REML was the criterion; known : whether σ² is known.
    deviance : (t,) criterion at its optimum; cov_psi : (t, m + 1, m + 1) covariance of ψ̂.
    """

    n: int
    p: int
    reml: bool
    known: bool
    deviance: np.ndarray
    cov_psi: np.ndarray

    def some(self, part: slice) -> Fits:
        """Those of some responses."""
        return dataclasses.replace(self, deviance=self.deviance[part], cov_psi=self.cov_psi[part])


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """Least squares on M candidates of k columns, of t responses.

    Attributes
    ----------
    effect, inverse : (t, M, k) c⁻¹b and the diagonal of c⁻¹, NaN where columns depend on X or on each other.
    cov : (t, M, k, k) c⁻¹; logdet : (t, M) log|c|.
    left, explained : (t, M) r₁ and a − r₁; adds : (t, M, k) r₊ of every column.
    """

    effect: np.ndarray
    inverse: np.ndarray
    cov: np.ndarray
    logdet: np.ndarray
    left: np.ndarray
    explained: np.ndarray
    adds: np.ndarray


def solve(m: Moments) -> Solved:
    """Least squares from the moments."""
    k = m.b.shape[-1]
    void = ~np.all(np.isfinite(m.c), axis=(2, 3))
    cov, sign, logdet = inverses(np.where(np.isfinite(m.c), m.c, np.eye(k)))
    cov[np.logical_or(void, sign <= 0)] = np.nan
    effect = (cov @ m.b[..., None])[..., 0]
    explained = np.sum(effect * m.b, axis=-1)
    inverse = np.einsum("tmkk->tmk", cov)
    with np.errstate(divide="ignore", invalid="ignore"):
        adds = effect**2 / inverse
    return Solved(effect, inverse, cov, logdet, m.a[:, None] - explained, explained, adds)


def scale(own: Solved, fits: Fits) -> np.ndarray:
    """s (t, M)."""
    nu = fits.n - fits.reml * (fits.p + own.effect.shape[-1])
    return np.ones_like(own.left) if fits.known else np.maximum(own.left, 0.0) / nu


def likelihood_ratio(own: Solved, fits: Fits) -> np.ndarray:
    """Of every column beside the others (t, M, k), by maximum likelihood at the ratio held."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return own.adds if fits.known else fits.n * np.log1p(own.adds / own.left[..., None])


def score(own: Solved, fits: Fits) -> np.ndarray:
    """Of every column beside the others (t, M, k), of fits by maximum likelihood."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return own.adds if fits.known else fits.n * own.adds / (own.left[..., None] + own.adds)


def loglik(own: Solved, a: np.ndarray, fits: Fits) -> np.ndarray:
    """(Restricted) log-likelihood (t, M): log|H| stays, of REML |XᵀH⁻¹X| grows by |gᵀP_Hg|."""
    before, k, reml = fits.deviance[:, None], own.effect.shape[-1], fits.reml
    if fits.known:
        more = own.logdet - k * np.log(2.0 * np.pi) if reml else 0.0
        return -0.5 * (before - own.explained + more)
    nu = fits.n - reml * fits.p
    after = nu - reml * k

    def profiled(r: np.ndarray, v: float) -> np.ndarray:
        return v * (1.0 + np.log(2.0 * np.pi * r / v))

    with np.errstate(divide="ignore", invalid="ignore"):
        more = profiled(own.left, after) - profiled(a[:, None], nu)
    return -0.5 * (before + reml * own.logdet + more)


def degrees(own: Solved, m: Moments, fits: Fits, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Denominator degrees of freedom (t, M, k) of single columns and (t, M) of all.

    Parameters
    ----------
    method : "satterthwaite", "residual" (n − p − k) or "normal".
    """
    k = own.effect.shape[-1]
    if method != "satterthwaite":
        constant = np.inf if method == "normal" or fits.known else float(fits.n - fits.p - k)
        return np.full(own.effect.shape, constant), np.full(own.left.shape, constant)
    # ∂_jc⁻¹ = c⁻¹ċ_jc⁻¹
    return satterthwaite(own.cov, own.cov[:, :, None] @ m.slopes @ own.cov[:, :, None], fits.cov_psi)


def inverses(c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """c⁻¹ (..., k, k), the sign of |c|, 0 where it is singular, and log|c| (...)."""
    if c.shape[-1] == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 / c, np.sign(c[..., 0, 0]), np.log(np.abs(c[..., 0, 0]))
    root = np.sqrt(np.abs(np.einsum("...kk->...k", c)))
    root = np.where(root > 0, root, 1.0)
    unit = c / (root[..., :, None] * root[..., None, :])
    sign, logdet = np.linalg.slogdet(unit)
    near = (sign <= 0) | (logdet < np.log(SINGULAR))
    unit = np.where(near[..., None, None], np.eye(c.shape[-1]), unit)
    inverse = np.linalg.inv(unit) / (root[..., :, None] * root[..., None, :])
    return inverse, np.where(near, 0.0, sign), logdet + 2.0 * np.sum(np.log(root), axis=-1)


SINGULAR = 1e-10
"""Determinant of a correlation matrix of columns below which they depend on each other."""


def satterthwaite(phi: np.ndarray, slopes: np.ndarray, cov_psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """df (t, M, k) of single columns and (t, M) of all, from Φ (t, M, k, k) and ∂_jΦ (t, M, m + 1, k, k)."""
    k = phi.shape[-1]
    v = np.einsum("tmkk->tmk", phi)
    slope = np.einsum("tmjkk->tmkj", slopes) / v[..., None]
    spread = np.sum((slope @ cov_psi[:, None]) * slope, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(spread <= KNOWN, np.where(spread < -KNOWN, np.nan, np.inf), 2.0 / spread)
    if k == 1:
        return df, df[..., 0]
    joint = np.full(phi.shape[:2], np.nan)
    for t, a in enumerate(cov_psi):
        fine = np.isfinite(phi[t]).all(axis=(1, 2)) & np.isfinite(slopes[t]).all(axis=(1, 2, 3))
        own = np.broadcast_to(a, (int(fine.sum()), *a.shape))
        test = satterthwaite_joint(phi[t, fine], slopes[t, fine], own, np.zeros((len(own), k)))
        joint[t, fine] = test.den_df
    return df, joint


KNOWN = 1e-12
"""Squared coefficient of variation of a variance, below which it is known."""


def two_sided(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """P(|T| > |t|), of the normal distribution where df is infinite."""
    finite = np.isfinite(df)
    out = 2.0 * special.ndtr(-np.abs(t))
    if finite.any():
        out = np.where(finite, 2.0 * special.stdtr(np.where(finite, df, 1.0), -np.abs(t)), out)
    return np.where(np.isnan(df), np.nan, out)


def upper_f(f: np.ndarray, k: int, df: np.ndarray) -> np.ndarray:
    """P(F > f) with k and df degrees of freedom, of χ²/k where df is infinite."""
    finite = np.isfinite(df)
    out = special.chdtrc(k, np.maximum(k * f, 0.0))
    if finite.any():
        out = np.where(finite, special.fdtrc(k, np.where(finite, df, 1.0), np.maximum(f, 0.0)), out)
    return np.where(np.isnan(df) | np.isnan(f), np.nan, out)
