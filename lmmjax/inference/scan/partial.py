"""Engines of one kernel whose products have columns to take out at every ratio: missing rows, or X itself.

In coordinates in which V is diagonal, w = 1/(a + hμ), with columns E, M = E'PE and γ = M⁻¹E'Py,

    b = g̃'w(ỹ − E'γ),      c = Σ wg̃² − |L⁻¹E(w∘g̃)|²,      M = LL',

2 + m products for m columns. Responses that lack a few rows keep the decomposition of all rows, E being rows
of B (`core/spectral/gaps.py`); kernels of blocks keep X, E = X̃' (`core/spectral/rows.py`).

Source: Lippert et al. (2011), doi:10.1038/nmeth.1681; Bartlett (1937), Suppl. J. R. Stat. Soc. 4, 137–183.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import cached_property

import numpy as np

from lmmjax.arrays.processors import mapped
from lmmjax.core import ProblemMaker
from lmmjax.core.spectral.rows import Rotated, rotated_points
from lmmjax.core.spectral.search import PAIRS, search
from lmmjax.gram.block.prepare import BlockPrepared
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.scan.engine import ALL, Engine, KernelFits, Null, Refitted
from lmmjax.inference.scan.spectral import LOST, Block, ratio_sides, without_x
from lmmjax.inference.scan.sweep import Sweepable

DETERMINED = 1e-10
"""Share of Σ wg̃² that the columns must leave of a candidate."""

FEW = 8
"""Responses up to which float32 saves nothing."""

UNTOLD = 0.5
"""Share of Σ wg̃² that the columns must leave of a candidate for float32 to tell how much."""

Apart = Callable[[int, bool], tuple[Engine, np.ndarray]]
"""The engine of a response alone, by REML or not, and the rows that it has."""


class PartialEngine(Engine):
    """T responses in coordinates (T, k) of which columns are taken out.

    Attributes
    ----------
    maker : of the model; mu : (k,); a, h : (T,) the sides of the ratio, V ∝ aI + hK.
    y : (T, k) ỹ − E'γ.
    alone : whether responses have columns of their own.
    """

    alone: bool

    maker: ProblemMaker
    mu: np.ndarray
    a: np.ndarray
    h: np.ndarray
    y: np.ndarray

    @abc.abstractmethod
    def columns(self, k: int, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """E (m, k) of a response whose weights are w (k,), and M (m, m)."""

    def weights(self, which: np.ndarray) -> np.ndarray:
        """w (t, k) of some responses."""
        return 1.0 / (self.a[which, None] + self.h[which, None] * self.mu)

    def settle(self, y: np.ndarray) -> np.ndarray:
        """Takes the columns out of responses (T, k); y'Py (T,)."""
        self.y, squares = y.copy(), np.empty(len(y))
        for k in range(len(y)):
            (w,) = self.weights(np.array([k]))
            e, m = self.columns(k, w)
            v = e @ (w * y[k])
            gamma = np.linalg.solve(m, v)
            self.y[k] -= gamma @ e
            squares[k] = np.sum(w * y[k] ** 2) - v @ gamma
        return squares

    def half(self, k: int, w: np.ndarray) -> np.ndarray:
        """L⁻¹E diag(w) (m, k) of a response."""
        e, m = self.columns(k, w)
        return np.linalg.solve(np.linalg.cholesky(m), e) * w

    def _tiles(self, part: slice) -> list[np.ndarray]:
        which = np.arange(len(self.a))[part]
        size = max(1, PAIRS // (8 * len(self.mu)))
        return [which[k : k + size] for k in range(0, len(which), size)]

    def _halves(self, which: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of some responses (S, k), and where each begins (t,)."""
        halves = [self.half(int(k), own) for k, own in zip(which, w, strict=True)]
        counts = [len(half) for half in halves]
        return np.concatenate(halves), np.cumsum([0, *counts])[:-1]

    def products(self, block: Block, part: slice = ALL) -> tuple[np.ndarray, np.ndarray]:
        b, c = [], []
        for which in self._tiles(part):
            w = self.weights(which)
            halves, first = self._halves(which, w)
            b.append(block.g @ (w * self.y[which]).T)
            whole = block.squares @ w.T
            own = whole
            if len(halves):
                own = whole - np.add.reduceat((block.g @ halves.T) ** 2, first, axis=1)
            c.append(np.where(own > DETERMINED * whole, own, np.nan))
        out = np.concatenate(c, axis=1)
        out[block.lost] = np.nan
        return np.concatenate(b, axis=1), out

    def cross(self, one: Block, two: Block, part: slice = ALL) -> np.ndarray:
        out = []
        for which in self._tiles(part):
            w = self.weights(which)
            halves, first = self._halves(which, w)
            found = (one.g * two.g) @ w.T
            if len(halves):
                found = found - np.add.reduceat((one.g @ halves.T) * (two.g @ halves.T), first, axis=1)
            out.append(found)
        return np.concatenate(out, axis=1)

    @cached_property
    def sweepable(self) -> Sweepable | None:
        if len(self.a) < FEW:
            return None
        y = self.weights(np.arange(len(self.a))) * self.y / np.sqrt(self.null.a)[:, None]
        mu = (float(self.mu.min()), float(self.mu.max()))
        return Sweepable(y, self.a, self.h, mu, self._squares, self.alone)

    def _squares(self, block: Block, which: np.ndarray) -> np.ndarray:
        """c (J, k) of candidates of unit length under some responses, in float32."""
        w = self.weights(which)
        halves, first = self._halves(which, w)
        out = w.astype(np.float32) @ block.single_squares
        if len(halves):
            lost = (halves.astype(np.float32) @ block.single) ** 2
            own = out - np.add.reduceat(lost, first, axis=0)
            response, marker = np.nonzero(own <= UNTOLD * out)
            if len(marker):
                c = self.pairs(block, marker, which[response])[1] / block.length[marker] ** 2
                own[response, marker] = np.nan_to_num(c)
            out = own
        return out

    def single(self, block: Block) -> np.ndarray:
        return block.single

    def pairs(self, block: Block, marker: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        b, c = np.empty(len(marker)), np.empty(len(marker))
        for k in np.unique(response):
            at = np.flatnonzero(response == k)
            (w,) = self.weights(np.array([k]))
            g = block.g[marker[at]]
            b[at], c[at] = g @ (w * self.y[k]), self._left(g, g * g, w, self.half(int(k), w))
        c[block.lost[marker]] = np.nan
        return b, c

    @staticmethod
    def _left(g: np.ndarray, squares: np.ndarray, w: np.ndarray, half: np.ndarray) -> np.ndarray:
        """c (k,) of candidates (k, m) under one response, NaN where its columns determine them."""
        whole = squares @ w
        own = whole - np.sum((g @ half.T) ** 2, axis=1)
        return np.where(own > DETERMINED * whole, own, np.nan)

    def by_ml(self) -> Engine:
        return self if not self.null.reml else self.fitted_by_ml

    @property
    @abc.abstractmethod
    def fitted_by_ml(self) -> Engine:
        """The engine of the fits by maximum likelihood."""


class GapEngine(PartialEngine):
    """Responses that lack a few rows each, in the decomposition of all rows.

    Parameters
    ----------
    fits : of the responses, NaN where they are missing.
    apart : the engine of the rows that a response has, for refits.
    """

    alone = True

    def __init__(self, fits: KernelFits, apart: Apart):
        maker, prepared, y = fits.maker, fits.maker.prepared, fits.response
        assert isinstance(prepared, SpectralPrepared)
        self.fits, self.maker, self._apart, rows = fits, maker, apart, maker.rows
        self.basis, self.x, self.left_over = prepared.b, np.asarray(rows.x).T, prepared.left_over
        self.a, self.h, ratio = ratio_sides(maker, fits.psi)
        gone = np.isnan(y)
        self.rows = [np.flatnonzero(own) for own in gone.T]
        filled = np.where(gone, np.nansum(y, axis=0) / np.maximum(np.sum(~gone, axis=0), 1), y)
        self.mu = np.asarray(prepared.shared.mu)
        if self.left_over:
            self.mu = np.append(self.mu, np.zeros(len(y)))
        squares = self.settle(self._coordinates(without_x(maker, filled)))
        self.null = Null.of(np.sum(~gone, axis=0), maker.design.p, squares, fits.deviance, fits.reml, ratio)

    def _coordinates(self, left: np.ndarray) -> np.ndarray:
        """(k, …) B'v of what X leaves of columns (n, …), and what B lacks of them."""
        turned = left.T @ self.basis
        if not self.left_over:
            return np.ascontiguousarray(turned)
        return np.concatenate([turned, left.T - turned @ self.basis.T], axis=1)

    def columns(self, k: int, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows[k]
        b, count = self.basis[rows], self.basis.shape[1]
        m = (b * w[:count]) @ b.T
        if not self.left_over:
            return b, m
        x, unit = self.x[rows], np.zeros((len(rows), len(self.basis)))
        unit[np.arange(len(rows)), rows] = 1.0
        m = m + (np.eye(len(rows)) - x @ x.T - b @ b.T) / self.a[k]
        return np.concatenate([b, unit], axis=1), m

    def prepare(self, g: np.ndarray) -> Block:
        left, lost = without_x(self.maker, g, LOST)
        return Block(self._coordinates(left), None, lost)

    def refit(
        self, columns: tuple[np.ndarray, ...], marker: np.ndarray, response: np.ndarray, reml: bool
    ) -> Refitted:
        q, s = len(marker), len(columns)
        out = Refitted(np.full((q, s), np.nan), np.full((q, s), np.nan), *np.full((3, q), np.nan))
        for k in np.unique(response):
            at = np.flatnonzero(response == k)
            engine, rows = self._apart(int(k), reml)
            own = engine.refit(tuple(c[rows] for c in columns), marker[at], np.zeros(len(at), int), reml)
            for name in ("effect", "se", "ratio", "deviance", "joint"):
                getattr(out, name)[at] = getattr(own, name)
        return out

    @property
    def fitted_by_ml(self) -> Engine:
        if not hasattr(self, "_by_ml"):
            self._by_ml = GapEngine(self.fits.by_ml(), self._apart)
        return self._by_ml


class BlockEngine(PartialEngine):
    """Responses that have all rows of a model of a kernel of blocks; parameters as of `SpectralEngine`."""

    alone = False

    def __init__(self, fits: KernelFits):
        maker, prepared = fits.maker, fits.maker.prepared
        assert isinstance(prepared, BlockPrepared)
        self.fits, self.maker, self.prepared = fits, maker, prepared
        self.mu, self.turned_x = np.asarray(prepared.shared.mu), np.ascontiguousarray(prepared.x.T)
        self.a, self.h, ratio = ratio_sides(maker, fits.psi)
        self.rotated = self._turned(without_x(maker, fits.response))
        squares = self.settle(self.rotated)
        self.null = Null.of(len(fits.y), maker.design.p, squares, fits.deviance, fits.reml, ratio)

    def _turned(self, left: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((self.prepared.turn @ left).T)

    def columns(self, k: int, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.turned_x, (self.turned_x * w) @ self.turned_x.T

    def prepare(self, g: np.ndarray) -> Block:
        left, lost = without_x(self.maker, g, LOST)
        return Block(self._turned(left), None, lost)

    def refit(
        self, columns: tuple[np.ndarray, ...], marker: np.ndarray, response: np.ndarray, reml: bool
    ) -> Refitted:
        blocks = [self.prepare(g) for g in columns]
        lost = np.any([block.lost for block in blocks], axis=0)
        q, s = len(marker), len(columns)
        out = Refitted(np.full((q, s), np.nan), np.full((q, s), np.nan), *np.full((3, q), np.nan))
        usable = np.flatnonzero(~lost[marker])
        # products of a pair: with X, with each other and with y
        width = len(self.mu) * (s * len(self.turned_x) + s * (s + 3) // 2 + 3)
        size = max(1, PAIRS // width)

        def fit(at: np.ndarray) -> tuple[np.ndarray, ...]:
            own = np.stack([block.g[marker[at]] for block in blocks], axis=1)
            return self._fits(self.rotated[response[at]], own, reml)

        parts = [usable[k : k + size] for k in range(0, len(usable), size)]
        for at, found in zip(parts, mapped(fit, parts), strict=True):
            for name, value in zip(("effect", "se", "ratio", "deviance", "joint"), found, strict=True):
                getattr(out, name)[at] = value
        return out

    def _fits(self, y: np.ndarray, own: np.ndarray, reml: bool) -> tuple[np.ndarray, ...]:
        """Effects and errors (Q, s), ratio, criterion and joint F (Q,) of columns (Q, s, n) beside X."""
        (count, s, n), p, shared = own.shape, self.maker.design.p, self.prepared.shared
        unit = float(np.asarray(self.maker.basis.outward[0])[0, 0]) ** 2
        nu = float(n - reml * (p + s))
        data = Rotated(
            self.mu,
            np.zeros((n, p)),
            np.zeros((p, p)),
            0.0,
            y**2,
            np.zeros(count),
            nu,
            not reml,
            unit,
            float(shared.logdet_r),
            y,
            self.prepared.x,
            own,
        )
        points = rotated_points(data, search(data))
        r2, df = points.r2, n - p - s
        effect, cov = points.beta[:, p:], points.s[:, p:, p:]
        deviance = points.value + points.logdet_r + nu * (1.0 + np.log(2.0 * np.pi * r2 / nu))
        if reml:
            factor = np.asarray(self.maker.basis.x_factor)
            deviance = deviance + 2.0 * np.sum(np.log(np.abs(np.diagonal(factor))))
        joint = np.sum(effect * np.linalg.solve(cov, effect[..., None])[..., 0], axis=1) / s / (r2 / df)
        with np.errstate(over="ignore"):
            ratio = np.exp(points.t) * unit
        se = np.sqrt(np.diagonal(cov, axis1=1, axis2=2) * (r2 / df)[:, None])
        return effect, se, ratio, deviance, joint

    @property
    def fitted_by_ml(self) -> Engine:
        if not hasattr(self, "_by_ml"):
            self._by_ml = BlockEngine(self.fits.by_ml())
        return self._by_ml
