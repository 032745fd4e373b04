"""The engine of one kernel with independent residuals: two matrix products a block.

In the coordinates of the spectral backend (`gram/spectral/decomposition.py`), ỹ = B'y, g̃ = B'g and
w = 1/(a + hμ) of each response, V ∝ aI + hK,

    b = Σ wỹg̃ + (what neither X nor B has)/a,      c = Σ wg̃² + (…)/a:

(W∘Ỹ)G̃ and WG̃², for any number of fixed effects.

Source: Lippert et al. (2011), doi:10.1038/nmeth.1681; Zhou & Stephens (2012), doi:10.1038/ng.2310.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, overload

import numpy as np

from lmmjax.arrays.processors import mapped
from lmmjax.core.problem import ProblemMaker
from lmmjax.core.spectral.records import LARGEST
from lmmjax.core.spectral.search import TOGETHER
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.scan.engine import ALL, Engine, KernelFits, Null, Refitted
from lmmjax.inference.scan.spectral_refit import Rotated, refit_pairs
from lmmjax.inference.scan.sweep import Sweepable

LOST = 1e-12
"""Share of its squares that X leaves of a candidate below which X determines it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """k candidates in the coordinates of a kernel.

    Attributes
    ----------
    g : (k, m) G̃; rest : (k, n) what X leaves of them, None where B has all of it; lost : (k,) those that X
        determines.
    """

    g: np.ndarray
    rest: np.ndarray | None
    lost: np.ndarray

    @cached_property
    def length(self) -> np.ndarray:
        """Of all coordinates (k,), 1 of those that have none."""
        squares = np.einsum("km,km->k", self.g, self.g)
        if self.rest is not None:
            squares = squares + np.einsum("kn,kn->k", self.rest, self.rest)
        return np.where(squares > 0, np.sqrt(squares), 1.0)

    @cached_property
    def single(self) -> np.ndarray:
        """All coordinates (m, k), or (m + n, k), over their length, in float32: in one piece, read fast."""
        parts = (self.g,) if self.rest is None else (self.g, self.rest)
        return np.concatenate([(part.T / self.length).astype(np.float32) for part in parts])

    @cached_property
    def single_squares(self) -> np.ndarray:
        """Squares of G̃ (m, k) in float32."""
        return self.single[: self.g.shape[1]] ** 2

    @cached_property
    def squares(self) -> np.ndarray:
        """G̃² (k, m)."""
        return self.g * self.g


@dataclasses.dataclass(frozen=True, eq=False)
class Formed:
    """T responses in the coordinates of a kernel.

    Attributes
    ----------
    weights, rotated, weighted : (T, k) w, ỹ and w∘ỹ; rest : (T, n) what B leaves, None where nothing.
    squares : (T,) y'Py.
    """

    weights: np.ndarray
    rotated: np.ndarray
    weighted: np.ndarray
    rest: np.ndarray | None
    squares: np.ndarray


