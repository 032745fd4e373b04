"""Fits of one kernel as records, from the point that a search has found."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem
from lmmjax.core.spectral.search import RATIOS, sides
from lmmjax.design import solve_upper
from lmmjax.optimize import Status

LARGEST = 1e10
"""Ratio of the variances that is reported where that of the residuals is zero; the fit is the one at zero."""

CERTIFIED = 4 * np.finfo(float).eps ** 0.875
"""Newton decrement of an optimum."""


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Of T responses, with V = σ²(aI + hK) and t = log(h/a), in internal coordinates.

    Attributes
    ----------
    t : (T,), −inf and inf at the ends, NaN where no minimum was found; steps : evaluations.
    value : the log-determinants of the criterion; slope, bend : its derivatives in t; fall : ∂r²/r².
    r2 : r²; s : (T, p, p) S; beta : (T, p) β̂ less what was taken off; nu : ν; logdet_r : log|R|.
    """

    t: np.ndarray
    steps: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    fall: np.ndarray
    r2: np.ndarray
    s: np.ndarray
    beta: np.ndarray
    nu: np.ndarray
    logdet_r: np.ndarray


def at_ends(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a and h of t, infinite ones too."""
    a, h = sides(np.clip(t, -700, 700))
    return np.where(t == np.inf, 0.0, a), np.where(t == -np.inf, 0.0, h)


def records(problem: Problem, points: Points, ml: bool, which: np.ndarray) -> Estimate:
    """The records of the responses `which` (T,) of a problem, in the user's coordinates."""
    p, lost = points.s.shape[1], np.isnan(points.t)
    unit = float(problem.basis.outward[0][0, 0]) ** 2
    t = np.where(lost, 0.0, points.t)
    a, h = at_ends(t)
    low, high = np.log(np.array(RATIOS) / unit) if ml else (-np.inf, np.inf)
    lower, upper = t <= low, t >= high
    ended = lower | upper
    with np.errstate(divide="ignore", invalid="ignore"):
        decrement = np.where(ended, 0.0, 0.5 * points.slope**2 / points.bend)
        certified = ended | ((points.bend > 0) & (decrement <= CERTIFIED))
    status = np.where(certified & ~lost, Status.CONVERGED, Status.ITERATION_LIMIT).astype(np.int32)
    origin = np.broadcast_to(problem.origin.scale, np.shape(problem.origin.scale) or (1,))[which]
    start = np.asarray(problem.origin.beta)
    start = (start[:, None] if start.ndim == 1 else start)[:, which]
    nu, whole = points.nu, points.r2 / points.nu * origin**2
    delta = np.where(a > 0, h / np.where(a > 0, a, 1.0), LARGEST)
    residual = whole * np.where(a > 0, a, h / LARGEST)
    ratio, x_factor = delta * unit, np.asarray(problem.basis.x_factor)
    beta, cov = start.T, np.zeros((0, 0, len(t)))
    if p:
        beta = beta + origin[:, None] * solve_upper(x_factor, points.beta.T).T
        half = solve_upper(x_factor, np.moveaxis(points.s, 0, -1))
        cov = solve_upper(x_factor, np.swapaxes(half, 0, 1))
    cov_relative = _cov_relative(points, delta, unit, ended)
    at_end = np.stack([lower, upper], axis=1)
    missing = at_end[:, :, None] | at_end[:, None, :]
    shift = 2.0 * nu * np.log(origin)
    if not ml:
        shift = shift + 2.0 * np.sum(np.log(np.abs(np.diagonal(x_factor))))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gradient = np.where(ended, 0.0, np.abs(2.0 * points.slope) / np.sqrt(delta))
        # of responses near the largest double the square of a variance is none
        cov_psi = np.where(missing, np.nan, cov_relative * residual[:, None, None] ** 2)
    return Estimate(
        theta=np.sqrt(ratio)[:, None],
        psi=np.stack([ratio * residual, residual], axis=1),
        beta=beta,
        sigma2=residual,
        cov_beta=np.moveaxis(cov, -1, 0) * whole[:, None, None],
        cov_psi=cov_psi,
        cov_relative=cov_relative,
        deviance=points.value + points.logdet_r + nu * (1.0 + np.log(2.0 * np.pi * points.r2 / nu)) + shift,
        status=status,
        grad_norm=gradient,
        decrement=decrement,
        n_iter=points.steps.astype(np.int32),
        singular=ended,
        moves=np.zeros((len(t), 2, 1)),
    )


def _cov_relative(points: Points, delta: np.ndarray, unit: float, ended: np.ndarray) -> np.ndarray:
    """The covariance (T, 2, 2) of (σ²ᵤ, σ²)/σ̂²: 2BH⁻¹Bᵀ + ttᵀ2/ν in θ = √δ.

    At an end the ratio is held, and σ² alone varies.
    """
    along = np.stack([delta * unit, np.ones(len(delta))], axis=1)
    out = along[:, :, None] * along[:, None, :] * (2.0 / points.nu)[:, None, None]
    inner = ~ended
    d, f = delta[inner], points.fall[inner]
    # ∂δ = 2θ, ∂r²/r² = 2f/θ; H = (4∂² − 2∂)/δ
    b = np.stack([(1.0 + f) * d * unit, f], axis=1) * (2.0 / np.sqrt(d))[:, None]
    curvature = (4.0 * points.bend[inner] - 2.0 * points.slope[inner]) / d
    out[inner] += 2.0 * b[:, :, None] * b[:, None, :] / curvature[:, None, None]
    return out
