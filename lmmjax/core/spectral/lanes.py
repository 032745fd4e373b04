"""The search for many responses in one program, traced: all that each needs, on the last axis.

The grid is one product. The brackets that it shows are descended from in rounds, the first of every response,
then the second: most have one. A round is Newton's method for all of them, as long as one needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, sweep
from lmmjax.core.spectral.fit import NOTHING
from lmmjax.core.spectral.records import Points
from lmmjax.core.spectral.search import FAR, FLAT, LEFT, STEPS, Spectral, grid


class Lanes:
    """`Spectral` of responses on the last axis.

    Parameters
    ----------
    data : the design, with no response.
    y, left : (k, T) and (T,) the responses ỹ, and the squares beside them.
    """

    nu: Any

    def __init__(self, data: Spectral, y: Array, left: Array):
        self.data, self.y, self.left, self.nu = data, y, left, data.nu
        self.mu, self.squares = jnp.asarray(data.mu)[:, None], y * y

    @property
    def ends_count(self) -> bool:
        """Whether the upper end of the grid is a point."""
        return self.data.ml or self.data.regular

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> Array:
        """f (J, T) at ratios (J,), the same for all."""
        data = self.data
        scale = a[:, None] + h[:, None] * data.mu
        logdet = np.sum(np.log(scale), axis=1)
        r2 = jnp.asarray(1.0 / scale) @ self.squares
        if data.rest:
            r2, logdet = r2 + self.left[None, :] / a[:, None], logdet + data.rest * np.log(a)
        if data.ml:
            logdet = logdet + np.linalg.slogdet(data.s_matrix(a, h))[1]
        return jnp.asarray(logdet)[:, None] + self.nu * jnp.log(r2)

    def at(self, t: Array) -> tuple[Array, ...]:
        """f, ∂f, ∂²f, r² and ∂r²/r² at t (T,)."""
        data = self.data
        a, h, scale, s = self.sides(t)
        share = self.squares / scale
        r2 = jnp.sum(share, axis=0) + (self.left / a if data.rest else 0.0)
        first = -jnp.sum(share * s, axis=0) / r2
        second = -jnp.sum(share * s * (1.0 - 2.0 * s), axis=0) / r2
        slope = jnp.sum(s, axis=0) + self.nu * first
        bend = jnp.sum(s * (1.0 - s), axis=0) + self.nu * (second - first**2)
        value = jnp.sum(jnp.log(scale), axis=0) + (data.rest * jnp.log(a) if data.rest else 0.0)
        value = value + self.nu * jnp.log(r2)
        if data.ml:
            own, one, two = log_determinant(*self.s_curve(a, h, scale, s))
            value, slope, bend = value + own + len(data.xkx) * jnp.log(a), slope + one, bend + two
        return value, slope, bend, r2, first

    def sides(self, t: Array) -> tuple[Array, Array, Array, Array]:
        """a, h (T,), a + hμ and hμ/(a + hμ) (k, T)."""
        a, h = 1.0 / (1.0 + jnp.exp(t)), 1.0 / (1.0 + jnp.exp(-t))
        scale = a[None, :] + h[None, :] * self.mu
        return a, h, scale, h[None, :] * self.mu / scale

    def across(self, weights: Array) -> Array:
        """C' diag(weights) C (p, p, T) of weights (k, T)."""
        k, p = self.data.c.shape
        pairs = (self.data.c[:, :, None] * self.data.c[:, None, :]).reshape(k, p * p)
        return (pairs.T @ weights).reshape(p, p, weights.shape[1])

    def s_curve(self, a: Array, h: Array, scale: Array, s: Array) -> tuple[Array, Array, Array]:
        """S over a (p, p, T), with its first and second derivatives in t."""
        delta, w, xkx = h / a, a[None, :] / scale, self.data.xkx[:, :, None]
        whole, square = delta * xkx, delta * delta
        value = np.eye(len(xkx))[:, :, None] + whole - square * self.across(w)
        once, twice = w * (2.0 - s), w * ((2.0 - s) ** 2 - s * (1.0 - s))
        return value, whole - square * self.across(once), whole - square * self.across(twice)

    def s_matrix(self, a: Array, h: Array, scale: Array) -> Array:
        """S (p, p, T)."""
        xkx = self.data.xkx[:, :, None]
        return np.eye(len(xkx))[:, :, None] * a + xkx * h - h**2 * self.across(1.0 / scale)

    def ends(self, t: np.ndarray) -> tuple[Array, Array]:
        """Whether the criterion rises from the ends of a grid t (J,): (T,) of the lower, and of the upper."""
        data, total = self.data, self.squares.shape[1]
        if data.ml:
            lower, upper = jax.lax.map(lambda end: self.at(jnp.full(total, end))[1], jnp.asarray(t[[0, -1]]))
            return lower >= 0, upper <= 0
        mu, nu = data.mu, self.nu
        whole = jnp.sum(self.squares, axis=0) + self.left
        lower = mu.sum() * whole >= nu * (mu @ self.squares)
        if not data.regular:
            return lower, jnp.zeros_like(lower)
        upper = np.sum(1.0 / mu) * ((1.0 / mu) @ self.squares) >= nu * (mu**-2.0 @ self.squares)
        return lower, upper

    def found(self, a: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        """Log-determinants, r², S and β̂ of `Points`, at a and h (T,) that may be ends."""
        data = self.data
        scale = a[None, :] + h[None, :] * self.mu
        r2 = jnp.sum(self.squares / scale, axis=0) + (self.left / a if data.rest else 0.0)
        value = jnp.sum(jnp.log(scale), axis=0) + (data.rest * jnp.log(a) if data.rest else 0.0)
        s = self.s_matrix(a, h, scale)
        if data.ml and len(data.xkx):
            value = value + sweep(s)[0]
        return value, r2, s, -(data.c.T @ (self.y * (h[None, :] / scale)))

    def points(self, t: Array, steps: Array, slope: Array, bend: Array, fall: Array) -> tuple[Array, ...]:
        """The arrays of `Points` at the minima t (T,), trailing with T."""
        value, r2, s, beta = self.found(*_both(jnp, jnp.where(jnp.isnan(t), 0.0, t)))
        return t, steps, value, slope, bend, fall, r2, s, beta


def log_determinant(value: Array, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """The log-determinants (T,) of matrices (p, p, T), with first and second derivatives."""
    if not len(value):
        none = jnp.zeros(value.shape[2])
        return none, none, none
    logdet, inverse = sweep(value)
    solved = product(inverse, first)
    bend = jnp.sum(inverse * second, axis=(0, 1)) - trace(solved, solved)
    return logdet, jnp.sum(inverse * first, axis=(0, 1)), bend


def product(one: Array, two: Array) -> Array:
    """Products (a, c, T) of matrices (a, b, T) and (b, c, T)."""
    return jnp.sum(one[:, :, None] * two[None], axis=1)


def trace(one: Array, two: Array) -> Array:
    """tr(AB) (T,) of matrices (p, p, T)."""
    return jnp.sum(one * jnp.swapaxes(two, 0, 1), axis=(0, 1))


def search_lanes(
    data: Spectral, n: float, y: Array, left: Array, lanes: Callable[..., Lanes], open_squares: Array | None
) -> tuple[Array, ...]:
    """The arrays of `Points`, trailing with T, how many optima, and who is lost and who perfect (T,).

    Parameters
    ----------
    data : the design, with no response; n : the number of rows.
    y, left : (k, T) and (T,) the responses ỹ, and what is left beside them.
    lanes : makes the criterion of data, y and left; open_squares : (T,) what is left where K has no part.
    """
    total = jnp.sum(y * y, axis=0) + left
    lost = ~jnp.isfinite(total)
    perfect = ~lost & (total <= NOTHING * n)
    if open_squares is not None:
        perfect |= ~lost & (open_squares <= NOTHING * total)
    # what cannot be fitted is in nobody's way
    fine = ~lost & ~perfect
    y, left = jnp.where(fine[None, :], y, varied(y)), jnp.where(fine, left, 1.0)
    *arrays, optima = searched(lanes(data, y, left))
    return *arrays, optima, lost, perfect


def varied(y: Array) -> Array:
    """A response (k, 1) that has a fit, for those that have none."""
    return jnp.asarray(1.0 + np.arange(len(y)) % 3)[:, None]


def searched(lanes: Lanes) -> tuple[Array, ...]:
    """The arrays of `Points`, and how many minima there are."""
    data = lanes.data
    t = grid(data)
    if not data.ml:
        # both ends of h as points
        t = np.concatenate([[-np.inf], t, [np.inf] if data.regular else []])
    optima, *found = _search(lanes, t)
    return *lanes.points(*found), optima


def _search(lanes: Lanes, t: np.ndarray) -> tuple[Array, ...]:
    """How many minima each response has (T,), the global one, evaluations, ∂f, ∂²f and ∂r²/r² there."""
    f = lanes.on_grid(*_both(np, t))
    lower, upper = lanes.ends(t)
    best = jnp.where(lower, f[0], jnp.inf)
    best_t = jnp.where(lower, t[0], jnp.nan)
    better = upper & (f[-1] < best)
    best, best_t = jnp.where(better, f[-1], best), jnp.where(better, t[-1], best_t)
    inside = (f[1:-1] <= f[:-2]) & (f[1:-1] <= f[2:])
    last = ~upper & (f[-1] <= f[-2]) if lanes.ends_count else jnp.zeros_like(lower)
    valley = jnp.concatenate([(~lower & (f[0] <= f[1]))[None, :], inside, last[None, :]])
    order, most = jnp.cumsum(valley, axis=0), len(t) - 1
    span = jnp.asarray(np.clip(t, *(t[np.isfinite(t)][[0, -1]] + [-np.log(FAR), np.log(FAR)])))
    grid_t = jnp.asarray(t)
    level = jnp.minimum(best, jnp.where(upper, f[-1], jnp.inf))

    def one_round(carry: tuple) -> tuple:
        k, inner, inner_t, optima, steps, *known = carry
        chosen = valley & (order == k + 1)
        there, at = jnp.any(chosen, axis=0), jnp.argmax(chosen, axis=0)
        low, high = span[jnp.maximum(at - 1, 0)], span[jnp.minimum(at + 1, most)]
        begin = _vertex(grid_t, f, at, span[at])
        end, count = _descend(lanes, low, high, begin, there)
        value, slope, bend, _, fall = lanes.at(end)
        real = there & (bend > 0) & (jnp.abs(value - level) > FLAT)
        optima = optima + real.astype(jnp.int32)
        wins = there & (value < inner)
        inner, inner_t = jnp.where(wins, value, inner), jnp.where(wins, end, inner_t)
        known = [jnp.where(wins, new, old) for new, old in zip((slope, bend, fall), known, strict=True)]
        return k + 1, inner, inner_t, optima, steps + count, *known

    zero = jnp.zeros(f.shape[1], jnp.int32)
    ended = lower.astype(jnp.int32) + upper.astype(jnp.int32)
    # ∂f, ∂²f and ∂r²/r² as they are reported of ends
    known = [jnp.full_like(best, end) for end in (0.0, 1.0, 0.0)]
    begin = (0, jnp.full_like(best, jnp.inf), jnp.full_like(best, jnp.nan), ended, zero, *known)
    rounds = jnp.max(order[-1], initial=0)
    _, inner, inner_t, optima, steps, *found = jax.lax.while_loop(lambda c: c[0] < rounds, one_round, begin)
    # beside an end that is a minimum the criterion is flat, and lower by rounding only
    wins = inner < best - FLAT
    found = [jnp.where(wins, inside, end) for inside, end in zip(found, known, strict=True)]
    return jnp.maximum(optima, 1), jnp.where(wins, inner_t, best_t), steps + 1, *found


def _vertex(t: Array, f: Array, at: Array, middle: Array) -> Array:
    """`search._vertex` at one point of the grid for every response, (T,)."""
    before, after = jnp.maximum(at - 1, 0), jnp.minimum(at + 1, len(t) - 1)
    low, here, high = (jnp.take_along_axis(f, k[None, :], axis=0)[0] for k in (before, at, after))
    one = (here - low) / (t[at] - t[before])
    two = (high - here) / (t[after] - t[at])
    bend = (two - one) / (t[after] - t[before])
    vertex = 0.5 * (t[before] + t[at]) - 0.5 * one / bend
    return jnp.where((bend > 0) & (vertex > t[before]) & (vertex < t[after]), vertex, middle)


def _descend(
    lanes: Lanes,
    low: Array,
    high: Array,
    t: Array,
    going: Array,
) -> tuple[Array, Array]:
    """Newton's method inside brackets (T,) for those that are `going`, halved where it would leave them."""

    def step(carry: tuple) -> tuple:
        k, t, low, high, going, steps = carry
        _, slope, bend, *_ = lanes.at(t)
        falls = slope < 0
        low, high = jnp.where(going & falls, t, low), jnp.where(going & ~falls, t, high)
        trial, decrement = t - slope / bend, 0.5 * slope**2 / bend
        inside = (bend > 0) & (trial > low) & (trial < high)
        done = ((bend > 0) & (decrement < LEFT)) | (high - low < 1e-14 * (1.0 + jnp.abs(t)))
        moved = jnp.where(inside, trial, 0.5 * (low + high))
        # the last step is taken without a look
        moved = jnp.where(going & ~(done & ~inside), moved, t)
        return k + 1, moved, low, high, going & ~done, steps + going.astype(jnp.int32)

    begin = (0, t, low, high, going, jnp.zeros(t.shape, jnp.int32))
    _, t, _, _, _, steps = jax.lax.while_loop(lambda c: (c[0] < STEPS) & jnp.any(c[4]), step, begin)
    return t, steps


def _both(xp, t: Array) -> tuple[Array, Array]:
    """a and h of t, infinite ones too."""
    finite = xp.clip(t, -700, 700)
    a, h = 1.0 / (1.0 + xp.exp(finite)), 1.0 / (1.0 + xp.exp(-finite))
    return xp.where(t == np.inf, 0.0, a), xp.where(t == -np.inf, 0.0, h)


def points_of(data: Spectral, arrays: tuple[np.ndarray, ...], chosen: np.ndarray) -> Points:
    """`Points` of some of the responses, from what `search_lanes` returned."""
    t, steps, value, slope, bend, fall, r2, s, beta = (np.moveaxis(a[..., chosen], -1, 0) for a in arrays)
    nu, logdet_r = np.full(len(t), data.nu), np.full(len(t), data.logdet_r)
    return Points(t, steps, value, slope, bend, fall, r2, s, beta, nu, logdet_r)