def ratio_sides(maker: ProblemMaker, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a and h (T,) of V ∝ aI + hK in internal coordinates at ψ (T, 2), and the ratios in the user's."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = psi[:, 0] / psi[:, 1]
    delta = ratio / float(np.asarray(maker.basis.outward[0])[0, 0]) ** 2
    # σ² = 0: as a point, where a = 0
    none = delta >= LARGEST * (1.0 - 1e-9)
    return np.where(none, 0.0, 1.0 / (1.0 + delta)), np.where(none, 1.0, delta / (1.0 + delta)), ratio


@overload
def without_x(maker: ProblemMaker, values: np.ndarray, lost: None = None) -> np.ndarray: ...
@overload
def without_x(maker: ProblemMaker, values: np.ndarray, lost: float) -> tuple[np.ndarray, np.ndarray]: ...
def without_x(maker: ProblemMaker, values: np.ndarray, lost: float | None = None) -> Any:
    """(n, k) what X leaves of columns, whitened; with a share `lost` which (k,) keep no more of them."""
    x, weights = np.asarray(maker.rows.x), maker.rows.root_weight
    whole = values if weights is None else values * np.asarray(weights)[:, None]
    left = whole - x.T @ (x @ whole)
    left = left - x.T @ (x @ left)
    if lost is None:
        return left
    return left, np.einsum("nk,nk->k", left, left) <= lost * np.einsum("nk,nk->k", whole, whole)


class SpectralEngine(Engine):
    """Responses that have all rows of a model of one kernel.

    Parameters
    ----------
    fits : of responses that are complete.
    """

    def __init__(self, fits: KernelFits):
        prepared, maker = fits.maker.prepared, fits.maker
        assert isinstance(prepared, SpectralPrepared)
        self.fits, self.maker = fits, maker
        self.basis = prepared.b
        self.left_over = prepared.left_over
        a, h, ratio = ratio_sides(maker, fits.psi)
        self.a, self.h = a, h
        self.mu = np.asarray(prepared.shared.mu)
        self.ratio = ratio
        self.inverse_a = 1.0 / a if self.left_over else np.zeros(len(a))

    @cached_property
    def formed(self) -> Formed:
        """The responses in the coordinates of the kernel."""
        (n, total), k, y = self.fits.y.shape, len(self.mu), self.fits.response
        weights, rotated, weighted = (np.empty((total, k)) for _ in range(3))
        rest = np.empty((total, n)) if self.left_over else None
        squares = np.empty(total)

        def put(part: slice) -> None:
            residual = without_x(self.maker, y[:, part])
            turned = residual.T @ self.basis
            w = 1.0 / (self.a[part, None] + self.h[part, None] * self.mu)
            weights[part], rotated[part], weighted[part] = w, turned, w * turned
            squares[part] = np.einsum("tk,tk->t", weighted[part], turned)
            if rest is not None:
                rest[part] = residual.T - turned @ self.basis.T
                squares[part] += np.sum(rest[part] ** 2, axis=1) * self.inverse_a[part]

        size = max(1, TOGETHER // n)
        mapped(put, [slice(first, first + size) for first in range(0, total, size)])
        return Formed(weights, rotated, weighted, rest, squares)

    @cached_property
    def null(self) -> Null:  # type: ignore[override]
        return self.null_of(self.formed.squares)

    def null_of(self, squares: np.ndarray) -> Null:
        """The null fits, from y'Py (T,)."""
        fits = self.fits
        n, p = self.maker.design.n, self.maker.design.p
        return Null.of(n, p, squares, fits.deviance, fits.reml, self.ratio)

    @property
    def weights(self) -> np.ndarray:
        """w (T, k)."""
        return self.formed.weights

    @property
    def rotated(self) -> np.ndarray:
        """ỹ (T, k)."""
        return self.formed.rotated

    @property
    def weighted(self) -> np.ndarray:
        """w∘ỹ (T, k)."""
        return self.formed.weighted

    @property
    def rest(self) -> np.ndarray | None:
        """What B leaves of the responses (T, n), None where it leaves nothing."""
        return self.formed.rest

    @cached_property
    def sweepable(self) -> Sweepable:
        root, least = np.sqrt(self.null.a)[:, None], float(self.mu.min(initial=np.inf))
        y = self.weighted / root
        if self.rest is not None:
            y, least = np.concatenate([y, self.rest * self.inverse_a[:, None] / root], axis=1), 0.0
        return Sweepable(y, self.a, self.h, (least, float(self.mu.max(initial=0.0))), self._squares)

    def _squares(self, block: Block, which: np.ndarray) -> np.ndarray:
        a, h = self.a[which], self.h[which]
        out = (1.0 / (a[:, None] + h[:, None] * self.mu)).astype(np.float32) @ block.single_squares
        if block.rest is not None:
            out = out + np.sum(block.rest**2, axis=1) / block.length**2 / a[:, None]
        return out

    def single(self, block: Block) -> np.ndarray:
        return block.single

    def prepare(self, g: np.ndarray) -> Block:
        left, lost = without_x(self.maker, g, LOST)
        turned = np.ascontiguousarray(left.T @ self.basis)
        rest = left.T - turned @ self.basis.T if self.left_over else None
        return Block(turned, rest, lost)

    def products(self, block: Block, part: slice = ALL) -> tuple[np.ndarray, np.ndarray]:
        b = block.g @ self.weighted[part].T
        c = block.squares @ self.weights[part].T
        if block.rest is not None and self.rest is not None:
            b += block.rest @ (self.rest[part] * self.inverse_a[part, None]).T
            c += np.sum(block.rest**2, axis=1)[:, None] * self.inverse_a[part]
        c[block.lost] = np.nan
        return b, c

    def cross(self, one: Block, two: Block, part: slice = ALL) -> np.ndarray:
        out = (one.g * two.g) @ self.weights[part].T
        if one.rest is not None and two.rest is not None:
            out += np.sum(one.rest * two.rest, axis=1)[:, None] * self.inverse_a[part]
        return out

    def pairs(self, block: Block, marker: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        g = block.g[marker]
        b = np.einsum("qm,qm->q", g, self.weighted[response])
        c = np.einsum("qm,qm,qm->q", g, g, self.weights[response])
        if block.rest is not None and self.rest is not None:
            rest, scale = block.rest[marker], self.inverse_a[response]
            b += np.einsum("qn,qn->q", rest, self.rest[response]) * scale
            c += np.einsum("qn,qn->q", rest, rest) * scale
        c[block.lost[marker]] = np.nan
        return b, c

    def refit(
        self, columns: tuple[np.ndarray, ...], marker: np.ndarray, response: np.ndarray, reml: bool
    ) -> Refitted:
        blocks = [self.prepare(g) for g in columns]
        rotated = Rotated(
            self.rotated,
            self.rest,
            np.stack([block.g for block in blocks], axis=1),
            np.stack(rests, axis=1) if (rests := [b.rest for b in blocks if b.rest is not None]) else None,
            np.any([block.lost for block in blocks], axis=0),
        )
        return refit_pairs(self.maker, rotated, marker, response, reml)

    def by_ml(self) -> SpectralEngine:
        return self if not self.null.reml else self.fitted_by_ml

    @cached_property
    def fitted_by_ml(self) -> SpectralEngine:
        """The engine of the fits by maximum likelihood."""
        return SpectralEngine(self.fits.by_ml())
