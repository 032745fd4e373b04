"""One criterion for everybody, in NumPy and independent of every package timed.

A package reports the covariance of its random effects and its residual variance; what counts is the ML or
REML criterion *there*, and how far that lies above the best optimum known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import formulaic
import numpy as np
import pandas as pd
import scipy.linalg
import scipy.optimize

from benchmarks.harness.spec import Model

ABSOLUTE, RELATIVE = 1e-6, 1e-9


def tolerance(best: np.ndarray) -> np.ndarray:
    """How far above `best` a criterion may lie: 1e-6, or 1e-9 of it where that is more."""
    return np.maximum(ABSOLUTE, RELATIVE * np.abs(best))


@dataclass(frozen=True)
class Judge:
    """X (n × p), and Z with its cross-products in B diagonal blocks of m columns.

    A term has q effects, its entry in `widths`. When all terms share one grouping factor there is a block a
    level, m = Σq; otherwise everything is one block, in which the term's Λ is repeated `repeats` times.
    Row i of `z` (n × m) are the entries of Z in block `block[i]`, all others are zero.
    """

    x: np.ndarray
    z: np.ndarray
    block: np.ndarray
    ztz: np.ndarray
    widths: tuple[int, ...]
    repeats: tuple[int, ...]
    reml: bool
    root: np.ndarray | None = None

    @classmethod
    def of(cls, model: Model, design: pd.DataFrame) -> Judge:
        """The judge of `model` on the rows of `design`."""
        x = _columns(model.fixed, design)
        effects = [_columns(term.effects, design) for term in model.terms]
        codes = [pd.factorize(design[term.group])[0] for term in model.terms]
        if len({term.group for term in model.terms}) == 1:
            z, block = np.concatenate(effects, axis=1), codes[0]
            repeats = (1,) * len(effects)
        else:
            z = np.concatenate([_indicate(e, c) for e, c in zip(effects, codes, strict=True)], axis=1)
            block = np.zeros(len(x), dtype=int)
            repeats = tuple(int(c.max()) + 1 for c in codes)
        widths = tuple(e.shape[1] for e in effects)
        return cls(x, z, block, _products(z, z, block), widths, repeats, model.reml)

    def weighted(self, w: np.ndarray) -> Judge:
        """The judge for Var(ε) = σ²/w: all rows times √w."""
        root = np.sqrt(w)
        x, z = self.x * root[:, None], self.z * root[:, None]
        return replace(self, x=x, z=z, ztz=_products(z, z, self.block), root=root)

    def response(self, y: np.ndarray) -> Response:
        """The criterion of one response."""
        y = y if self.root is None else y * self.root
        residual = y - self.x @ np.linalg.lstsq(self.x, y, rcond=None)[0]
        w = np.column_stack([self.x, residual])
        return Response(self, _products(self.z, w, self.block), w.T @ w)


@dataclass(frozen=True)
class Response:
    """The criterion of one response, W = [X, y − Xβ̂_OLS], from ZᵀW (B × m × (p+1)) and WᵀW."""

    judge: Judge
    ztw: np.ndarray
    wtw: np.ndarray

    def criterion(self, factors: list[np.ndarray]) -> float:
        """−2ℓ (REML or ML) at D = blockdiag(ΛΛᵀ), `factors` the q × q relative factors Λ of the terms."""
        judge = self.judge
        lam = scipy.linalg.block_diag(
            *(np.kron(np.eye(r), f) for f, r in zip(factors, judge.repeats, strict=True))
        )
        # S = WᵀW − CᵀΛ (I + ΛᵀZᵀZΛ)⁻¹ ΛᵀC, C = ZᵀW
        middle = np.eye(len(lam)) + lam.T @ judge.ztz @ lam
        c = lam.T @ self.ztw
        schur = self.wtw - np.einsum("bij,bik->jk", c, np.linalg.solve(middle, c), optimize=True)
        pivots = np.diag(np.linalg.cholesky(schur))
        n, p = judge.x.shape
        df = n - p if judge.reml else n
        logdet = np.linalg.slogdet(middle)[1].sum()
        if judge.root is not None:
            logdet -= 2.0 * np.log(judge.root).sum()
        logdet_x = 2.0 * np.log(pivots[:-1]).sum() if judge.reml else 0.0
        return float(logdet + logdet_x + df * (1.0 + np.log(2.0 * np.pi * pivots[-1] ** 2 / df)))

    def at_estimate(self, cov: Iterable[float], sigma2: float) -> float:
        """The criterion at reported covariances (lower triangles by row, term after term) and σ²."""
        cov = np.asarray(list(cov), dtype=float)
        if not (np.isfinite(cov).all() and np.isfinite(sigma2) and sigma2 > 0):
            return np.nan
        factors = []
        for d in self.unpack(cov / sigma2):
            values, vectors = np.linalg.eigh(d + np.tril(d, -1).T)
            factors.append(vectors * np.sqrt(np.maximum(values, 0.0)))
        return self.criterion(factors)

    def gap(self, cov: np.ndarray, sigma2: float, reported: float) -> float:
        """How far an estimate is from the optimum, or its `reported` criterion from its own, in tolerances.

        The optimum is the lowest found from the estimate and from the starts that need no data.
        """
        found = self.at_estimate(cov, sigma2)
        near = [
            np.linalg.cholesky(d + np.tril(d, -1).T + 1e-10 * np.eye(len(d)))[np.tril_indices(len(d))]
            for d in self.unpack(np.asarray(cov) / sigma2)
        ]
        best = min(self.best([np.concatenate(near), *self.starts()]), found)
        return float(max(found - best, abs(reported - found)) / tolerance(np.asarray(best)))

    def best(self, starts: Iterable[np.ndarray]) -> float:
        """The lowest criterion found from `starts` (θ, the relative factors' lower triangles)."""

        def f(theta: np.ndarray) -> float:
            return self.criterion(self.unpack(theta))

        lowest = np.inf
        for start in starts:
            found = scipy.optimize.minimize(f, start, method="BFGS", options={"gtol": 1e-5})
            if found.fun < lowest - 1e-9:
                lowest, theta = found.fun, found.x
        polish = scipy.optimize.minimize(
            f, theta, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10, "maxfev": 300}
        )
        return min(lowest, float(polish.fun))

    def unpack(self, theta: np.ndarray) -> list[np.ndarray]:
        """θ → the lower-triangular Λ of every term, by row; covariances → their lower triangles."""
        factors, start = [], 0
        for q in self.judge.widths:
            size = q * (q + 1) // 2
            factor = np.zeros((q, q))
            factor[np.tril_indices(q)] = theta[start : start + size]
            factors.append(factor)
            start += size
        return factors

    def starts(self) -> list[np.ndarray]:
        """Two starting values that need no knowledge of the data: Λ = I/2 and Λ = I/20."""
        eye = np.concatenate([np.eye(q)[np.tril_indices(q)] for q in self.judge.widths])
        return [0.5 * eye, 0.05 * eye]


def _indicate(effects: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """n × Gq: the effects of a row in the columns of its level."""
    wide = np.zeros((len(codes), codes.max() + 1, effects.shape[1]))
    wide[np.arange(len(codes)), codes] = effects
    return wide.reshape(len(codes), -1)


def _products(z: np.ndarray, w: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Zᵀw of every block (B × m × columns of w)."""
    count = int(block.max()) + 1
    if count == 1:
        return (z.T @ w)[None]
    sums = [[np.bincount(block, a * b, count) for b in w.T] for a in z.T]
    return np.moveaxis(np.array(sums), -1, 0)


def _columns(formula: str, design: pd.DataFrame) -> np.ndarray:
    return np.asarray(formulaic.model_matrix(formula, design), dtype=float)
