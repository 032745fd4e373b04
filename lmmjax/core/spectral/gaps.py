"""Fits of one kernel to responses with missing values, without another decomposition.

A missing value is a fixed effect of its row: with E the columns of the m missing rows and P of all rows,

    P_o = P − PE M⁻¹ E'P,     M = E'PE = B_E diag(w) B_E' + (what neither X nor B has, in these rows),
    log|H_oo| + log|X_o'H_oo⁻¹X_o| = log|H| + log|X'H⁻¹X| + log|M|,

of which the derivatives in t follow from those of w. The missing values are predicted by −M⁻¹E'Py, and with
N = (X − δB(w∘C))_E the covariance of β̂ is S_o = S + N'M⁻¹N, of which maximum likelihood has the determinant:
log|H_oo| = Σ log(1 + δμ) + log|M| + log|S_o|. m is to be small beside n.

Source: missing plots by dummy variables, Bartlett (1937), Suppl. J. R. Stat. Soc. 4, 137–183; checked against
the fits of the rows that are left.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.arrays.processors import mapped
from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.core.spectral.fit import spectral_data, widened
from lmmjax.core.spectral.records import Points, at_ends, records
from lmmjax.core.spectral.schur import eliminated, rises
from lmmjax.core.spectral.search import PAIRS, Found, Spectral, log_determinant, search, sides
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.gram.spectral.products import SpectralResponse

MOST = 0.25
"""Share of the rows that may be missing: beyond, a decomposition of the rows that are left is cheaper."""

PERFECT = 1e-12
"""Share of its squares that X leaves of a response, below which it is looked at by itself."""

DETERMINED = 1e-8
"""Smallest eigenvalue of M at δ = 0: below, the rows that are left do not determine β."""


@dataclasses.dataclass(frozen=True, eq=False)
class Gaps(Spectral):
    """T responses of which as many rows are missing, each its own.

    Attributes
    ----------
    y : (T, k) ỹ, the missing values filled with anything; b : (T, m, k) B_E; x : (T, m, p) X_E.
    rest_e : (T, m) of y, and rest_ee : (T, m, m) of I, what neither X nor B has in these rows.
    """

    y: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    b: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0)))
    x: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0)))
    rest_e: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    rest_ee: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0)))

    def some(self, at: np.ndarray) -> Gaps:
        own = {name: getattr(self, name)[at] for name in ("squares", "left", *OWN)}
        return dataclasses.replace(self, **own)

    def parts(self, w: np.ndarray, rest: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M (T, m, m), E'Py (T, m) and y'Py (T,) with weights w (T, k) and `rest` (T,) of what B lacks."""
        weighted, rest = w[:, None, :] * self.b, np.broadcast_to(rest, len(self.y))
        m = weighted @ np.swapaxes(self.b, 1, 2) + rest[:, None, None] * self.rest_ee
        v = (weighted @ self.y[..., None])[..., 0] + rest[:, None] * self.rest_e
        return m, v, np.sum(w * self.squares, axis=1) + rest * self.left

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.stack([self.value(*point) for point in zip(a, h, strict=True)])

    def value(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        """f (T,) at a and h, of one ratio for all or one of each."""
        a, h = np.broadcast_to(a, len(self.y)), np.broadcast_to(h, len(self.y))
        return self.logdet(a, h) + self.nu * np.log(self.left_squares(a, h)[0])

    def logdet(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        """Σ log(a + hμ) + log|M| (T,), and log|S_o| under maximum likelihood."""
        scale = a[:, None] + h[:, None] * self.mu
        m, _, _ = self.parts(1.0 / scale, 1.0 / a if self.rest else 0.0)
        out = np.sum(np.log(scale), axis=1) + np.linalg.slogdet(m)[1]
        if self.ml and len(self.xkx):
            out = out + np.linalg.slogdet(self.s_open(a, h, np.linalg.inv(m)))[1]
        return out + self.rest * np.log(a) if self.rest else out

    def n(self, weights: np.ndarray) -> np.ndarray:
        """B_E (weights (T, k) ∘ C), (T, m, p)."""
        return (self.b * weights[:, None, :]) @ self.c

    def s_open(self, a: np.ndarray, h: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """S_o (T, p, p), with M⁻¹ (T, m, m)."""
        scale = a[:, None] + h[:, None] * self.mu
        # a/(a + hμ) in the place of w
        n = self.x - self.n(h[:, None] / scale)
        return self.s_matrix(a, h) + np.swapaxes(n, 1, 2) @ inverse @ n

    def curve(self, a: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first and second derivatives of log|S_o| (T,) in t."""
        if not len(self.xkx):
            return np.zeros(len(a)), np.zeros(len(a))
        scale, s, w = self.shares(a, h)
        r = h[:, None] / scale
        m, m1 = self.parts(w, 1.0)[0], self.parts(-w * s, 0.0)[0]
        m2 = self.parts(-w * s * (1.0 - 2.0 * s), 0.0)[0]
        inverse = np.linalg.inv(m)
        n, n1 = self.x - self.n(r), -self.n(r * (1.0 - s))
        n2 = -self.n(r * (1.0 - s) * (1.0 - 2.0 * s))
        g = inverse @ n
        turn, g_turned = n1 - m1 @ g, np.swapaxes(g, 1, 2)
        # F = N'M⁻¹N, of which ∂F = ∂N'G + G'∂N − G'∂M G with G = M⁻¹N
        half, second = np.swapaxes(n1, 1, 2) @ g, np.swapaxes(n2, 1, 2) @ g
        first = half + np.swapaxes(half, 1, 2) - g_turned @ m1 @ g
        second = second + np.swapaxes(second, 1, 2) - g_turned @ m2 @ g
        second = second + 2.0 * np.swapaxes(turn, 1, 2) @ inverse @ turn
        value, one, two = self.s_curve(a, h)
        return log_determinant(value + np.swapaxes(n, 1, 2) @ g, one + first, two + second)[1:]

    def left_squares(self, a: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """r² (T,), M⁻¹ (T, m, m) and M⁻¹E'Py (T, m)."""
        scale = a[:, None] + h[:, None] * self.mu
        m, v, q = self.parts(1.0 / scale, 1.0 / a if self.rest else 0.0)
        inverse = np.linalg.inv(m)
        g = (inverse @ v[..., None])[..., 0]
        return q - np.sum(v * g, axis=1), inverse, g

    def at(
        self, t: np.ndarray, value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        a, h = sides(t)
        _, s, w = self.shares(a, h)
        turn = -w * s
        found = eliminated(self.parts(w, 1.0), self.parts(turn, 0.0), self.parts(turn * (1.0 - 2.0 * s), 0.0))
        slope = s.sum(axis=1) + self.nu * found.fall + found.logdet_slope
        bend = np.sum(s * (1.0 - s), axis=1) + self.nu * (found.bend - found.fall**2) + found.logdet_bend
        if self.ml:
            slope, bend = (one + two for one, two in zip((slope, bend), self.curve(a, h), strict=True))
        f = self.value(a, h) if value else np.zeros(len(t))
        return f, slope, bend, found.r2 / a, found.fall

    def ends(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.ml:
            return super().ends(t)
        mu = np.broadcast_to(self.mu, self.y.shape)
        at_zero, first = self.parts(np.ones_like(mu), 1.0), self.parts(-mu, 0.0)
        lower = rises(at_zero, first, float(self.mu.sum()), self.nu)
        if not self.regular:
            return lower, np.zeros(len(lower), bool)
        at_one, first = self.parts(1.0 / mu, 0.0), self.parts(-(mu**-2.0), 0.0)
        return lower, rises(at_one, first, float(np.sum(1.0 / self.mu)), self.nu)


OWN = ("y", "b", "x", "rest_e", "rest_ee")
"""What every response has of its own beside its squares."""


def gap_data(
    maker: ProblemMaker, y: np.ndarray, reml: bool
) -> tuple[Problem, list[tuple[Gaps, np.ndarray, np.ndarray]]]:
    """The data of responses y (n, T) with missing values, of those with equally many together.

    Each part has its responses and the rows (T', m) that they lack. Responses with many missing values, with
    rows that do not determine β, or that are fitted perfectly are in none.
    """
    filled, gone, usable = filled_gaps(y)
    count = gone.sum(axis=0)
    problem = maker.lanes(filled, reml)
    out = []
    for m in np.unique(count[usable]):
        alike = np.flatnonzero(usable & (count == m))
        size = max(1, PAIRS // int(max(m, 1) * len(y)))
        for some in np.split(alike, np.arange(size, len(alike), size)):
            data, kept, rows = _gaps(maker, problem, filled, gone, some)
            if len(kept):
                out.append((data, kept, rows))
    return problem, out


def filled_gaps(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses y (n, T) with their means where they are missing, where that is, and who lacks not many."""
    gone = np.isnan(y)
    count = gone.sum(axis=0)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        filled = np.where(gone, np.nansum(y, axis=0) / np.maximum(len(y) - count, 1), y)
        usable = np.isfinite(np.sum(filled * filled, axis=0)) & (count <= MOST * len(y))
    return np.where(usable, filled, 0.0), gone, usable


def row_weights(maker: ProblemMaker, gone: np.ndarray) -> np.ndarray:
    """What log|R| (T,) loses with the rows that are missing, `gone` (n, T)."""
    weights = maker.rows.root_weight
    if weights is None:
        return np.zeros(gone.shape[1])
    return 2.0 * np.log(np.asarray(weights)) @ gone


def gap_estimates(
    maker: ProblemMaker, y: np.ndarray, reml: bool = True
) -> tuple[Estimate, np.ndarray, np.ndarray] | None:
    """Fits of y (n, T) with missing values, how many optima each has, and which were fitted so (T,).

    None if none was; see `gap_data`.
    """
    problem, parts = gap_data(maker, y, reml)
    if not parts:
        return None
    found = mapped(search, [data for data, _, _ in parts])
    points = [_points(maker, data, at, rows) for (data, _, rows), at in zip(parts, found, strict=True)]
    at_all = np.concatenate([kept for _, kept, _ in parts])
    names = [f.name for f in dataclasses.fields(Points)]
    joined = Points(*(np.concatenate([getattr(one, name) for one in points]) for name in names))
    estimate = records(problem, joined, not reml, at_all)
    out = jax.tree.map(lambda a: widened(a, at_all, y.shape[1]), estimate)
    out.moves[:] = 0.0
    optima, done = np.zeros(y.shape[1], int), np.zeros(y.shape[1], bool)
    optima[at_all], done[at_all] = np.concatenate([one.optima for one in found]), True
    return out, optima, done


def _gaps(
    maker: ProblemMaker, problem: Problem, filled: np.ndarray, gone: np.ndarray, some: np.ndarray
) -> tuple[Gaps, np.ndarray, np.ndarray]:
    """The data of some responses with m gaps each, which of them are fitted so, and their rows (T, m)."""
    prepared, response = maker.prepared, problem.response
    assert isinstance(prepared, SpectralPrepared)
    assert isinstance(response, SpectralResponse)
    n, p = len(filled), maker.design.p
    rows = np.nonzero(gone[:, some].T)[1].reshape(len(some), -1)
    m = rows.shape[1]
    y, left = np.asarray(response.y).T[some], np.asarray(response.rest)[some]
    whole = spectral_data(problem, y, left)
    b, x = prepared.b[rows], np.asarray(maker.rows.x).T[rows]
    rest_e, rest_ee = np.zeros((len(some), m)), np.zeros((len(some), m, m))
    if whole.rest:
        # of all rows: what X, then B leaves
        residual = _left_over(maker, filled[:, some]) / np.asarray(problem.origin.scale)[some]
        rest_e = np.take_along_axis(residual.T, rows, axis=1) - (b @ y[..., None])[..., 0]
        rest_ee = np.eye(m) - x @ np.swapaxes(x, 1, 2) - b @ np.swapaxes(b, 1, 2)
    plain = {f.name: getattr(whole, f.name) for f in dataclasses.fields(Spectral)}
    plain["nu"] = float(n - m) if whole.ml else float(n - p - m)
    out = Gaps(**plain, y=y, b=b, x=x, rest_e=rest_e, rest_ee=rest_ee)
    none = whole.rest + np.count_nonzero(whole.mu <= 0)
    if n - m <= p + 1 or 0 < none <= m:
        return out, some[:0], rows[:0]
    at_zero, v, q = out.parts(np.ones(y.shape), 1.0)
    fine = np.linalg.eigvalsh(at_zero)[:, 0] > DETERMINED if m else np.ones(len(some), bool)
    solved = np.linalg.solve(at_zero + (~fine)[:, None, None] * np.eye(m), v[..., None])[..., 0]
    kept = np.flatnonzero(fine & (q - np.sum(v * solved, axis=1) > PERFECT * q))
    return out.some(kept), some[kept], rows[kept]


def _left_over(maker: ProblemMaker, y: np.ndarray) -> np.ndarray:
    """The residuals (n, T) of y (n, T) on X."""
    rows, x = maker.rows, np.asarray(maker.rows.x)
    y = y if rows.offset is None else y - np.asarray(rows.offset)[:, None]
    y = y if rows.root_weight is None else y * np.asarray(rows.root_weight)[:, None]
    return y - x.T @ (x @ y)


def _points(maker: ProblemMaker, data: Gaps, found: Found, rows: np.ndarray) -> Points:
    """The points that were found, of responses without the rows (T, m)."""
    total, t = len(rows), np.where(np.isnan(found.t), 0.0, found.t)
    a, h = at_ends(t)
    scale = a[:, None] + h[:, None] * data.mu
    r2, inverse, g = data.left_squares(a, h)
    s = data.s_open(a, h, inverse)
    n = data.x - data.n(h[:, None] / scale)
    beta = -(data.y * (h[:, None] / scale)) @ data.c - np.einsum("tap,ta->tp", n, g)
    logdet_r, weights = np.full(total, data.logdet_r), maker.rows.root_weight
    if weights is not None:
        logdet_r = logdet_r + 2.0 * np.sum(np.log(np.asarray(weights)[rows]), axis=1)
    value, nu = data.logdet(a, h), np.full(total, data.nu)
    slope, bend, fall = found.slope, found.bend, found.fall
    return Points(found.t, found.steps, value, slope, bend, fall, r2, s, beta, nu, logdet_r)
