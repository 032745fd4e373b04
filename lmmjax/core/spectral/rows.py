"""The criterion of a kernel of small blocks: rows that are independent after a rotation, X still among them.

With V ∝ aI + hK, w = 1/(a + hμ), and X̃, ỹ rotated by the blocks' eigenvectors,

    f = Σ log(a + hμ) + κ log|X̃'wX̃| + ν log r²,      r² = ỹ'wỹ − ỹ'wX̃(X̃'wX̃)⁻¹X̃'wỹ,

so that X is eliminated at every ratio and nothing of n × n is formed. The search is `search.py`'s.

Source: Zhou & Stephens (2012), doi:10.1038/ng.2310; Jiang et al. (2019), doi:10.1038/s41588-019-0530-8, of
relationships that are sparse.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from lmmjax.core.spectral.records import Points, at_ends
from lmmjax.core.spectral.schur import Sums, eliminated, rises
from lmmjax.core.spectral.search import Found, Spectral, sides


@dataclasses.dataclass(frozen=True, eq=False)
class Rotated(Spectral):
    """T responses ỹ (T, n), and X̃ (n, p); `known` are M and log|H| at ratios that were asked for.

    Where responses have columns of their own beside X̃, `own` (T, s, n) has these.
    """

    y: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    x: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    own: np.ndarray | None = None
    known: dict[float, tuple[np.ndarray, float]] = dataclasses.field(default_factory=dict)

    def some(self, at: np.ndarray) -> Rotated:
        own = None if self.own is None else self.own[at]
        return dataclasses.replace(self, squares=self.squares[at], left=self.left[at], y=self.y[at], own=own)

    @cached_property
    def pairs(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Products (n, p(p + 1)/2) of the columns of X̃, and which these are."""
        row, column = np.triu_indices(self.x.shape[1])
        return self.x[:, row] * self.x[:, column], (row, column)

    @cached_property
    def products(self) -> np.ndarray:
        """Products (T, c, n) with the columns of a response's own: of X̃, of themselves, and of ỹ."""
        assert self.own is not None
        count, s, n = self.own.shape
        row, column = np.triu_indices(s)
        with_x = (self.own[:, :, None] * self.x.T).reshape(count, -1, n)
        return np.concatenate(
            [with_x, self.own[:, row] * self.own[:, column], self.own * self.y[:, None]], axis=1
        )

    def sums(self, w: np.ndarray) -> Sums:
        """M, v and q with weights w (n,) for all responses, or (T, n)."""
        whole, (row, column) = self.pairs
        p, shared = self.x.shape[1], w.ndim == 1
        flat = w @ whole
        m = np.empty((*flat.shape[:-1], p, p))
        m[..., row, column] = m[..., column, row] = flat
        m = np.broadcast_to(m, (len(self.y), p, p))
        v = self.y @ (w[:, None] * self.x) if shared else (w * self.y) @ self.x
        q = self.squares @ w if shared else np.einsum("tn,tn->t", self.squares, w)
        if self.own is None:
            return m, v, q
        found = self.products @ w if shared else (self.products @ w[..., None])[..., 0]
        return (*self._widened(m, v, found), q)

    def _widened(self, m: np.ndarray, v: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """M and v with the columns of a response's own, from sums (T, c) of `products`."""
        assert self.own is not None
        (count, s, _), p = self.own.shape, self.x.shape[1]
        out = np.empty((count, p + s, p + s))
        out[:, :p, :p] = m
        out[:, p:, :p] = found[:, : s * p].reshape(count, s, p)
        out[:, :p, p:] = np.swapaxes(out[:, p:, :p], 1, 2)
        row, column = np.triu_indices(s)
        out[:, p + row, p + column] = out[:, p + column, p + row] = found[:, s * p : -s]
        return out, np.concatenate([v, found[:, -s:]], axis=1)

    def on_grid(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.stack([self._value(float(one), float(two)) for one, two in zip(a, h, strict=True)])

    def _value(self, a: float, h: float) -> np.ndarray:
        """f (T,) at one ratio."""
        w = 1.0 / (a + h * self.mu)
        if h not in self.known:
            whole, (row, column) = self.pairs
            p = self.x.shape[1]
            one = np.empty((p, p))
            one[row, column] = one[column, row] = w @ whole
            self.known[h] = one, -float(np.sum(np.log(w)))
        one, logdet = self.known[h]
        m = np.broadcast_to(one, (len(self.y), *one.shape))
        v, q = self.y @ (w[:, None] * self.x), self.squares @ w
        if self.own is not None:
            m, v = self._widened(m, v, self.products @ w)
        r2 = q - np.sum(v * np.linalg.solve(m, v[..., None])[..., 0], axis=1)
        value = logdet + self.nu * np.log(r2) + (self.rest * np.log(a) if self.rest else 0.0)
        return value if self.ml else value + np.linalg.slogdet(m)[1]

    def at(
        self, t: np.ndarray, value: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        a, h = sides(t)
        scale, s, w = self.shares(a, h)
        first = w * s
        sums = self.sums(w)
        found = eliminated(sums, self.sums(-first), self.sums(first * (2.0 * s - 1.0)))
        weight = s.sum(axis=1)
        slope = weight + self.nu * found.fall
        bend = weight - np.einsum("tn,tn->t", s, s) + self.nu * (found.bend - found.fall**2)
        f = np.zeros(len(t))
        if value:
            f = np.sum(np.log(scale), axis=1) + self.nu * np.log(found.r2 / a)
            f = f + self.rest * np.log(a) if self.rest else f
        if not self.ml:
            m = sums[0]
            f = f + np.linalg.slogdet(m)[1] - m.shape[1] * np.log(a)
            slope, bend = slope + found.logdet_slope, bend + found.logdet_bend
        return f, slope, bend, found.r2 / a, found.fall

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
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = a[:, None] + h[:, None] * data.mu
        m, v, q = data.sums(1.0 / scale)
        s = np.linalg.inv(m)
        beta = (s @ v[..., None])[..., 0]
        r2 = q - np.sum(v * beta, axis=1)
        value = np.sum(np.log(scale), axis=1) + (0.0 if data.ml else np.linalg.slogdet(m)[1])
        value = value + data.rest * np.log(a) if data.rest else value
    nu, logdet_r = np.full(total, data.nu), np.full(total, data.logdet_r)
    return Points(found.t, found.steps, value, found.slope, found.bend, found.fall, r2, s, beta, nu, logdet_r)
