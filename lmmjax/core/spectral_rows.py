"""The criterion of a kernel of small blocks: rows that are independent after a rotation, X still among them.

With V ∝ aI + hK, w = 1/(a + hμ), and X̃, ỹ rotated by the blocks' eigenvectors,

    f = Σ log(a + hμ) + κ log|X̃'wX̃| + ν log r²,      r² = ỹ'wỹ − ỹ'wX̃(X̃'wX̃)⁻¹X̃'wỹ,

so that X is eliminated at every ratio and nothing of n × n is formed. The search is `spectral_search`'s.

Source: Zhou & Stephens (2012), doi:10.1038/ng.2310; Jiang et al. (2019), doi:10.1038/s41588-019-0530-8, of
relationships that are sparse.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.core.spectral_records import Points, at_ends
from lmmjax.core.spectral_schur import Sums, eliminated, rises
from lmmjax.core.spectral_search import Found, Spectral, sides


@dataclasses.dataclass(frozen=True, eq=False)
class Rotated(Spectral):
    """T responses ỹ (T, n), and X̃ (n, p); `known` are M and log|H| at ratios that were asked for.

    Where responses have columns of their own beside X̃, `own` (T, n, s) has these.
    """

    y: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    x: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    own: np.ndarray | None = None
    known: dict[float, tuple[np.ndarray, float]] = dataclasses.field(default_factory=dict)

    def some(self, at: np.ndarray) -> Rotated:
        own = None if self.own is None else self.own[at]
        return dataclasses.replace(self, squares=self.squares[at], left=self.left[at], y=self.y[at], own=own)

    def columns(self, k: int) -> np.ndarray:
        """[X̃ and what is a response's own] (n, p + s)."""
        return self.x if self.own is None else np.concatenate([self.x, self.own[k]], axis=1)

    def sums(self, w: np.ndarray) -> Sums:
        """M, v and q with weights w (n,) for all responses, or (T, n)."""
        if w.ndim == 1 and self.own is None:
            weighted = w[:, None] * self.x
            m = weighted.T @ self.x
            return np.broadcast_to(m, (len(self.y), *m.shape)), self.y @ weighted, self.squares @ w
        m, v, q = [], [], []
        for k in range(len(self.y)):
            mine, e = np.broadcast_to(w, self.y.shape)[k], self.columns(k)
            weighted = mine[:, None] * e
            m.append(weighted.T @ e)
            v.append(self.y[k] @ weighted)
            q.append(self.squares[k] @ mine)
        p = self.x.shape[1] + (0 if self.own is None else self.own.shape[2])
        return np.reshape(m, (len(m), p, p)), np.reshape(v, (len(v), p)), np.array(q, float)

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.stack([self._value(float(one), float(two)) for one, two in zip(a, h, strict=True)])

    def _value(self, a: float, h: float) -> np.ndarray:
        """f (T,) at one ratio."""
        scale = a + h * self.mu
        if self.own is not None:
            m, v, q = self.sums(1.0 / scale)
            logdet = float(np.sum(np.log(scale)))
        else:
            weighted = self.x / scale[:, None]
            if h not in self.known:
                self.known[h] = weighted.T @ self.x, float(np.sum(np.log(scale)))
            one, logdet = self.known[h]
            m, v = np.broadcast_to(one, (len(self.y), *one.shape)), self.y @ weighted
            q = self.squares @ (1.0 / scale)
        r2 = q - np.sum(v * np.linalg.solve(m, v[..., None])[..., 0], axis=1)
        value = logdet + self.nu * np.log(r2)
        return value if self.ml else value + np.linalg.slogdet(m)[1]

    def at(
        self, t: np.ndarray, value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        a, h = sides(t)
        out = np.empty((5, len(t)))
        for k in range(len(t)):
            one = self.some(np.array([k]))
            scale = a[k] + h[k] * self.mu
            s, w = h[k] * self.mu / scale, a[k] / scale
            first = w * s
            sums = one.sums(w[None])
            found = eliminated(sums, one.sums(-first[None]), one.sums((first * (2.0 * s - 1.0))[None]))
            slope = s.sum() + self.nu * found.fall[0]
            bend = np.sum(s * (1.0 - s)) + self.nu * (found.bend[0] - found.fall[0] ** 2)
            f = np.sum(np.log(scale)) + self.nu * np.log(found.r2[0] / a[k]) if value else 0.0
            if not self.ml:
                m = sums[0][0]
                f = f + np.linalg.slogdet(m)[1] - len(m) * np.log(a[k])
                slope, bend = slope + found.logdet_slope[0], bend + found.logdet_bend[0]
            out[:, k] = f, slope, bend, found.r2[0] / a[k], found.fall[0]
        return out[0], out[1], out[2], out[3], out[4]

    def ends(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.ml:
            return super().ends(t)
        mu, one = self.mu, np.ones(len(self.mu))
        lower = rises(self.sums(one), self.sums(-mu), float(mu.sum()), self.nu)
        if not self.regular:
            return lower, np.zeros(len(lower), bool)
        # in ε = a/h: f = Σ log(ε + μ) + …
        return lower, rises(self.sums(1.0 / mu), self.sums(-(mu**-2.0)), float(np.sum(1.0 / mu)), self.nu)

    def open_squares(self) -> np.ndarray:
        """The squares (T,) that X leaves in the directions in which K is zero."""
        none = self.mu <= 0
        if not none.any():
            return np.full(len(self.y), np.inf)
        x, y = self.x[none], self.y[:, none].T
        return np.sum((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2, axis=0)


def rotated_points(data: Rotated, found: Found) -> Points:
    """The criterion, and what follows from its ratio, at the minima of responses."""
    total, t = len(data.y), np.where(np.isnan(found.t), 0.0, found.t)
    a, h = at_ends(t)
    p = data.x.shape[1] + (0 if data.own is None else data.own.shape[2])
    value, r2, beta, s = np.empty(total), np.empty(total), np.empty((total, p)), np.empty((total, p, p))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in range(total):
            scale = a[k] + h[k] * data.mu
            (m,), (v,), (q,) = data.some(np.array([k])).sums(1.0 / scale[None])
            s[k] = np.linalg.inv(m)
            beta[k] = s[k] @ v
            r2[k] = q - v @ beta[k]
            value[k] = np.sum(np.log(scale)) + (0.0 if data.ml else np.linalg.slogdet(m)[1])
    nu, logdet_r = np.full(total, data.nu), np.full(total, data.logdet_r)
    return Points(found.t, found.steps, value, found.slope, found.bend, found.fall, r2, s, beta, nu, logdet_r)
