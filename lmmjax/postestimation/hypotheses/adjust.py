"""Simultaneous tests and limits of a family of t statistics.

With max |T| of a family of contrasts whose estimates have correlation matrix C = AAᵀ, A (m, r), and an
independent χ²/ν for the variance, T = (R/S)Au for a uniform direction u in r dimensions and
R²/(rS²) ~ F(r, ν). So

    P(max |T| > c) = E[1 − F(c²/(r max (Au)²); r, ν)],

a smooth function of u, whose mean over a sequence of low discrepancy needs few points and keeps its digits
where it is small (Deák 1980, Numerische Mathematik 35, 369). The range of k independent means has, with
w = q s,

    P(range > w) = k ∫ φ(z)[Φ(z)^(k−1) − (Φ(z) − Φ(z − w))^(k−1)] dz,

averaged over s = χ_ν/√ν by Gauss's rule. Each contrast has the degrees of freedom that are its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.special import chdtrc, fdtrc, gammainccinv, gammaincinv, log_ndtr, ndtr, ndtri, stdtr

from lmmjax.fitted import require_choice
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.hypotheses.batch_tests import adjust as benjamini_hochberg

METHODS = ("tukey", "sidak", "bonferroni", "holm", "fdr", "dunnett", "mvt", "scheffe", "none")
POINTS, BINS = 2**16, 512
"""Directions, and into how many means they are condensed."""

NODES = 14
"""Different degrees of freedom beyond which critical values are interpolated, and between how many."""

_Z, _Z_WEIGHT = np.polynomial.legendre.leggauss(96)
_S, _S_WEIGHT = np.polynomial.legendre.leggauss(120)


def method_for(adjust: str, m: int, pairwise: bool) -> str:
    """What is done for `adjust` with m contrasts: Tukey's method is for pairwise ones, else Šidák's."""
    require_choice("adjust", adjust, METHODS)
    if m <= 1:
        return "none"
    if adjust == "tukey" and not pairwise:
        return "sidak"
    return "mvt" if adjust == "dunnett" else adjust


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Contrasts that are tested together.

    Attributes
    ----------
    t, df : (m,), NaN where not estimable; means : how many means are compared.
    correlation : (m, m) of the estimates; pairwise : whether these are all differences of means.
    """

    t: np.ndarray
    df: np.ndarray
    means: int
    correlation: Callable[[], np.ndarray]
    pairwise: bool

    def p_values(self, adjust: str) -> np.ndarray:
        """(m,) adjusted, two-sided."""
        method, m, known = method_for(adjust, len(self.t), self.pairwise), len(self.t), np.isfinite(self.t)
        with np.errstate(invalid="ignore"):
            p = 2.0 * stdtr(self.df, -np.abs(self.t))
        if method == "sidak":
            return -np.expm1(m * np.log1p(-np.minimum(p, 1.0 - 1e-16)))
        if method == "bonferroni":
            return np.minimum(m * p, 1.0)
        if method == "holm":
            return _holm(p)
        if method == "fdr":
            return benjamini_hochberg(p)
        if method == "none" or not known.any():
            return p
        p[known] = self._tail(method)(np.abs(self.t[known]), self.df[known])
        return p

    def critical(self, adjust: str, level: float) -> np.ndarray:
        """(m,) multiples of the standard errors in limits; "holm" and "fdr" take Bonferroni's."""
        method, m = method_for(adjust, len(self.t), self.pairwise), len(self.t)
        out = np.full(m, np.nan)
        if method in ("none", "sidak", "bonferroni", "holm", "fdr"):
            each = {"none": level, "sidak": level ** (1.0 / m)}.get(method, 1.0 - (1.0 - level) / m)
            return t_quantile(self.df, each)
        known = ~np.isnan(self.df) & np.isfinite(self.t)
        if known.any():
            df, back = np.unique(self.df[known], return_inverse=True)
            out[known] = _root(self._tail(method), df, 1.0 - level)[back]
        return out

    def _tail(self, method: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """(c, df) → P(max |T| > c)."""
        if method == "tukey":
            return lambda c, df: range_tail(np.sqrt(2.0) * c, self.means, df)
        known = np.isfinite(self.t)
        directions = _factor(self.correlation()[np.ix_(known, known)])
        if method == "scheffe":
            rank = directions.shape[1]
            return lambda c, df: _f_tail(rank, df, c**2 / rank)
        largest = _largest(directions)
        return lambda c, df: _radial(largest, directions.shape[1], c, df)


def _holm(p: np.ndarray) -> np.ndarray:
    """The running maximum of (m − i + 1)p₍ᵢ₎, missing values apart (Holm 1979, Scand. J. Stat. 6, 65–70)."""
    out, known = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    raised = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(raised), 1.0) if len(order) else raised
    return out


