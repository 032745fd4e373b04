"""Denominator degrees of freedom: Satterthwaite, and Kenward & Roger with their adjusted covariance.

F = XᵀV⁻¹X with derivatives P_i = ∂_iF and ∂_ijF in ψ, Φ = F⁻¹ = cov(β̂), A the covariance of ψ̂. F and log|V|
are differentiated along the tangent of V, where V is linear in ψ, so that ½∂_ijF is the symmetric part of
Q_ij = XᵀV⁻¹V_iV⁻¹V_jV⁻¹X and tr(V⁻¹V_iV⁻¹V_j) = −∂_ij log|V|. For one contrast l, with v = lᵀΦl and
∂_iv = −lᵀΦP_iΦl,

    df = 2v²/(∂vᵀA∂v).

Kenward & Roger take for A the inverse W of the expected information

    I_ij = ½[tr(V⁻¹V_iV⁻¹V_j) − tr(Φ∂_ijF) + tr(ΦP_iΦP_j)],

which gives a single contrast the same formula, and adjust Φ for the bias of Φ(ψ̂),

    Φ_A = Φ + 2Φ[Σ W_ij(½∂_ijF − P_iΦP_j)]Φ.

All of it is made of V and its first derivatives. In other parameters φ these are multiplied by T = ∂ψ/∂φ,
so is I by T on both sides, and Σ W_ij(…) stays as it is: equal covariances have equal standard errors and
degrees of freedom, however they are written. Beside P_iΦP_j their paper has −¼R_ij, with
R_ij = XᵀV⁻¹(∂_ijV)V⁻¹X, which depends on the parameters where V is not linear in them; so does the bias of
ψ̂, which would belong to it (Kenward & Roger 2009). PROC MIXED has that term, in its own parameters, and for W
the inverse observed information.

Everything here is in the internal coordinates of `Natural`, works on NumPy and on traced arrays, and
calls no LAPACK except for contrasts of several rows.

Sources: Fai & Cornelius (1996, doi:10.1080/00949659608811740); Kenward & Roger (1997,
doi:10.2307/2533558; 2009, doi:10.1016/j.csda.2008.12.013); Kuznetsova, Brockhoff & Christensen (2017,
doi:10.18637/jss.v082.i13); Halekoh & Højsgaard (2014, doi:10.18637/jss.v059.i09), whose treatment of limiting
cases this follows.
"""

from __future__ import annotations

import numpy as np

from lmmjax.arrays import Array, namespace, record, sweep
from lmmjax.inference.natural import Natural

SAME_DF = 1e-8
"""Degrees of freedom that differ by less are taken as one number."""

KNOWN = 1e-12
"""Squared coefficient of variation of a variance, below which it is known."""


@record
class Adjusted:
    """Kenward & Roger's covariance Φ_A (p, p) of β̂ and W (m + 1, m + 1), in internal coordinates."""

    cov_beta: Array
    cov_psi: Array


@record
class FTest:
    """F of Lβ = rhs with its degrees of freedom; `unscaled` is F before the scaling λ of Kenward & Roger."""

    f: Array
    num_df: int
    den_df: Array
    unscaled: Array


def kenward_roger(at: Natural, cov_psi: Array | None = None) -> Adjusted:
    """Φ_A and W: the inverse expected information, or `cov_psi` with the term −¼R if `at` has it."""
    xp = namespace(at.xx)
    assert at.second is not None
    assert at.logdet_second is not None
    first = at.first
    phi = sweep(at.xx)[1]
    half = phi[None] @ first
    if cov_psi is None:
        # the inverse of I; pivots that vanish belong to components that cannot be told apart
        w = sweep(0.5 * (-at.logdet_second - at.second.traced(phi) + _traces(half)), 1e-10)[1]
    else:
        w = cov_psi
    weighted, bent = xp.tensordot(w, first, axes=1), 0.5 * at.second.weighted(w)
    if at.bend is not None:
        bent = bent - 0.25 * xp.sum(w[:, :, None, None] * at.bend, axis=(0, 1))
    middle = bent - xp.sum(xp.swapaxes(half, -1, -2) @ weighted, axis=0)
    return Adjusted(phi + 2.0 * (phi @ middle @ phi), w)


def _traces(a: Array) -> Array:
    """tr(A_iA_j) (..., k, k) of matrices (..., k, p, p)."""
    xp, flat = namespace(a), (*a.shape[:-2], -1)
    return a.reshape(flat) @ xp.swapaxes(xp.swapaxes(a, -1, -2).reshape(flat), -1, -2)


