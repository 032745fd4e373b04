"""Fits of one kernel: the global minimum of the criterion of each response, and its record."""

from __future__ import annotations

import jax
import numpy as np

from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem
from lmmjax.core.spectral_search import Found, Spectral, search, sides
from lmmjax.design import solve_upper
from lmmjax.gram.spectral.products import SpectralProducts, SpectralResponse
from lmmjax.optimize import Status

LARGEST = 1e10
"""Ratio of the variances that is reported where that of the residuals is zero; the fit is the one at zero."""

CERTIFIED = 4 * np.finfo(float).eps ** 0.875
"""Newton decrement of an optimum."""

NOTHING = 1e2 * np.finfo(float).eps ** 2
"""Share of the squares of a response that is rounding."""


def is_spectral(problem: Problem) -> bool:
    """Whether the fits of a problem are found globally: one kernel, both variances unknown."""
    return isinstance(problem.shared, SpectralProducts) and problem.known is None


def spectral_estimates(problem: Problem) -> tuple[Estimate, np.ndarray]:
    """The fits of the responses of a problem of NumPy arrays, and how many local optima each has, (T,).

    Arrays of the result lead with T where those of the problem trail with it; one response has no axis.
    """
    response = problem.response
    assert isinstance(response, SpectralResponse)
    alone = response.y.ndim == 1
    y = np.atleast_2d(np.asarray(response.y).T)
    data = _spectral(problem, y, np.atleast_1d(np.asarray(response.rest)))
    lost = ~np.isfinite(data.squares.sum(axis=1) + data.left)
    total = data.squares.sum(axis=1) + data.left
    open_squares = data.left + data.squares[:, data.mu <= 0].sum(axis=1)
    perfect = ~lost & (total <= NOTHING * float(problem.n))
    if data.rest or np.any(data.mu <= 0):
        # what K has no part in leaves nothing: σ² = 0 has an infinite likelihood
        perfect |= ~lost & (open_squares <= NOTHING * total)
    usable = np.flatnonzero(~lost & ~perfect)
    found = search(data.some(usable))
    estimate = _estimate(problem, data.some(usable), y[usable], found, usable)
    out = jax.tree.map(lambda a: _widened(a, usable, len(y)), estimate)
    status = np.where(lost, Status.NOT_FINITE, np.where(perfect, Status.PERFECT_FIT, out.status))
    out.status[:], out.moves[:] = status, 0.0
    optima = np.zeros(len(y), int)
    optima[usable] = found.optima
    return (jax.tree.map(lambda a: a[0], out) if alone else out), optima


def _widened(a: np.ndarray, at: np.ndarray, total: int) -> np.ndarray:
    """Arrays of some of `total` responses among all: NaN, zero or false for the others."""
    out = np.full((total, *a.shape[1:]), np.nan if a.dtype.kind == "f" else 0, a.dtype)
    out[at] = a
    return out


def _spectral(problem: Problem, y: np.ndarray, left: np.ndarray) -> Spectral:
    shared = problem.shared
    assert isinstance(shared, SpectralProducts)
    ml = not float(problem.reml)
    return Spectral(
        np.asarray(shared.mu),
        np.asarray(shared.c),
        np.asarray(shared.xkx),
        float(shared.rest),
        y**2,
        left,
        float(problem.nu),
        ml,
        float(problem.basis.outward[0][0, 0]) ** 2,
        float(shared.logdet_r),
    )