def _f_tail(r: int, df: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Upper tail of F(r, df), of χ²_r/r where df is infinite."""
    infinite = np.isinf(df)
    return np.where(infinite, chdtrc(r, r * x), fdtrc(r, np.where(infinite, 1.0, df), x))


def _factor(c: np.ndarray) -> np.ndarray:
    """A (m, r) with C = AAᵀ."""
    values, vectors = np.linalg.eigh(c)
    kept = values > 1e-9 * values.max()
    return vectors[:, kept] * np.sqrt(values[kept])


def _largest(a: np.ndarray) -> np.ndarray:
    """Means (BINS,) of max |Au| over directions u, in ascending order."""
    from scipy.stats import qmc

    r = a.shape[1]
    if r == 1:
        return np.abs(a).max(axis=0)
    # a net of which no coordinate is 0
    net = qmc.Sobol(r, scramble=False).random(POINTS) + 0.5 / POINTS
    normal = ndtri(net)
    u = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    size = np.empty(POINTS)
    for start in range(0, POINTS, 4096):
        size[start : start + 4096] = np.abs(u[start : start + 4096] @ a.T).max(axis=1)
    return np.sort(size).reshape(BINS, -1).mean(axis=1)


def _radial(largest: np.ndarray, r: int, c: np.ndarray, df: np.ndarray) -> np.ndarray:
    """P(max |T| > c) for c (k,) and df (k,)."""
    out = np.empty(len(c))
    for start in range(0, len(c), 512):
        part = slice(start, start + 512)
        x = c[part, None] ** 2 / (r * largest[None] ** 2)
        out[part] = _f_tail(r, df[part, None], x).mean(axis=1)
    return out


def range_tail(q: np.ndarray, k: int, df: np.ndarray) -> np.ndarray:
    """P(Q > q) (m,) of the studentised range of k means with df (m,) degrees of freedom."""
    s, weight = _chi_nodes(np.asarray(df, float))
    out = np.empty(len(q))
    z = 8.5 * _Z
    log_inside, density = (k - 1) * log_ndtr(z), _Z_WEIGHT * 8.5 * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    outer = k * density * np.exp(log_inside)
    for j in range(len(q)):
        w = q[j] * s[j]
        share = ndtr(z[None] - w[:, None]) / ndtr(z)[None]
        with np.errstate(divide="ignore"):
            tail = -np.expm1((k - 1) * np.log1p(-np.minimum(share, 1.0))) @ outer
        out[j] = weight[j] @ tail
    return np.minimum(out, 1.0)


def _chi_nodes(df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes s (m, ·) of χ_ν/√ν and their weights, which sum to 1."""
    infinite = df > 1e10
    nu = np.where(infinite, 1.0, df)[:, None]
    ends = gammaincinv(0.5 * nu, 1e-18), gammainccinv(0.5 * nu, 1e-18)
    low, high = (0.5 * np.log(2.0 * end / nu) for end in ends)
    x = 0.5 * (high + low) + 0.5 * (high - low) * _S
    # density of log s but for a constant: νx − νe²ˣ/2
    s = np.exp(x)
    log_density = nu * x - 0.5 * nu * s**2
    weight = _S_WEIGHT * np.exp(log_density - log_density.max(axis=1, keepdims=True))
    weight = weight / weight.sum(axis=1, keepdims=True)
    one = infinite[:, None]
    return np.where(one, 1.0, s), np.where(one, 1.0 / len(_S), weight)


def _root(tail: Callable, df: np.ndarray, alpha: float) -> np.ndarray:
    """c (k,) with P(max |T| > c) = alpha; of many df by interpolation in 1/df, where c is smooth."""
    if len(df) <= NODES or df.min() < 3.0:
        return _solved(tail, df, alpha)
    # Chebyshev's points of the second kind, and barycentric interpolation between them
    low, high = 1.0 / df.max(), 1.0 / df.min()
    k = np.arange(NODES)
    nodes = 0.5 * (high + low) - 0.5 * (high - low) * np.cos(np.pi * k / (NODES - 1))
    with np.errstate(divide="ignore"):
        own = _solved(tail, 1.0 / nodes, alpha)
    weights = np.where(k % 2, -1.0, 1.0) * np.where((k == 0) | (k == NODES - 1), 0.5, 1.0)
    gap = 1.0 / df[:, None] - nodes[None]
    hit = np.abs(gap) < 1e-14
    share = weights / np.where(hit, 1.0, gap)
    share = np.where(hit.any(axis=1, keepdims=True), hit, share)
    return share @ own / share.sum(axis=1)


def _solved(tail: Callable, df: np.ndarray, alpha: float) -> np.ndarray:
    """The same by regula falsi (the Illinois variant) in the logarithm of the tail."""
    low = t_quantile(df, 1.0 - alpha) * (1.0 - 1e-6)
    high = low + 1.0
    while np.any(short := tail(high, df) > alpha):
        high = np.where(short, 1.5 * high, high)
    above, below = (np.log(tail(c, df) / alpha) for c in (low, high))
    side = np.zeros(len(df))
    for _ in range(60):
        c = np.where(above == below, low, (low * below - high * above) / (below - above))
        value = np.log(tail(c, df) / alpha)
        up = value > 0.0
        # an end that stays twice counts half
        below, above = (
            np.where(up & (side > 0), 0.5 * below, below),
            np.where(~up & (side < 0), 0.5 * above, above),
        )
        low, above = np.where(up, c, low), np.where(up, value, above)
        high, below = np.where(up, high, c), np.where(up, below, value)
        side = np.where(up, 1.0, -1.0)
        if np.all(np.abs(value) < 1e-13):
            break
    return c
