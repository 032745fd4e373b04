"""Profile intervals of shares of variance, which reach to 0 and 1 and not beyond.

One kernel has one ratio: its profile is the criterion itself, for all responses at once. The criterion of
other models depends on the variances through their shares p of the whole alone, p ≥ 0, Σ p = 1. With I a
share, or several, φ(s) is the minimum of f over Σ_I p = s, of which, at the minimum,

    φ'(s) = ∂f/∂p_i − ∂f/∂p_o

for i in I and o outside that are not zero. A limit is where φ has risen by χ²₁'s quantile; the root of the
rise is nearly linear in s, so that few minima have to be found, each by Newton's method.

Source: Visscher & Goddard (2015), doi:10.1534/genetics.114.171017, of the distribution of ĥ² and its limits;
Venzon & Moolgavkar (1988), doi:10.2307/2347496, of profiles by Newton's method.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.core import Problem
from lmmjax.core.criterion import criterion, evaluate
from lmmjax.core.problem import deviance_shift
from lmmjax.core.spectral.search import PAIRS, Spectral, grid, sides

BEYOND = 40.0
"""How far below the grid of log ratios the criterion is that of no variance."""

TRIES, NEAR = 80, 1e-11
"""Most steps towards a limit, and the change of a log ratio that ends them."""

EDGE = 1e-7
"""Shares this near to 0 or 1 are there."""

STEPS, LEFT = 50, 1e-11
"""Most Newton steps to a minimum, and the decrement that ends them."""

OUTER, CLOSE = 40, 1e-9
"""Most minima on the way to a limit, and the change of a share that ends it."""


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
    for _ in range(TRIES):
        value, slope, *_ = data.some(left).at(t[left])
        above = value > target[left]
        far[left], near[left] = np.where(above, t[left], far[left]), np.where(above, near[left], t[left])
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = t[left] - (value - target[left]) / slope
        good = (trial > np.minimum(far, near)[left]) & (trial < np.maximum(far, near)[left])
        moved = np.where(good, trial, 0.5 * (far[left] + near[left]))
        step = np.abs(moved - t[left])
        t[left] = moved
        left = left[step > NEAR * (1.0 + np.abs(moved))]
        if not len(left):
            break
    return t


@quick_jit
def _jet(d: Array, problem: Problem) -> tuple[Array, Array, Array]:
    """−2ℓ with its gradient and Hessian in d (m,)."""
    jet = criterion(
        evaluate(problem.shared, d, problem.response, problem.reml), problem.nu, problem.known_inside
    )
    return jet.value + deviance_shift(problem), jet.first, jet.second


@dataclasses.dataclass(frozen=True, eq=False)
class Shares:
    """−2ℓ as a function of the shares p (k + 1,) of the variances of k terms of one column and the residual.

    `gains` (k + 1,) are what a unit of each variance adds to the whole.
    """

    problem: Problem
    gains: np.ndarray

    def at(self, p: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """f, ∂f (k + 1,) and ∂²f."""
        unit = np.diagonal(np.asarray(self.problem.structure.entry_map(self.problem.basis.inward)))
        unit = unit * self.gains[-1] / self.gains[:-1]
        last = p[-1]
        d = unit * p[:-1] / last
        f, first, second = (np.asarray(a) for a in _jet(d, self.problem))
        # d = unit p / p_e
        slope, bend = first * unit / last, second * np.outer(unit, unit) / last**2
        along = bend @ p[:-1]
        hessian = np.empty((len(p), len(p)))
        hessian[:-1, :-1] = bend
        hessian[:-1, -1] = hessian[-1, :-1] = -(slope + along) / last
        hessian[-1, -1] = (p[:-1] @ along + 2.0 * slope @ p[:-1]) / last**2
        return float(f), np.append(slope, -slope @ p[:-1] / last), hessian


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum:
    """Shares p at which f is least, given that of those inside; `slope` is φ'."""

    p: np.ndarray
    f: float
    slope: float


def _scaled(p: np.ndarray, inside: np.ndarray, s: float) -> np.ndarray:
    """p with a sum s of those inside, in the proportions that they have."""
    out = np.empty(len(p))
    for side, whole in ((inside, s), (~inside, 1.0 - s)):
        total = p[side].sum()
        out[side] = p[side] * whole / total if total > 0 else whole / side.sum()
    out[-1] = max(out[-1], EDGE * 1e-2)
    return out