def single_df(at: Natural, cov_psi: Array, rows: Array, phi: Array | None = None) -> Array:
    """Degrees of freedom (k,) of single contrasts, the rows (k, p) of L.

    Parameters
    ----------
    cov_psi : A, the inverse observed information for Satterthwaite's, W for Kenward & Roger's.
    phi : Φ (p, p), if it is known.
    """
    xp = namespace(at.xx, rows)
    moved = rows @ (sweep(at.xx)[1] if phi is None else phi)
    v = xp.sum(moved * rows, axis=1)
    # lᵀΦP_iΦl / v, (m + 1, k)
    slope = xp.sum((moved[None] @ at.first) * moved[None], axis=2) / v[None]
    return _twice_over(xp.sum(slope * (cov_psi @ slope), axis=0))


def _twice_over(spread: Array) -> Array:
    """2/s of the squared coefficients of variation s of variances; NaN where A, at no optimum, is not one."""
    xp = namespace(spread)
    known = xp.abs(spread) <= KNOWN
    return xp.where(spread < -KNOWN, xp.nan, xp.where(known, xp.inf, 2.0 / xp.where(known, 1.0, spread)))


def satterthwaite_f(
    at: Natural, cov_psi: Array, rows: Array, difference: Array, phi: Array | None = None
) -> FTest:
    """F test of a contrast of several independent rows (k, p), by the eigenvectors of LΦLᵀ.

    With the degrees of freedom ν_j of the k uncorrelated contrasts, E = Σ ν_j/(ν_j − 2) and df = 2E/(E − k).
    As in lmerTest df = 2 if any ν_j ≤ 2, and df = ν if all are equal. For k > 1 and unequal ν_j it
    depends on how the rows of L are scaled.

    Parameters
    ----------
    difference : (k,) Lβ̂ − rhs in the units in which Φ is covariance.
    phi : Φ (p, p), if it is known.
    """
    phi = sweep(at.xx)[1] if phi is None else phi
    moved = rows @ phi
    slopes = moved[None] @ at.first @ moved.T[None]
    return satterthwaite_joint(moved @ rows.T, slopes, cov_psi, difference)


def satterthwaite_joint(phi: Array, slopes: Array, cov_psi: Array, difference: Array) -> FTest:
    """`satterthwaite_f` of contrasts by their covariance; all arrays may lead with axes of responses.

    Parameters
    ----------
    phi : (..., k, k) LΦLᵀ; slopes : (..., m + 1, k, k) LΦP_iΦLᵀ; cov_psi : (..., m + 1, m + 1) A.
    difference : (..., k).
    """
    xp, k = namespace(phi, slopes, difference), phi.shape[-1]
    values, vectors = xp.linalg.eigh(phi)
    turned = xp.swapaxes(vectors, -1, -2)
    f = xp.sum((turned @ difference[..., None])[..., 0] ** 2 / values, axis=-1) / k
    # lᵀΦP_iΦl / v of the eigenvectors, (..., m + 1, k)
    slope = xp.sum((slopes @ vectors[..., None, :, :]) * vectors[..., None, :, :], axis=-2)
    slope = slope / values[..., None, :]
    nu = _twice_over(xp.sum(slope * (cov_psi @ slope), axis=-2))
    return FTest(f, k, pooled_df(nu), f)


def pooled_df(nu: Array) -> Array:
    """Denominator df (...) of an F test from those (..., k) of its uncorrelated contrasts."""
    xp, k = namespace(nu), nu.shape[-1]
    above = xp.where(nu > 2.0, nu, 4.0)
    expected = xp.sum(xp.where(xp.isinf(above), 1.0, above / (above - 2.0)), axis=-1)
    pooled = xp.where(xp.any(nu <= 2.0, axis=-1), 2.0, 2.0 * expected / (expected - k))
    # also where every ν is infinite and their difference is not a number
    alike = ~(xp.max(nu, axis=-1) - xp.min(nu, axis=-1) >= SAME_DF)
    return xp.where(alike, xp.mean(nu, axis=-1), pooled)


def kenward_roger_f(
    at: Natural, adjusted: Adjusted, rows: Array, difference: Array, phi: Array | None = None
) -> FTest:
    """F test of a contrast of k independent rows (k, p) with Kenward & Roger's df and scaling λ.

    With Θ = Lᵀ(LΦLᵀ)⁻¹L, A₁ = ΣΣ W_ij tr(ΘΦP_iΦ) tr(ΘΦP_jΦ) and A₂ = ΣΣ W_ij tr(ΘΦP_iΦ ΘΦP_jΦ), the
    moments of the Wald statistic with Φ_A are matched as in their section 3. These are the traces of
    (LΦLᵀ)⁻¹LΦP_iΦLᵀ (k, k) and of their products.
    """
    moved = rows @ (sweep(at.xx)[1] if phi is None else phi)
    slopes = moved[None] @ at.first @ moved.T[None]
    own = rows @ adjusted.cov_beta @ rows.T
    return kenward_roger_joint(moved @ rows.T, slopes, adjusted.cov_psi, own, difference)


