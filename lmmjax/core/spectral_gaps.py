"""Fits of one kernel to responses with missing values, without another decomposition.

A missing value is a fixed effect of its row: with E the columns of the m missing rows and P of all rows,

    P_o = P − PE M⁻¹ E'P,     M = E'PE = B_E diag(w) B_E' + (what neither X nor B has, in these rows),
    log|H_oo| + log|X_o'H_oo⁻¹X_o| = log|H| + log|X'H⁻¹X| + log|M|,

of which the derivatives in t follow from those of w. The missing values are predicted by −M⁻¹E'Py, and with
N = (X − δB(w∘C))_E the covariance of β̂ is that of all rows and N'M⁻¹N. Under REML; m is to be small beside n.

Source: missing plots by dummy variables, Bartlett (1937), doi:10.2307/2983642; checked against the fits of
the rows that are left.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.core.spectral_fit import spectral_data, widened
from lmmjax.core.spectral_records import Points, at_ends, records
from lmmjax.core.spectral_search import Found, Spectral, search, sides
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
    """One response, of which some rows are missing: REML.

    Attributes
    ----------
    y : (k,) ỹ, the missing values filled with anything; b : (m, k) B_E; x : (m, p) X_E.
    rest_e : (m,) of y, and rest_ee : (m, m) of I, what neither X nor B has in these rows.
    """

    y: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    b: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    x: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    rest_e: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    rest_ee: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))

    def some(self, at: np.ndarray) -> Gaps:
        return self

    def parts(self, w: np.ndarray, rest: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M (J, m, m), E'Py (J, m) and y'Py (J,) with weights w (J, k) and `rest` (J,) of what B lacks."""
        rest = np.broadcast_to(rest, len(w))
        m = (w[:, None, :] * self.b) @ self.b.T + rest[:, None, None] * self.rest_ee
        v = (w * self.y) @ self.b.T + rest[:, None] * self.rest_e
        return m, v, w @ self.squares[0] + rest * self.left[0]

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        scale = a[:, None] + h[:, None] * self.mu
        with np.errstate(divide="ignore"):
            m, v, q = self.parts(1.0 / scale, 1.0 / a if self.rest else 0.0)
        r2 = q - np.einsum("ja,ja->j", v, np.linalg.solve(m, v[..., None])[..., 0])
        value = np.sum(np.log(scale), axis=1) + np.linalg.slogdet(m)[1] + self.nu * np.log(r2)
        return (value + (self.rest * np.log(a) if self.rest else 0.0))[:, None]

    def at(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        a, h = sides(t)
        scale = a[:, None] + h[:, None] * self.mu
        s, w = h[:, None] * self.mu / scale, a[:, None] / scale
        m, v, q = self.parts(w, 1.0)
        m1, v1, q1 = self.parts(-w * s, 0.0)
        m2, v2, q2 = self.parts(-w * s * (1.0 - 2.0 * s), 0.0)
        inverse = np.linalg.inv(m)
        g = np.einsum("jab,jb->ja", inverse, v)
        r2 = q - np.einsum("ja,ja->j", v, g)
        first = q1 - 2.0 * np.einsum("ja,ja->j", g, v1) + np.einsum("ja,jab,jb->j", g, m1, g)
        turn = v1 - np.einsum("jab,jb->ja", m1, g)
        second = q2 - 2.0 * np.einsum("ja,ja->j", g, v2) + np.einsum("ja,jab,jb->j", g, m2, g)
        second = second - 2.0 * np.einsum("ja,jab,jb->j", turn, inverse, turn)
        solved = inverse @ m1
        slope = s.sum(axis=1) + np.trace(solved, axis1=1, axis2=2) + self.nu * first / r2
        bend = np.sum(s * (1.0 - s), axis=1) + self.nu * (second / r2 - (first / r2) ** 2)
        bend = bend + np.sum(inverse * m2, axis=(1, 2)) - np.einsum("jab,jba->j", solved, solved)
        # the criterion on the scale of a and h
        value = np.sum(np.log(scale), axis=1) + self.rest * np.log(a) + np.linalg.slogdet(m)[1]
        value = value - len(self.b) * np.log(a) + self.nu * np.log(r2 / a)
        return value, slope, bend, r2 / a, first / r2

    def ends(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mu = self.mu[None]
        lower = self._rises(np.ones_like(mu), -mu, 1.0, mu.sum())
        if not self.regular:
            return np.array([lower]), np.zeros(1, bool)
        upper = self._rises(1.0 / mu, -(mu**-2.0), 0.0, np.sum(1.0 / mu))
        return np.array([lower]), np.array([upper])

    def _rises(self, w: np.ndarray, change: np.ndarray, rest: float, logdet: float) -> bool:
        """Whether f rises where the weights (1, k) are w, and change so."""
        (m,), (v,), (q,) = self.parts(w, rest)
        (m1,), (v1,), (q1,) = self.parts(change, 0.0)
        g = np.linalg.solve(m, v)
        r2, first = q - v @ g, q1 - 2.0 * g @ v1 + g @ m1 @ g
        return bool(logdet + np.trace(np.linalg.solve(m, m1)) + self.nu * first / r2 >= 0)


def gap_estimates(maker: ProblemMaker, y: np.ndarray) -> tuple[Estimate, np.ndarray, np.ndarray]:
    """REML fits of y (n, T) with missing values, how many optima each has, and which were fitted so (T,).

    Those with many missing values, with rows that do not determine β, or that are fitted perfectly are not.
    """
    prepared = maker.prepared
    assert isinstance(prepared, SpectralPrepared)
    gone = np.isnan(y)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean = np.nansum(y, axis=0) / np.maximum((~gone).sum(axis=0), 1)
        filled = np.where(gone, mean, y)
        usable = np.isfinite(np.sum(filled * filled, axis=0)) & (gone.sum(axis=0) <= MOST * len(y))
    problem = maker.lanes(np.where(usable, filled, 0.0), True)
    response, found, points = problem.response, [], []
    assert isinstance(response, SpectralResponse)
    coordinates = np.asarray(response.y).T
    whole = spectral_data(problem, coordinates, np.asarray(response.rest))
    for k in np.flatnonzero(usable):
        own = _gaps(maker, problem, whole.some(np.array([k])), coordinates[k], filled[:, k], gone[:, k])
        if own is None:
            usable[k] = False
            continue
        at = search(own)
        found.append(at)
        points.append(_points(maker, own, at, np.flatnonzero(gone[:, k])))
    which = np.flatnonzero(usable)
    if not len(which):
        p, none = maker.design.p, np.zeros(0)
        points = [Points(*[none] * 7, np.zeros((0, p, p)), np.zeros((0, p)), none, none)]
        found = [Found(none, np.zeros(0, int), np.zeros(0, int))]
    joined = Points(
        *(np.concatenate([getattr(p, f.name) for p in points]) for f in dataclasses.fields(Points))
    )
    estimate = records(problem, joined, False, which)
    fields = {
        f.name: widened(getattr(estimate, f.name), which, y.shape[1]) for f in dataclasses.fields(Estimate)
    }
    out = Estimate(**fields)
    out.moves[:] = 0.0
    optima = np.zeros(y.shape[1], int)
    optima[which] = np.concatenate([at.optima for at in found])
    return out, optima, usable


def _gaps(
    maker: ProblemMaker,
    problem: Problem,
    whole: Spectral,
    y: np.ndarray,
    filled: np.ndarray,
    missing: np.ndarray,
) -> Gaps | None:
    """The data of one response, y (k,) in coordinates, filled (n,) with gaps (n,); None for another way."""
    prepared, gone = maker.prepared, np.flatnonzero(missing)
    assert isinstance(prepared, SpectralPrepared)
    n, p, m = len(filled), maker.design.p, len(gone)
    none = whole.rest + np.count_nonzero(whole.mu <= 0)
    if n - m <= p + 1 or 0 < none <= m:
        return None
    b, x = prepared.b[gone], np.asarray(maker.rows.x).T[gone]
    rest_e, rest_ee = np.zeros(m), np.zeros((m, m))
    if whole.rest:
        # of all rows: what X, then B leaves of y
        rest_e = _left_over(maker, problem, filled)[gone] - b @ y
        rest_ee = np.eye(m) - x @ x.T - b @ b.T
    plain = {f.name: getattr(whole, f.name) for f in dataclasses.fields(Spectral)}
    plain["nu"] = float(n - p - m)
    out = Gaps(**plain, y=y, b=b, x=x, rest_e=rest_e, rest_ee=rest_ee)
    (at_zero,), (v,), (q,) = out.parts(np.ones((1, len(out.mu))), 1.0)
    if np.linalg.eigvalsh(at_zero)[0] < DETERMINED:
        return None
    return out if q - v @ np.linalg.solve(at_zero, v) > PERFECT * q else None


def _left_over(maker: ProblemMaker, problem: Problem, y: np.ndarray) -> np.ndarray:
    """The residuals (n,) of y (n,) on X, in the units of its coordinates."""
    rows = maker.rows
    y = y if rows.offset is None else y - np.asarray(rows.offset)
    y = y if rows.root_weight is None else y * np.asarray(rows.root_weight)
    x = np.asarray(rows.x)
    residual = y - x.T @ (x @ y)
    return residual / np.sqrt(np.mean(residual**2))


def _points(maker: ProblemMaker, data: Gaps, found: Found, gone: np.ndarray) -> Points:
    """The point that was found, of one response."""
    t = np.where(np.isnan(found.t), 0.0, found.t)
    a, h = at_ends(t)
    value = data.on_grid(a, h)[0]
    scale = a[:, None] + h[:, None] * data.mu
    with np.errstate(divide="ignore"):
        m, v, q = data.parts(1.0 / scale, 1.0 / a if data.rest else 0.0)
    inverse = np.linalg.inv(m)
    g = np.einsum("jab,jb->ja", inverse, v)
    r2 = q - np.einsum("ja,ja->j", v, g)
    # N = X − δB(w∘C), a/(a + hμ) in the place of w
    n = data.x[None] - (h[:, None, None] * data.b[None] / scale[:, None, :]) @ data.c
    s = data.s_matrix(a, h) + np.swapaxes(n, 1, 2) @ inverse @ n
    beta = -(data.y * (h[:, None] / scale)) @ data.c - np.einsum("jap,ja->jp", n, g)
    slope, bend, fall = np.zeros(1), np.ones(1), np.zeros(1)
    if np.isfinite(t[0]):
        _, slope, bend, _, fall = data.at(t)
    weights = maker.rows.root_weight
    lost = 0.0 if weights is None else 2.0 * np.sum(np.log(np.asarray(weights)[gone]))
    plain = value - data.nu * np.log(r2)
    return Points(
        found.t,
        found.steps,
        plain,
        slope,
        bend,
        fall,
        r2,
        s,
        beta,
        np.array([data.nu]),
        np.array([data.logdet_r + lost]),
    )
