"""Profile intervals of shares of variance, which reach to 0 and 1 and not beyond.

The criterion depends on the variances through their shares s of the whole alone, Σ s = 1, so that the
profile of a share, or of a sum of some, is a minimum over the other shares. One kernel has one ratio: then
its profile is the criterion itself, for all responses at once.

Source: Visscher & Goddard (2015), doi:10.1534/genetics.114.171017, of the distribution of ĥ² and its limits.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from lmmjax.arrays import Array, quick_jit, value_and_slopes
from lmmjax.core import Problem
from lmmjax.core.problem import profiled_deviance
from lmmjax.core.spectral_search import PAIRS, Spectral, grid, sides

BEYOND = 40.0
"""How far below the grid of log ratios the criterion is that of no variance."""

STEPS, CLOSE = 80, 1e-11
"""Most steps towards a limit, and the change of a log ratio that ends them."""

EDGE = 1e-7
"""Shares this near to 0 or 1 are there."""


def ratio_limits(data: Spectral, best: np.ndarray, rise: float) -> tuple[np.ndarray, np.ndarray]:
    """The log ratios (T,) between which −2ℓ is within `rise` of its minimum, which is at `best` (T,).

    ∓inf where the criterion stays that low to the end of the range. Of a criterion with several minima these
    are the outermost points.
    """
    size = max(1, PAIRS // max(len(data.mu), 1))
    parts = []
    for k in range(0, len(best), size):
        at = np.arange(k, min(k + size, len(best)))
        parts.append(_limits(data.some(at), best[at], rise))
    lower, upper = zip(*parts, strict=True) if parts else ((np.zeros(0),), (np.zeros(0),))
    return np.concatenate(lower), np.concatenate(upper)


def _limits(data: Spectral, best: np.ndarray, rise: float) -> tuple[np.ndarray, np.ndarray]:
    t = grid(data)
    a, h = sides(t)
    if not data.ml:
        # the upper end of a singular kernel has an infinite criterion
        a, h, t = np.append(1.0, a), np.append(0.0, h), np.append(-np.inf, t)
        if data.regular:
            a, h, t = np.append(a, 0.0), np.append(h, 1.0), np.append(t, np.inf)
    f = data.on_grid(a, h)
    inner = np.isfinite(best)
    lowest = np.where(best < 0, f[0], f[-1])
    lowest[inner] = data.some(np.flatnonzero(inner)).at(best[inner])[0]
    target = lowest + rise
    low, total = f <= target, f.shape[1]
    some, every = low.any(axis=0), np.arange(total)
    out = []
    for side in (0, -1):
        first = low.argmax(axis=0) if side == 0 else len(t) - 1 - low[::-1].argmax(axis=0)
        ordered = np.minimum if side == 0 else np.maximum
        inside = np.where(some, ordered(t[first], best), best)
        place = np.searchsorted(t, inside, "left" if side == 0 else "right")
        outside = np.clip(place - 1 if side == 0 else place, 0, len(t) - 1)
        ended = low[side, every] | (inside == t[side])
        if side == -1 and not data.ml and not data.regular:
            ended = np.zeros(total, bool)
        limit = np.full(total, -np.inf if side == 0 else np.inf)
        go = np.flatnonzero(~ended)
        if len(go):
            span = t[np.isfinite(t)]
            far, near = (np.clip(v, span[0] - BEYOND, span[-1] + BEYOND) for v in (t[outside], inside))
            # beyond the grid of a singular kernel the criterion rises for ever
            far = np.where((side == -1) & (far <= near), near + BEYOND, far)
            limit[go] = _crossing(data.some(go), far[go], near[go], target[go])
        out.append(limit)
    return out[0], out[1]


def _crossing(data: Spectral, far: np.ndarray, near: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where the criterion is at its target between a point above, `far`, and one below, `near`: all (T,)."""
    far, near = far.copy(), near.copy()
    t = 0.5 * (far + near)
    left = np.arange(len(t))
    for _ in range(STEPS):
        value, slope, *_ = data.some(left).at(t[left])
        above = value > target[left]
        far[left], near[left] = np.where(above, t[left], far[left]), np.where(above, near[left], t[left])
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = t[left] - (value - target[left]) / slope
        good = (trial > np.minimum(far, near)[left]) & (trial < np.maximum(far, near)[left])
        moved = np.where(good, trial, 0.5 * (far[left] + near[left]))
        step = np.abs(moved - t[left])
        t[left] = moved
        left = left[step > CLOSE * (1.0 + np.abs(moved))]
        if not len(left):
            break
    return t


def _composition(x: Array, s: Array, inside: Array, gains: Array, problem: Problem) -> Array:
    """−2ℓ at relative sizes x (k + 1,) of the variances of k terms and the residual.

    Those `inside` add up to the share s; `gains` (k + 1,) are what a unit of each adds to the whole.
    """
    square = x * x
    part = jnp.sum(square * inside)
    total = jnp.where(inside > 0, s / part, (1.0 - s) / jnp.sum(square * (1.0 - inside)))
    root = x * jnp.sqrt(total / gains)
    return profiled_deviance(root[:-1] / root[-1], problem)


@quick_jit
def _with_slope(x: Array, s: Array, inside: Array, gains: Array, problem: Problem) -> tuple[Array, Array]:
    return value_and_slopes(lambda v: _composition(v, s, inside, gains, problem), x)


def share_limits(
    problem: Problem, gains: np.ndarray, shares: np.ndarray, inside: np.ndarray, lowest: float, rise: float
) -> tuple[float, float]:
    """Limits of the sum of the shares (k + 1,) that are `inside`, of terms of one column and the residual.

    Parameters
    ----------
    gains : (k + 1,) what a unit of each variance adds to the whole.
    shares : (k + 1,) at the estimate; lowest : the criterion there; rise : of the criterion at a limit.
    """
    held = inside.astype(float)
    start = np.sqrt(np.clip(shares, 1e-4, None))
    free = held.sum() > 1 or (1 - held).sum() > 1
    last = [start]

    def profile(s: float) -> float:
        def value(x: np.ndarray) -> tuple[float, np.ndarray]:
            f, slope = _with_slope(x, np.asarray(s), held, gains, problem)
            return float(f), np.asarray(slope)

        if not free:
            return value(start)[0] - lowest - rise
        found = minimize(value, last[0], jac=True, method="L-BFGS-B")
        # sizes are relative; a variance of zero would stay there
        last[0] = np.maximum(np.abs(found.x) / np.abs(found.x).max(), 1e-2)
        return float(found.fun) - lowest - rise

    return _ends(profile, float(shares[inside].sum()))


def _ends(profile: Callable[[float], float], best: float) -> tuple[float, float]:
    """The roots of a profile on either side of the best share, or 0 and 1."""
    middle = float(np.clip(best, 2 * EDGE, 1 - 2 * EDGE))
    out = []
    for end, edge in ((0.0, EDGE), (1.0, 1 - EDGE)):
        if abs(best - end) <= EDGE or profile(edge) <= 0 or profile(middle) >= 0:
            out.append(end)
            continue
        at = brentq(lambda z: profile(float(expit(z))), logit(edge), logit(middle), xtol=1e-5)
        out.append(float(expit(at)))
    return out[0], out[1]