def _directions(free: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(k + 1, r) orthonormal moves among the shares that are free which leave both sums as they are."""
    columns = []
    for side in (inside, ~inside):
        at = np.flatnonzero(side & free)
        for j in range(1, len(at)):
            column = np.zeros(len(free))
            column[at[:j]], column[at[j]] = 1.0 / j, -1.0
            columns.append(column / np.linalg.norm(column))
    return np.stack(columns, axis=1) if columns else np.zeros((len(free), 0))


def _means(p: np.ndarray, slope: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """The slopes along both sums, each in the proportions of its shares."""
    return tuple(float(p[side] @ slope[side] / p[side].sum()) for side in (inside, ~inside))  # type: ignore


def minimum(of: Shares, p: np.ndarray, inside: np.ndarray) -> Minimum:
    """The least f from shares p on, those inside and those outside keeping their sums."""
    p = p.copy()
    f, slope, hessian = of.at(p)
    for _ in range(STEPS):
        means = _means(p, slope, inside)
        level = np.where(inside, *means)
        # shares of zero that f falls away from
        free = (p > 0) | (slope < level - 1e-6)
        z = _directions(free, inside)
        if not z.shape[1]:
            break
        value, vectors = np.linalg.eigh(z.T @ hessian @ z)
        value = np.maximum(np.abs(value), 1e-8 * max(np.abs(value).max(), 1.0))
        step = -z @ (vectors @ ((vectors.T @ (z.T @ slope)) / value))
        fall = -float(slope @ step)
        if 0.5 * fall < LEFT:
            break
        falling = step < 0
        room = np.where(falling, p / np.where(falling, -step, 1.0), np.inf)
        length, stop = min(1.0, float(room.min())), int(room.argmin())
        if length <= 0.0:
            # a share of zero would go below: it stays
            slope = np.where(np.arange(len(p)) == stop, np.maximum(slope, level), slope)
            continue
        bound = length < 1.0
        for _ in range(30):
            trial = p + length * step
            if bound:
                trial[stop] = 0.0
            trial = np.maximum(trial, 0.0)
            trial[-1] = max(trial[-1], EDGE * 1e-2)
            found = of.at(trial)
            if found[0] <= f - 1e-4 * length * fall or length * fall < 1e-10 * (1.0 + abs(f)):
                break
            length, bound = 0.4 * length, False
        p, (f, slope, hessian) = trial, found
    one, two = _means(p, slope, inside)
    return Minimum(p, f, one - two)


def share_limits(
    problem: Problem, gains: np.ndarray, shares: np.ndarray, inside: np.ndarray, lowest: float, rise: float
) -> tuple[float, float]:
    """Limits of the sum of the shares (k + 1,) that are `inside`, of terms of one column and the residual.

    Parameters
    ----------
    gains : (k + 1,) what a unit of each variance adds to the whole.
    shares : (k + 1,) at the estimate; lowest : the criterion there; rise : of the criterion at a limit.
    """
    of, inside = Shares(problem, gains), inside.astype(bool)
    if inside.all():
        return 1.0, 1.0
    best = float(shares[inside].sum())
    start = np.where(shares > EDGE, shares, 0.0)
    away = _width(of, start, inside, rise)
    return (
        _limit(of, start, inside, best, -away, lowest, rise),
        _limit(of, start, inside, best, away, lowest, rise),
    )


def _width(of: Shares, p: np.ndarray, inside: np.ndarray, rise: float) -> float:
    """How far a limit would be were φ a parabola."""
    p = _scaled(p, inside, float(np.clip(p[inside].sum() / p.sum(), 1e-2, 1.0 - 1e-2)))
    _, _, hessian = of.at(p)
    across = np.where(inside, p / p[inside].sum(), -p / p[~inside].sum())
    z = np.column_stack([across, _directions(p > 0, inside)])
    try:
        bend = 1.0 / np.linalg.inv(z.T @ hessian @ z)[0, 0]
    except np.linalg.LinAlgError:
        bend = 0.0
    return float(np.clip(np.sqrt(2.0 * rise / bend), 1e-4, 0.5)) if bend > 0 else 0.25


def _limit(
    of: Shares, p: np.ndarray, inside: np.ndarray, best: float, away: float, lowest: float, rise: float
) -> float:
    """The limit on one side of the best share, 0 or 1 where f stays below it so far."""
    end, edge = (0.0, EDGE) if away < 0 else (1.0, 1.0 - EDGE)
    if abs(best - end) <= EDGE:
        return end
    near, far, target = best, None, np.sqrt(rise)
    s = best + away
    for _ in range(OUTER):
        if far is None and (s <= edge if away < 0 else s >= edge):
            s = edge
        found = minimum(of, _scaled(p, inside, s), inside)
        p, root = found.p, np.sqrt(max(found.f - lowest, 0.0))
        if root < target:
            if s == edge:
                return end
            near = s
        else:
            far = s
        # the root of the rise is nearly linear
        change = (target - root) * 2.0 * root / found.slope if root > 0 and found.slope != 0 else np.inf
        trial = s + change
        low, high = sorted((near, edge if far is None else far))
        if not low < trial < high:
            trial = edge if far is None else 0.5 * (near + far)
        if abs(trial - s) <= CLOSE * min(max(s, EDGE), max(1.0 - s, EDGE)) + 1e-12:
            return float(trial)
        s = trial
    return float(s)