def _estimate(problem: Problem, data: Spectral, y: np.ndarray, found: Found, which: np.ndarray) -> Estimate:
    """The records at t, of which −inf and inf are σ²ᵤ = 0 and σ² = 0."""
    total, p = len(y), len(data.xkx)
    limits = (-np.inf, np.inf) if not data.ml else tuple(np.log(np.array((1e-5, 1e5)) / data.unit))
    lost = np.isnan(found.t)
    t = np.where(lost, 0.0, found.t)
    a, h = sides(np.clip(t, -700, 700))
    a, h = np.where(t == np.inf, 0.0, a), np.where(t == -np.inf, 0.0, h)
    inner = np.isfinite(t)
    scale = a[:, None] + h[:, None] * data.mu
    # the criterion at its own ratio, and its slopes where it has some
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.sum(data.squares / scale, axis=1) + (data.left / a if data.rest else 0.0)
        value = np.sum(np.log(scale), axis=1) + (data.rest * np.log(a) if data.rest else 0.0)
    s = data.s_matrix(a, h)
    if data.ml and p:
        value = value + np.linalg.slogdet(s)[1]
    nu = data.nu
    value = value + data.logdet_r + nu * (1.0 + np.log(2.0 * np.pi * r2 / nu))
    slope, bend, fall = np.zeros(total), np.ones(total), np.zeros(total)
    if inner.any():
        _, slope[inner], bend[inner], _, fall[inner] = data.some(np.flatnonzero(inner)).at(t[inner])
    lower, upper = t <= limits[0], t >= limits[1]
    ended = lower | upper
    with np.errstate(divide="ignore", invalid="ignore"):
        decrement = np.where(ended, 0.0, 0.5 * slope**2 / bend)
        certified = ended | ((bend > 0) & (decrement <= CERTIFIED))
    status = np.where(certified & ~lost, Status.CONVERGED, Status.ITERATION_LIMIT).astype(np.int32)
    # back to the user's coordinates
    origin = np.broadcast_to(problem.origin.scale, np.shape(problem.origin.scale) or (1,))[which]
    start = np.asarray(problem.origin.beta).reshape(p, -1)[:, which]
    whole = r2 / nu * origin**2
    delta = np.where(upper & (t == np.inf), LARGEST, h / np.where(a > 0, a, 1.0))
    residual = whole * np.where(a > 0, a, h / LARGEST)
    unit, powers = data.unit, origin
    wy = (y * (h[:, None] / scale)) @ data.c
    x_factor = np.asarray(problem.basis.x_factor)
    beta = start.T - powers[:, None] * solve_upper(x_factor, wy.T).T if p else start.T
    half = solve_upper(x_factor, np.moveaxis(s, 0, -1)) if p else np.zeros((0, 0, total))
    cov = solve_upper(x_factor, np.swapaxes(half, 0, 1)) if p else half
    cov_beta = np.moveaxis(cov, -1, 0) * whole[:, None, None]
    ratio = delta * unit
    psi = np.stack([ratio * residual, residual], axis=1)
    cov_relative = _cov_relative(delta, unit, fall, slope, bend, ended, nu)
    cov_psi = cov_relative * residual[:, None, None] ** 2
    at_zero = np.stack([lower, upper], axis=1)
    missing = at_zero[:, :, None] | at_zero[:, None, :]
    shift = 2.0 * (nu * np.log(origin) + (0.0 if data.ml else np.sum(np.log(np.abs(np.diagonal(x_factor))))))
    with np.errstate(divide="ignore", invalid="ignore"):
        gradient = np.where(ended, 0.0, np.abs(2.0 * slope) / np.sqrt(delta))
    return Estimate(
        theta=np.sqrt(ratio)[:, None],
        psi=psi,
        beta=beta,
        sigma2=residual,
        cov_beta=cov_beta,
        cov_psi=np.where(missing, np.nan, cov_psi),
        cov_relative=cov_relative,
        deviance=value + shift,
        status=status,
        grad_norm=gradient,
        decrement=decrement,
        n_iter=found.steps.astype(np.int32),
        singular=ended,
        moves=np.zeros((total, 2, 1)),
    )


def _cov_relative(
    delta: np.ndarray,
    unit: float,
    fall: np.ndarray,
    slope: np.ndarray,
    bend: np.ndarray,
    ended: np.ndarray,
    nu: float,
) -> np.ndarray:
    """The covariance (T, 2, 2) of (σ²ᵤ, σ²)/σ̂²: 2BH⁻¹Bᵀ + ttᵀ2/ν in θ = √δ, `fall` ∂r²/r² in log δ.

    At an end the ratio is held, and σ² alone varies.
    """
    along = np.stack([delta * unit, np.ones(len(delta))], axis=1)
    out = along[:, :, None] * along[:, None, :] * (2.0 / nu)
    inner = ~ended
    d, f = delta[inner], fall[inner]
    # ∂δ = 2θ, ∂r²/r² = 2f/θ; H = (4∂² − 2∂)/δ
    b = np.stack([(1.0 + f) * d * unit, f], axis=1) * (2.0 / np.sqrt(d))[:, None]
    curvature = (4.0 * bend[inner] - 2.0 * slope[inner]) / d
    out[inner] += 2.0 * b[:, :, None] * b[:, None, :] / curvature[:, None, None]
    return out
