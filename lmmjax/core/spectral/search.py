"""The criterion of one kernel as a function of its ratio, for many responses, and its global minimum.

In the coordinates of the spectral backend, with V ∝ aI + hK, a = 1 − h, both ends of h ∈ [0, 1] are points:

    f = Σ log(a + hμ) + m log a + κ̄ log|S| + ν log r²,      r² = Σ ỹ²/(a + hμ) + rest/a,
    S = aI + hX'KX − h²C' diag(1/(a + hμ)) C,

κ̄ = 1 for maximum likelihood and 0 for REML, which has no covariate in it; m directions have no K. With
t = log(h/a) and s = hμ/(a + hμ), of which ds/dt = s(1 − s),

    ∂r² = −Σ wỹ²s,     ∂²r² = −Σ wỹ²s(1 − 2s),     ∂Σ log = Σ s,     ∂²Σ log = Σ s(1 − s),

up to terms that cancel. A grid of t is one product for all responses; every local minimum of it, and both
ends, are descended from. Under maximum likelihood h/a stays in [1e-5, 1e5], as in GEMMA: −2ℓ has no lower
bound where X spans what K has no part in.

Source: Zhou & Stephens (2012), doi:10.1038/ng.2310; Lippert et al. (2011), doi:10.1038/nmeth.1681.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

RATIOS = (1e-5, 1e5)
"""Smallest and largest ratio of variances under maximum likelihood."""

STEP, FAR = 2.0, 10.0
"""Ratios of neighbours in the grid: where the eigenvalues matter, and beyond."""

STEPS, LEFT = 80, 1e-15
"""Most Newton steps, and the decrement that ends them."""

FLAT = 1e-9
"""Differences of the criterion that are rounding."""

PAIRS = 1 << 22
"""Numbers of responses by eigenvalues that are held at a time."""

TOGETHER = 1 << 18
"""Numbers of responses by eigenvalues that a thread works on: near its cache, and not too many parts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spectral:
    """The data of T responses in the coordinates of a kernel.

    Attributes
    ----------
    mu : (k,) ≥ 0; c : (k, p); xkx : (p, p); rest : m.
    squares : (T, k) ỹ²; left : (T,) the squares beside them.
    nu : ν; ml : whether log|S| is part of the criterion; unit : what a ratio here is in the user's.
    logdet_r : log|R|, of weights.
    """

    mu: np.ndarray
    c: np.ndarray
    xkx: np.ndarray
    rest: float
    squares: np.ndarray
    left: np.ndarray
    nu: float
    ml: bool
    unit: float
    logdet_r: float = 0.0

    @cached_property
    def regular(self) -> bool:
        """Whether K is positive in all directions that X leaves: then σ² may be zero."""
        return self.rest == 0 and len(self.mu) > 0 and bool(np.all(self.mu > 0))

    def some(self, at: np.ndarray) -> Spectral:
        """Some of the responses."""
        return dataclasses.replace(self, squares=self.squares[at], left=self.left[at])

    def shares(self, a: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """a + hμ (J, k) at ratios (J,), and the shares of hμ and of a in it."""
        scale = a[:, None] + h[:, None] * self.mu
        return scale, h[:, None] * self.mu / scale, a[:, None] / scale

    def s_matrix(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        """S (J, p, p) at ratios (J,)."""
        w = 1.0 / (a[:, None] + h[:, None] * self.mu)
        p = len(self.xkx)
        pairs = (self.c[:, :, None] * self.c[:, None, :]).reshape(len(self.mu), p * p)
        across = (w @ pairs).reshape(len(w), p, p)
        shape = (slice(None), None, None)
        return a[shape] * np.eye(p) + h[shape] * self.xkx - (h**2)[shape] * across

    def s_curve(self, a: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """S over a (J, p, p), with its first and second derivatives in t."""
        p = len(self.xkx)
        w = 1.0 / (a[:, None] + h[:, None] * self.mu)
        s = h[:, None] * self.mu * w
        pairs = (self.c[:, :, None] * self.c[:, None, :]).reshape(len(self.mu), p * p)
        shape = (slice(None), None, None)
        # I + δX'KX − δ²C'w̃C, w̃ = aw
        delta, inner = h / a, (delta_squared := (h / a) ** 2)
        weights = a[:, None] * w
        value = np.eye(p) + delta[shape] * self.xkx - inner[shape] * (weights @ pairs).reshape(-1, p, p)
        # d/dt of δ²w̃ is δ²w̃(2 − s), once more δ²w̃((2 − s)² − s(1 − s))
        once = (weights * (2.0 - s)) @ pairs
        twice = (weights * ((2.0 - s) ** 2 - s * (1.0 - s))) @ pairs
        first = delta[shape] * self.xkx - delta_squared[shape] * once.reshape(-1, p, p)
        second = delta[shape] * self.xkx - delta_squared[shape] * twice.reshape(-1, p, p)
        return value, first, second

    def log_s(self, a: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log|S| (J,) with its first and second derivatives in t."""
        p = len(self.xkx)
        if not p:
            return np.zeros(len(a)), np.zeros(len(a)), np.zeros(len(a))
        value, slope, bend = log_determinant(*self.s_curve(a, h))
        return value + p * np.log(a), slope, bend

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        """f (J, T) at ratios (J,), the same for all."""
        scale = a[:, None] + h[:, None] * self.mu
        r2 = (1.0 / scale) @ self.squares.T
        logdet = np.sum(np.log(scale), axis=1)
        if self.rest:
            r2 = r2 + self.left / a[:, None]
            logdet = logdet + self.rest * np.log(a)
        if self.ml:
            logdet = logdet + np.linalg.slogdet(self.s_matrix(a, h))[1]
        return logdet[:, None] + self.nu * np.log(r2)

    def at(
        self, t: np.ndarray, value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """f, ∂f, ∂²f, r² and ∂r²/r² at t (T,), one of each response; without `value` f may be 0."""
        a, h = sides(t)
        scale, s, _ = self.shares(a, h)
        share = self.squares / scale
        moved = share * s
        r2, once = share.sum(axis=1) + (self.left / a if self.rest else 0.0), moved.sum(axis=1)
        first, second = -once / r2, (2.0 * np.einsum("tk,tk->t", moved, s) - once) / r2
        weight = s.sum(axis=1)
        slope = weight + self.nu * first
        bend = weight - np.einsum("tk,tk->t", s, s) + self.nu * (second - first**2)
        f = np.zeros(len(t))
        if value:
            f = np.sum(np.log(scale), axis=1) + (self.rest * np.log(a) if self.rest else 0.0)
            f = f + self.nu * np.log(r2)
        if self.ml:
            own, d1, d2 = self.log_s(a, h)
            f, slope, bend = f + own, slope + d1, bend + d2
        return f, slope, bend, r2, first

    def ends(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the criterion rises from the ends of a grid t (J,): (T,) of the lower, and of the upper."""
        total = len(self.squares)
        if self.ml:
            lower = self.at(np.full(total, t[0]))[1] >= 0
            return lower, self.at(np.full(total, t[-1]))[1] <= 0
        mu, squares = self.mu, self.squares
        whole = squares.sum(axis=1) + self.left
        lower = mu.sum() * whole >= self.nu * (squares @ mu)
        if not self.regular:
            return lower, np.zeros(total, bool)
        # in ε = a/h: f = Σ log(ε + μ) + ν log Σ ỹ²/(ε + μ)
        upper = np.sum(1.0 / mu) * (squares @ (1.0 / mu)) >= self.nu * (squares @ mu**-2.0)
        return lower, upper


def log_determinant(
    value: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log-determinants (J,) of matrices (J, p, p), with first and second derivatives."""
    solved = np.linalg.solve(value, first)
    bend = np.trace(np.linalg.solve(value, second), axis1=1, axis2=2)
    bend = bend - np.einsum("jab,jba->j", solved, solved)
    return np.linalg.slogdet(value)[1], np.trace(solved, axis1=1, axis2=2), bend


def sides(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a and h with a + h = 1, h/a = exp t."""
    return 1.0 / (1.0 + np.exp(t)), 1.0 / (1.0 + np.exp(-t))


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Global minima of T responses: t (T,), −inf and inf at the ends, and how many minima there are.

    `slope`, `bend` and `fall` (T,) are ∂f, ∂²f and ∂r²/r² at minima that are no ends, else 0, 1 and 0.
    """

    t: np.ndarray
    optima: np.ndarray
    steps: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    fall: np.ndarray


def search(data: Spectral) -> Found:
    """The global minimum of every response."""
    total, names = len(data.squares), [f.name for f in dataclasses.fields(Found)]
    if not total:
        none = np.zeros(0)
        return Found(none, none.astype(int), none.astype(int), none, none, none)
    size = max(1, PAIRS // max(len(data.mu), 1))
    parts = [_search(data.some(np.arange(k, min(k + size, total)))) for k in range(0, total, size)]
    if len(parts) == 1:
        return parts[0]
    return Found(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def grid(data: Spectral) -> np.ndarray:
    """t (J,) between the ends, close where the eigenvalues make a difference."""
    if data.ml:
        low, high = np.log(np.array(RATIOS) / data.unit)
    else:
        low, high = -np.inf, np.inf
    some = data.mu[data.mu > 0]
    near = np.log(np.array([1e-2 / some.max(), 1e2 / some.min()]))
    middle = np.arange(near[0], near[1] + np.log(STEP), np.log(STEP))
    far = np.log(FAR) * np.arange(1, 11)
    points = np.concatenate([near[0] - far[::-1], middle, middle[-1] + far])
    if data.ml:
        inside = points[(points > low) & (points < high)]
        return np.concatenate([[low], inside, [high]])
    return points


def _search(data: Spectral) -> Found:
    t = grid(data)
    a, h = sides(t)
    if not data.ml:
        # both ends of h as points
        a, h = np.concatenate([[1.0], a]), np.concatenate([[0.0], h])
        t = np.concatenate([[-np.inf], t])
        if data.regular:
            a, h, t = np.append(a, 0.0), np.append(h, 1.0), np.append(t, np.inf)
    f = data.on_grid(a, h)
    lower, upper = data.ends(t)
    # an end is a minimum if the criterion does not fall away from it
    best_t, best = np.where(lower, t[0], np.nan), np.where(lower, f[0], np.inf)
    optima = lower.astype(int) + upper
    better = upper & (f[-1] < best)
    best_t, best = np.where(better, t[-1], best_t), np.where(better, f[-1], best)
    steps = np.zeros(f.shape[1], int)
    first, last = 0, len(t) - 1
    # brackets of a minimum: points that are no higher than their neighbours, and ends that fall inwards
    valley = np.zeros(f.shape, bool)
    valley[1:-1] = (f[1:-1] <= f[:-2]) & (f[1:-1] <= f[2:])
    valley[first] = ~lower & (f[first] <= f[first + 1])
    valley[last] = ~upper & (f[last] <= f[last - 1]) if data.ml or data.regular else False
    where, who = np.nonzero(valley)
    # ends of brackets that are no numbers: as far as it makes a difference
    span = np.clip(t, *(t[np.isfinite(t)][[0, -1]] + [-np.log(FAR), np.log(FAR)]))
    low, high = span[np.maximum(where - 1, 0)], span[np.minimum(where + 1, last)]
    inside = data.some(who)
    ends, count = _descend(inside, low, high, _vertex(t, f, where, who, span[where]))
    value, slope, bend, _, fall = inside.at(ends)
    level = np.minimum(np.where(lower, f[0], np.inf), np.where(upper, f[-1], np.inf))
    real = (bend > 0) & (np.abs(value - level[who]) > FLAT)
    np.add.at(optima, who[real], 1)
    np.add.at(steps, who, count)
    order = np.argsort(-value, kind="stable")
    # of several the lowest is written last
    at = np.full(len(best), -1)
    at[who[order]] = order
    # beside an end that is a minimum the criterion is flat, and lower by rounding only
    inner = np.flatnonzero(at >= 0)
    inner = inner[value[at[inner]] < best[inner] - FLAT]
    at = at[inner]
    out = [best_t, *(np.full(len(best), end) for end in (0.0, 1.0, 0.0))]
    for whole, own in zip(out, (ends, slope, bend, fall), strict=True):
        whole[inner] = own[at]
    return Found(out[0], np.maximum(optima, 1), steps + 1, *out[1:])


def _vertex(
    t: np.ndarray, f: np.ndarray, where: np.ndarray, who: np.ndarray, middle: np.ndarray
) -> np.ndarray:
    """The vertices of parabolas through points t[where] of a grid and their neighbours; else `middle`."""
    before, after = np.maximum(where - 1, 0), np.minimum(where + 1, len(t) - 1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        one = (f[where, who] - f[before, who]) / (t[where] - t[before])
        two = (f[after, who] - f[where, who]) / (t[after] - t[where])
        bend = (two - one) / (t[after] - t[before])
        vertex = 0.5 * (t[before] + t[where]) - 0.5 * one / bend
    return np.where((bend > 0) & (vertex > t[before]) & (vertex < t[after]), vertex, middle)


def _descend(
    data: Spectral, low: np.ndarray, high: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method inside brackets (T,), halved where it would leave them; ends and steps."""
    t, low, high = t.copy(), low.copy(), high.copy()
    steps = np.zeros(len(t), int)
    left = np.arange(len(t))
    for _ in range(STEPS):
        if not len(left):
            break
        some = data if len(left) == len(t) else data.some(left)
        _, slope, bend, *_ = some.at(t[left], value=False)
        steps[left] += 1
        falls = slope < 0
        low[left] = np.where(falls, t[left], low[left])
        high[left] = np.where(falls, high[left], t[left])
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = t[left] - slope / bend
            decrement = 0.5 * slope**2 / bend
        inside = (bend > 0) & (trial > low[left]) & (trial < high[left])
        done = (bend > 0) & (decrement < LEFT) | (high[left] - low[left] < 1e-14 * (1 + np.abs(t[left])))
        moved = np.where(inside, trial, 0.5 * (low[left] + high[left]))
        # the last step is taken without a look
        t[left] = np.where(done & ~inside, t[left], moved)
        left = left[~done]
    return t, steps