def kenward_roger_joint(
    phi: Array, slopes: Array, cov_psi: Array, adjusted: Array, difference: Array
) -> FTest:
    """`kenward_roger_f` of contrasts by their covariance; all arrays may lead with axes of responses.

    Parameters
    ----------
    phi, slopes, difference : as in `satterthwaite_joint`; cov_psi : W; adjusted : (..., k, k) LΦ_ALᵀ.
    """
    xp, k = namespace(phi, slopes, difference), phi.shape[-1]
    projected = _inverse(phi)[..., None, :, :] @ slopes
    trace = xp.trace(projected, axis1=-2, axis2=-1)
    a1 = xp.sum(trace * (cov_psi @ trace[..., None])[..., 0], axis=-1)
    a2 = xp.sum(cov_psi * _traces(projected), axis=(-2, -1))
    solved = _inverse(adjusted) @ difference[..., None]
    unscaled = xp.sum(difference * solved[..., 0], axis=-1) / k
    den_df, scaling = _moments(xp, a1, a2, k)
    return FTest(scaling * unscaled, k, den_df, unscaled)


def _inverse(a: Array) -> Array:
    """Inverses (..., k, k) of positive definite matrices."""
    xp = namespace(a)
    return xp.moveaxis(sweep(xp.moveaxis(a, (-2, -1), (0, 1)))[1], (0, 1), (-2, -1))


def _moments(xp, a1: Array, a2: Array, k: int) -> tuple[Array, Array]:
    """Denominator df and λ from A₁ and A₂; limits of 0/0 as in pbkrtest."""
    b = (a1 + 6.0 * a2) / (2.0 * k)
    g = ((k + 1.0) * a1 - (k + 4.0) * a2) / ((k + 2.0) * a2)
    below = 3.0 * k + 2.0 * (1.0 - g)
    c1, c2, c3 = g / below, (k - g) / below, (k + 2.0 - g) / below
    v0, v1, v2 = 1.0 + c1 * b, 1.0 - c2 * b, 1.0 - c3 * b
    v0 = xp.where(xp.abs(v0) < 1e-10, 0.0, v0)
    left = 1.0 - a2 / k
    vanish = (xp.abs(left) < 1e-14) & (xp.abs(v1) < 1e-14)
    ratio = xp.where(vanish, 1.0, left / xp.where(v1 == 0.0, 1.0, v1))
    # ν → 4 as v2 → 0 from either side
    rho = ratio**2 * v0 / xp.where(v2 == 0.0, 1e-200, v2) / k
    den_df = 4.0 + (k + 2.0) / (k * rho - 1.0)
    scaling = xp.where(xp.abs(den_df - 2.0) < 0.01, 1.0, den_df * left / (den_df - 2.0))
    return den_df, scaling


def independent_rows(rows: np.ndarray, rhs: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Positions of the rows (k, p) of L, with rhs (k,), that do not depend on earlier ones.

    Raises
    ------
    ValueError : the rows contradict each other.
    """
    scale = np.sqrt(np.einsum("kp,pr,kr->k", rows, phi, rows))
    unit = rows / np.where(scale > 0, scale, 1.0)[:, None]
    lower = np.linalg.cholesky(phi)
    kept: list[int] = []
    basis = np.zeros((0, rows.shape[1]))
    for j, row in enumerate(unit @ lower):
        rest = row - (row @ basis.T) @ basis
        rest = rest - (rest @ basis.T) @ basis
        if np.linalg.norm(rest) > 1e-8:
            kept.append(j)
            basis = np.vstack([basis, rest / np.linalg.norm(rest)])
    left = np.setdiff1d(np.arange(len(rows)), kept)
    if len(left):
        weights = np.linalg.lstsq((unit[kept] @ lower).T, (unit[left] @ lower).T, rcond=None)[0].T
        # in standard errors, where weights are rounded by parts of the largest
        right = rhs / np.where(scale > 0, scale, 1.0)
        apart = np.abs(weights @ right[kept] - right[left])
        size = np.abs(weights).max(axis=1, initial=0.0) * np.abs(right[kept]).max(initial=0.0)
        if np.any(apart > 1e-10 * (1.0 + size) + 1e-8 * np.abs(right[left])):
            raise ValueError("the hypotheses contradict each other: their left sides depend on each other")
    return np.array(kept, int)
