"""The search by REML for many responses in one program, traced: all that each needs, on the last axis.

The grid is one product. The brackets that it shows are descended from in rounds, the first of every response,
then the second: most have one. A round is Newton's method for all of them, as long as one needs it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.core.spectral.fit import NOTHING
from lmmjax.core.spectral.records import Points
from lmmjax.core.spectral.search import FAR, FLAT, LEFT, STEPS, Spectral, grid


def search_lanes(data: Spectral, n: float, y: Array, left: Array) -> tuple[Array, ...]:
    """The arrays of `Points`, trailing with T, how many optima, and who is lost and who perfect (T,).

    Parameters
    ----------
    data : the design, with no response, for REML; n : the number of rows.
    y, left : (k, T) and (T,) the responses ỹ, and what is left beside them.
    """
    assert not data.ml
    mu, squares = jnp.asarray(data.mu)[:, None], y * y
    total = jnp.sum(squares, axis=0) + left
    lost = ~jnp.isfinite(total)
    perfect = ~lost & (total <= NOTHING * n)
    if data.rest or np.any(data.mu <= 0):
        open_squares = left + jnp.sum(jnp.where(mu <= 0, squares, 0.0), axis=0)
        perfect |= ~lost & (open_squares <= NOTHING * total)
    # what cannot be fitted is in nobody's way
    fine = ~lost & ~perfect
    y, left = jnp.where(fine[None, :], y, 1.0), jnp.where(fine, left, 1.0)
    squares = y * y
    t, optima, steps = _search(data, mu, squares, left)
    return *_points(data, mu, y, squares, left, t, steps), optima, lost, perfect


def _search(data: Spectral, mu: Array, squares: Array, left: Array) -> tuple[Array, Array, Array]:
    """The global minimum of each response, and how many there are, (T,); evaluations."""
    t = np.concatenate([[-np.inf], grid(data), [np.inf] if data.regular else []])
    a, h = _both(np, t)
    scale = a[:, None] + h[:, None] * data.mu
    logdet = np.sum(np.log(scale), axis=1)
    r2 = jnp.asarray(1.0 / scale) @ squares
    if data.rest:
        r2, logdet = r2 + left[None, :] / a[:, None], logdet + data.rest * np.log(a)
    f = jnp.asarray(logdet)[:, None] + data.nu * jnp.log(r2)
    lower, upper = _ends(data, squares, left)
    best = jnp.where(lower, f[0], jnp.inf)
    best_t = jnp.where(lower, t[0], jnp.nan)
    better = upper & (f[-1] < best)
    best, best_t = jnp.where(better, f[-1], best), jnp.where(better, t[-1], best_t)
    inside = (f[1:-1] <= f[:-2]) & (f[1:-1] <= f[2:])
    last = ~upper & (f[-1] <= f[-2]) if data.regular else jnp.zeros_like(lower)
    valley = jnp.concatenate([(~lower & (f[0] <= f[1]))[None, :], inside, last[None, :]])
    order, most = jnp.cumsum(valley, axis=0), len(t) - 1
    span = jnp.asarray(np.clip(t, *(t[np.isfinite(t)][[0, -1]] + [-np.log(FAR), np.log(FAR)])))
    grid_t = jnp.asarray(t)
    level = jnp.minimum(best, jnp.where(upper, f[-1], jnp.inf))

    def one_round(carry: tuple) -> tuple:
        k, inner, inner_t, optima, steps = carry
        chosen = valley & (order == k + 1)
        there, at = jnp.any(chosen, axis=0), jnp.argmax(chosen, axis=0)
        low, high = span[jnp.maximum(at - 1, 0)], span[jnp.minimum(at + 1, most)]
        begin = _vertex(grid_t, f, at, span[at])
        end, count = _descend(data, mu, squares, left, low, high, begin, there)
        value, _, bend, *_ = _at(data, mu, squares, left, end)
        real = there & (bend > 0) & (jnp.abs(value - level) > FLAT)
        optima = optima + real.astype(jnp.int32)
        wins = there & (value < inner)
        inner, inner_t = jnp.where(wins, value, inner), jnp.where(wins, end, inner_t)
        return k + 1, inner, inner_t, optima, steps + count

    zero = jnp.zeros(squares.shape[1], jnp.int32)
    ended = lower.astype(jnp.int32) + upper.astype(jnp.int32)
    begin = (0, jnp.full_like(best, jnp.inf), jnp.full_like(best, jnp.nan), ended, zero)
    rounds = jnp.max(order[-1], initial=0)
    _, inner, inner_t, optima, steps = jax.lax.while_loop(lambda c: c[0] < rounds, one_round, begin)
    # beside an end that is a minimum the criterion is flat, and lower by rounding only
    return jnp.where(inner < best - FLAT, inner_t, best_t), jnp.maximum(optima, 1), steps + 1


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
    data: Spectral,
    mu: Array,
    squares: Array,
    left: Array,
    low: Array,
    high: Array,
    t: Array,
    going: Array,
) -> tuple[Array, Array]:
    """Newton's method inside brackets (T,) for those that are `going`, halved where it would leave them."""

    def step(carry: tuple) -> tuple:
        k, t, low, high, going, steps = carry
        _, slope, bend, *_ = _at(data, mu, squares, left, t)
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


