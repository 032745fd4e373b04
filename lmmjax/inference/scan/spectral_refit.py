"""Exact fits of pairs of a candidate and a response under one kernel: the global optimum of each.

With s columns g of a candidate beside X, v = g'Py and M = g'Pg in the coordinates of the kernel,

    f = Σ log(a + hμ) + m log a + log|M| + (n − p − s) log r²        by REML,
    f = Σ log(a + hμ) + m log a + log|S| + n log r²                  by maximum likelihood,
    r² = y'Py − v'M⁻¹v.

Their derivatives in t = log(h/a) follow from those of the weights, as in `core/spectral/search.py`, whose
search they are handed to: a grid, and a descent from every local minimum of it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays.processors import mapped
from lmmjax.core.problem import ProblemMaker
from lmmjax.core.spectral.records import at_ends
from lmmjax.core.spectral.search import Spectral, search, sides
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.scan.engine import Refitted

AT_ONCE = 1 << 18
"""Numbers of pairs by eigenvalues that a thread works on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rotated:
    """Responses ỹ (T, m) and candidates (k, s, m), what B lacks of both, (T, n) and (k, s, n) or None.

    `lost` (k,) are the candidates that X determines.
    """

    y: np.ndarray
    y_rest: np.ndarray | None
    g: np.ndarray
    g_rest: np.ndarray | None
    lost: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs(Spectral):
    """Q pairs of a response and s columns.

    Attributes
    ----------
    crossed : (Q, L, m) products of [y g₁ … gₛ] with each other, the upper triangle by rows.
    crossed_rest : (Q, L) the same of what B lacks.
    """

    crossed: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3, 0)))
    crossed_rest: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))

    def some(self, at: np.ndarray) -> Pairs:
        names = ("squares", "left", "crossed", "crossed_rest")
        return dataclasses.replace(self, **{name: getattr(self, name)[at] for name in names})

    def sums(self, w: np.ndarray, rest: np.ndarray | float) -> np.ndarray:
        """[y g]'P[y g] (Q, L) with weights w (Q, m), and `rest` (Q,) of what B lacks."""
        found = (self.crossed @ w[..., None])[..., 0]
        return found + np.reshape(np.broadcast_to(rest, len(found)), (-1, 1)) * self.crossed_rest

    def criterion(self, z: np.ndarray) -> np.ndarray:
        """log|M| under REML + ν log r² (...) of sums z (..., L)."""
        r2, m = left_squares(z)[:2]
        out = self.nu * np.log(r2)
        return out if self.ml else out + np.linalg.slogdet(m)[1]

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        scale = a[:, None] + h[:, None] * self.mu
        count, l, m = self.crossed.shape
        z = ((1.0 / scale) @ self.crossed.reshape(count * l, m).T).reshape(len(a), count, l)
        logdet = np.sum(np.log(scale), axis=1)
        if self.rest:
            z = z + self.crossed_rest / a[:, None, None]
            logdet = logdet + self.rest * np.log(a)
        if self.ml:
            logdet = logdet + np.linalg.slogdet(self.s_matrix(a, h))[1]
        return logdet[:, None] + self.criterion(z)

    def at(
        self, t: np.ndarray, value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        a, h = sides(t)
        scale, s, w = self.shares(a, h)
        z0 = self.sums(w, 1.0)
        z1, z2 = self.sums(-w * s, 0.0), self.sums(-w * s * (1.0 - 2.0 * s), 0.0)
        r2, m, g, inverse = left_squares(z0)
        q1, v1, m1 = unpacked(z1)
        q2, v2, m2 = unpacked(z2)
        turn = v1 - (m1 @ g[..., None])[..., 0]
        first = q1 - np.sum(g * (v1 + turn), axis=-1)
        second = q2 - 2.0 * np.sum(g * v2, axis=-1) + np.sum(g * (m2 @ g[..., None])[..., 0], axis=-1)
        second = second - 2.0 * np.sum(turn * (inverse @ turn[..., None])[..., 0], axis=-1)
        slope = s.sum(axis=1) + self.nu * first / r2
        bend = np.sum(s * (1.0 - s), axis=1) + self.nu * (second / r2 - (first / r2) ** 2)
        f = np.zeros(len(t))
        if value:
            # over a, as the determinants of the scale a + hμ
            f = np.sum(np.log(scale), axis=1) + (self.rest * np.log(a) if self.rest else 0.0)
            f = f + self.nu * np.log(r2 / a)
        if self.ml:
            own, d1, d2 = self.log_s(a, h)
            return f + own, slope + d1, bend + d2, r2 / a, first / r2
        solved = inverse @ m1
        slope = slope + np.trace(solved, axis1=-2, axis2=-1)
        bend = bend + np.sum(inverse * m2, axis=(-2, -1))
        bend = bend - np.sum(solved * np.swapaxes(solved, -2, -1), axis=(-2, -1))
        f = f + np.linalg.slogdet(m)[1] - m.shape[-1] * np.log(a)
        return f, slope, bend, r2 / a, first / r2

    def ends(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.ml:
            return super().ends(t)
        shape = (len(self.squares), len(self.mu))
        one = np.ones(shape)
        lower = self._rises(one, -np.broadcast_to(self.mu, shape), 1.0, float(self.mu.sum()))
        if not self.regular:
            return lower, np.zeros(len(lower), bool)
        upper = self._rises(
            np.broadcast_to(1.0 / self.mu, shape),
            -np.broadcast_to(self.mu**-2.0, shape),
            0.0,
            float(np.sum(1.0 / self.mu)),
        )
        return lower, upper

    def _rises(self, w: np.ndarray, change: np.ndarray, rest: float, logdet: float) -> np.ndarray:
        """Whether f rises (Q,) where the weights are w, and change so."""
        r2, _, g, inverse = left_squares(self.sums(w, rest))
        q1, v1, m1 = unpacked(self.sums(change, 0.0))
        first = q1 - 2.0 * np.sum(g * v1, axis=-1) + np.sum(g * (m1 @ g[..., None])[..., 0], axis=-1)
        trace = np.trace(inverse @ m1, axis1=-2, axis2=-1)
        return logdet + trace + self.nu * first / r2 >= 0


def unpacked(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y'Py (...), g'Py (..., s) and g'Pg (..., s, s) of sums (..., L)."""
    s = round((np.sqrt(8 * z.shape[-1] + 1) - 1) / 2) - 1
    m = np.empty((*z.shape[:-1], s, s))
    row, column = np.triu_indices(s)
    m[..., row, column] = m[..., column, row] = z[..., s + 1 :]
    return z[..., 0], z[..., 1 : s + 1], m


def left_squares(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """r² (...), M, M⁻¹v (..., s) and M⁻¹."""
    q, v, m = unpacked(z)
    inverse = 1.0 / m if m.shape[-1] == 1 else np.linalg.inv(m)
    g = (inverse @ v[..., None])[..., 0]
    return q - np.sum(v * g, axis=-1), m, g, inverse


def refit_pairs(
    maker: ProblemMaker, rotated: Rotated, marker: np.ndarray, response: np.ndarray, reml: bool
) -> Refitted:
    """The fits of pairs marker (Q,), response (Q,); NaN for candidates that X determines."""
    count, s = len(marker), rotated.g.shape[1]
    out = Refitted(
        np.full((count, s), np.nan),
        np.full((count, s), np.nan),
        np.full(count, np.nan),
        np.full(count, np.nan),
        np.full(count, np.nan),
    )
    usable = np.flatnonzero(~rotated.lost[marker] & np.isfinite(rotated.y[response, :1]).all(axis=1))
    size = max(1, AT_ONCE // max(1, rotated.y.shape[1] * (s + 1) * (s + 2) // 2))
    parts = [usable[first : first + size] for first in range(0, len(usable), size)]
    fits = mapped(lambda at: _fits(maker, rotated, marker[at], response[at], reml), parts)
    for at, found in zip(parts, fits, strict=True):
        for name in ("effect", "se", "ratio", "deviance", "joint"):
            getattr(out, name)[at] = getattr(found, name)
    return out


def _fits(
    maker: ProblemMaker, rotated: Rotated, marker: np.ndarray, response: np.ndarray, reml: bool
) -> Refitted:
    data = _pairs(maker, rotated, marker, response, reml)
    s = rotated.g.shape[1]
    n, p = maker.design.n, maker.design.p
    found = search(data)
    t = np.where(np.isnan(found.t), 0.0, found.t)
    a, h = at_ends(t)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = a[:, None] + h[:, None] * data.mu
        z = data.sums(1.0 / scale, 1.0 / a if data.rest else 0.0)
        r2, m, effect, inverse = left_squares(z)
        value = np.sum(np.log(scale), axis=1) + (data.rest * np.log(a) if data.rest else 0.0)
        value = value + data.nu * np.log(r2) + data.logdet_r
        value = value + data.nu * (1.0 + np.log(2.0 * np.pi / data.nu))
        if reml:
            factor = np.asarray(maker.basis.x_factor)
            value = value + np.linalg.slogdet(m)[1] + 2.0 * np.sum(np.log(np.abs(np.diagonal(factor))))
        else:
            value = value + np.linalg.slogdet(data.s_matrix(a, h))[1]
        df = n - p - s
        se = np.sqrt(np.diagonal(inverse, axis1=-2, axis2=-1) * (r2 / df)[:, None])
        joint = (z[:, 0] - r2) / s / (r2 / df)
        ratio = np.where(a > 0, h / a, np.inf) * data.unit
    lost = np.isnan(found.t)
    for one in (effect, se, ratio, value, joint):
        one[lost] = np.nan
    return Refitted(effect, se, ratio, value, joint)


def _pairs(
    maker: ProblemMaker, rotated: Rotated, marker: np.ndarray, response: np.ndarray, reml: bool
) -> Pairs:
    prepared = maker.prepared
    assert isinstance(prepared, SpectralPrepared)
    shared, s = prepared.shared, rotated.g.shape[1]
    y, g = rotated.y[response], rotated.g[marker]
    whole = np.concatenate([y[:, None], g], axis=1)
    row, column = np.triu_indices(s + 1)
    rest = np.zeros((len(marker), len(row)))
    if rotated.y_rest is not None and rotated.g_rest is not None:
        both = np.concatenate([rotated.y_rest[response][:, None], rotated.g_rest[marker]], axis=1)
        rest = np.einsum("qln,qln->ql", both[:, row], both[:, column])
    crossed = whole[:, row] * whole[:, column]
    return Pairs(
        np.asarray(shared.mu),
        np.asarray(shared.c),
        np.asarray(shared.xkx),
        float(shared.rest),
        crossed[:, 0],
        rest[:, 0],
        float(maker.design.n - reml * (maker.design.p + s)),
        not reml,
        float(np.asarray(maker.basis.outward[0])[0, 0]) ** 2,
        float(shared.logdet_r),
        crossed,
        rest,
    )