def _at(data: Spectral, mu: Array, squares: Array, left: Array, t: Array) -> tuple[Array, ...]:
    """`Spectral.at` by REML, of responses on the last axis."""
    a, h = 1.0 / (1.0 + jnp.exp(t)), 1.0 / (1.0 + jnp.exp(-t))
    scale = a[None, :] + h[None, :] * mu
    s = h[None, :] * mu / scale
    share = squares / scale
    r2 = jnp.sum(share, axis=0) + (left / a if data.rest else 0.0)
    first = -jnp.sum(share * s, axis=0) / r2
    second = -jnp.sum(share * s * (1.0 - 2.0 * s), axis=0) / r2
    slope = jnp.sum(s, axis=0) + data.nu * first
    bend = jnp.sum(s * (1.0 - s), axis=0) + data.nu * (second - first**2)
    value = jnp.sum(jnp.log(scale), axis=0) + (data.rest * jnp.log(a) if data.rest else 0.0)
    return value + data.nu * jnp.log(r2), slope, bend, r2, first


def _ends(data: Spectral, squares: Array, left: Array) -> tuple[Array, Array]:
    """`Spectral.ends` by REML."""
    mu = data.mu
    whole = jnp.sum(squares, axis=0) + left
    lower = mu.sum() * whole >= data.nu * (mu @ squares)
    if not data.regular:
        return lower, jnp.zeros_like(lower)
    return lower, np.sum(1.0 / mu) * ((1.0 / mu) @ squares) >= data.nu * (mu**-2.0 @ squares)


def _both(xp, t: Array) -> tuple[Array, Array]:
    """a and h of t, infinite ones too."""
    finite = xp.clip(t, -700, 700)
    a, h = 1.0 / (1.0 + xp.exp(finite)), 1.0 / (1.0 + xp.exp(-finite))
    return xp.where(t == np.inf, 0.0, a), xp.where(t == -np.inf, 0.0, h)


def _points(
    data: Spectral, mu: Array, y: Array, squares: Array, left: Array, t: Array, steps: Array
) -> tuple[Array, ...]:
    """The arrays of `Points` at the minima t (T,), trailing with T."""
    start = jnp.where(jnp.isnan(t), 0.0, t)
    a, h = _both(jnp, start)
    scale = a[None, :] + h[None, :] * mu
    r2 = jnp.sum(squares / scale, axis=0) + (left / a if data.rest else 0.0)
    value = jnp.sum(jnp.log(scale), axis=0) + (data.rest * jnp.log(a) if data.rest else 0.0)
    inner = jnp.isfinite(start)
    _, slope, bend, _, fall = _at(data, mu, squares, left, jnp.where(inner, start, 0.0))
    slope, bend, fall = (jnp.where(inner, v, e) for v, e in ((slope, 0.0), (bend, 1.0), (fall, 0.0)))
    k, p = data.c.shape
    pairs = (data.c[:, :, None] * data.c[:, None, :]).reshape(k, p * p)
    across = (pairs.T @ (1.0 / scale)).reshape(p, p, len(t))
    s = np.eye(p)[:, :, None] * a + data.xkx[:, :, None] * h - h**2 * across
    beta = -(data.c.T @ (y * (h[None, :] / scale)))
    return t, steps, value, slope, bend, fall, r2, s, beta


def points_of(data: Spectral, arrays: tuple[np.ndarray, ...], chosen: np.ndarray) -> Points:
    """`Points` of some of the responses, from what `search_lanes` returned."""
    t, steps, value, slope, bend, fall, r2, s, beta = (np.moveaxis(a[..., chosen], -1, 0) for a in arrays)
    nu, logdet_r = np.full(len(t), data.nu), np.full(len(t), data.logdet_r)
    return Points(t, steps, value, slope, bend, fall, r2, s, beta, nu, logdet_r)
