"""One correlation within blocks for all responses: limma's duplicateCorrelation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import ModelData
from lmmjax.formula.labelled import Labelled, labelled
from lmmjax.formula.matching import first_index, positions

TRIM = 0.15
"""Share of the responses left out at either end of the mean."""

LARGEST = 0.99

BLOCK = 1 << 21
"""Numbers of responses that are worked on together."""


@dataclasses.dataclass(frozen=True, eq=False)
class DuplicateCorrelation:
    """A correlation of observations in the same block that all responses share; made by
    `duplicate_correlation`.

    Attributes
    ----------
    consensus : the correlation, tanh of the trimmed mean of the arctanh of those of the responses.
    correlations : (T,) of every response, REML, which may be negative; missing where it is not determined.
    blocks : (n,) codes of the blocks; index : labels of the observations, or None.
    """

    consensus: float
    correlations: pd.Series
    blocks: np.ndarray
    index: pd.Index | None

    def whiten(self, values: Any) -> pd.DataFrame:
        """A frame (n × k) or array multiplied by V^(−1/2), V the correlation matrix with the consensus in
        blocks.

        A least-squares fit of whitened responses on a whitened design is generalised least squares with the
        consensus: `lj.lmm("~ 0 + a + b", c.whiten(X)).fit_batch(c.whiten(Y))`.

        Raises
        ------
        ValueError : values are missing, of which V^(−1/2) would spoil others; another number of rows.
        """
        given = labelled(values, "values")
        x = given.values[:, None] if given.values.ndim == 1 else given.values
        if len(x) != len(self.blocks):
            raise ValueError(f"there are {len(self.blocks)} observations and {len(x)} rows to whiten")
        place = given.places(self.index, "values")
        x = x if place is None else x[place]
        if not np.isfinite(x).all():
            raise ValueError(
                "missing values cannot be whitened: a mixed model takes them, and a correlation of its own "
                "for "
                "every response"
            )
        out = np.empty_like(x)
        for code in np.unique(self.blocks):
            rows = np.flatnonzero(self.blocks == code)
            mean = x[rows].mean(axis=0)
            # V has eigenvalues 1 − ρ and, for the mean of a block of m, 1 + (m − 1)ρ
            apart = (x[rows] - mean) / np.sqrt(1.0 - self.consensus)
            out[rows] = apart + mean / np.sqrt(1.0 + (len(rows) - 1) * self.consensus)
        names = given.columns if given.columns is not None else pd.RangeIndex(x.shape[1])
        return pd.DataFrame(out, index=self.index, columns=names)

    def __repr__(self) -> str:
        known = int(self.correlations.notna().sum())
        return f"DuplicateCorrelation({self.consensus:.4g}, of {known} responses)"


@answered
def duplicate_correlation(
    responses: Any, design: Any, block: Any, *, weights: Any = None, trim: float = TRIM
) -> DuplicateCorrelation:
    """The correlation of observations in the same block (a donor, an array), one number for all responses.

    Every response has a REML fit of two variances, in which the correlation may be negative; the consensus is
    a trimmed mean. It stands for a common intercept variance ratio. `(1 | block)` in a formula gives every
    response its own, with degrees of freedom that count that it is estimated; the consensus takes it as
    known.

    Parameters
    ----------
    responses : (n, T) array, frame or AnnData; missing values leave their observation out.
    design : (n, p) matrix or frame of fixed effects, with a column for the intercept; or a model that has
        them.
    block : (n,) labels of the blocks.
    weights : (n, T) precision weights, as of `voom`. As in limma they scale all of the variance, that between
        blocks too: Var(y) = W^(−1/2) V W^(−1/2); in `fit_batch` they are those of the residuals.
    trim : share of the responses that are left out at either end of the mean.

    Source: Smyth, Michaud & Scott (2005), doi:10.1093/bioinformatics/bti270.

    Raises
    ------
    ValueError : shapes that do not match; no block with two observations; no response that determines one.
    """
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim is a share from 0 to 0.5, not {trim}")
    given, data = labelled(responses, "responses"), getattr(design, "data", None)
    if isinstance(data, ModelData):
        x = Labelled(data.frame.x, data.frame.index)
    else:
        x = labelled(design, "design")
    index = first_index([responses]) if given.index is None else given.index
    y = given.values[:, None] if given.values.ndim == 1 else given.values
    if x.values.ndim != 2 or len(x.values) != len(y):
        raise ValueError(f"the design has shape {x.values.shape}: {len(y)} observations × fixed effects")
    place = positions(x.index, index, "design", "the responses")
    fixed = x.values if place is None else x.values[place]
    codes = _codes(block, index, len(y))
    own = None
    if weights is not None:
        read = labelled(weights, "weights")
        if read.values.shape != y.shape:
            raise ValueError(f"weights have shape {read.values.shape}, the responses {y.shape}")
        place, at = (
            read.places(index, "weights"),
            positions(read.columns, given.columns, "weights", kind="columns"),
        )
        own = read.values if place is None else read.values[place]
        own = own if at is None else own[:, at]
        if not np.all(own > 0):
            raise ValueError("weights must be positive")
    sizes = np.bincount(codes)
    if sizes.max() < 2:
        raise ValueError("no block has two observations: there is no correlation within blocks")
    rho = _correlations(y, fixed, codes, own)
    known = rho[np.isfinite(rho)]
    if not len(known):
        raise ValueError(
            "no response tells variances within and between blocks apart: blocks are in the design, or "
            "observations are too few"
        )
    # away from where V is singular
    inside = np.clip(known, 1.0 / (1.0 - sizes.max()) + 0.01, LARGEST)
    cut = int(len(inside) * trim)
    consensus = float(np.tanh(np.sort(np.arctanh(inside))[cut : len(inside) - cut].mean()))
    names = given.columns if given.columns is not None else pd.RangeIndex(y.shape[1])
    return DuplicateCorrelation(consensus, pd.Series(rho, index=names, name="correlation"), codes, index)


def _codes(block: Any, index: pd.Index | None, n: int) -> np.ndarray:
    if isinstance(block, str):
        raise ValueError(f"block is the text {block!r}: pass its labels, such as samples[{block!r}]")
    values: pd.Series = block if isinstance(block, pd.Series) else pd.Series(np.asarray(block))
    labels = values.index if isinstance(block, pd.Series) else None
    if labels is not None and index is not None and len(values) > n and labels.is_unique:
        # a model leaves out rows of the data
        values = values.loc[labels.isin(index)]
    if len(values) != n:
        raise ValueError(f"there are {len(values)} labels of blocks for {n} observations")
    if labels is not None:
        place = positions(values.index, index, "block", "the responses")
        values = values if place is None else values.iloc[place]
    codes = pd.factorize(values)[0]
    if np.any(codes < 0):
        raise ValueError(f"the block of observation {np.flatnonzero(codes < 0)[0]} is missing")
    return codes


def _correlations(y: np.ndarray, x: np.ndarray, codes: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """REML correlations (T,) of responses y (n, T)."""
    missing = np.isnan(y)
    patterns, which = np.unique(missing, axis=1, return_inverse=True)
    if weights is not None:
        patterns, which = missing, np.arange(y.shape[1])
    most = int(np.bincount(codes).max())
    out, levels = np.full(y.shape[1], np.nan), codes.max() + 2
    for some in np.array_split(np.arange(patterns.shape[1]), max(1, len(patterns.T) * levels // BLOCK)):
        those = [np.flatnonzero(which.ravel() == j) if weights is None else np.array([j]) for j in some]
        mu, count, squares = (np.zeros((levels, sum(map(len, those)))) for _ in range(3))
        first = 0
        for j, own in zip(some, those, strict=True):
            rows = ~patterns[:, j]
            root = 1.0 if weights is None else np.sqrt(weights[rows, j])[:, None]
            found = _spectrum(root * y[np.ix_(rows, own)], root * x[rows], codes[rows])
            at = slice(first, first + len(own))
            first += len(own)
            if found is not None:
                size = len(found[0])
                mu[:size, at], count[:size, at] = found[0][:, None], found[1][:, None]
                squares[:size, at] = found[2]
        out[np.concatenate(those)] = _least(mu, count, squares, 1.0 / (1.0 - most))
    return out


def _spectrum(
    y: np.ndarray, x: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """What −2ℓᴿ is made of: μ (L,), their multiplicities, and sums of squares (L, T) of y; None if not
    enough.

    With M the projection off X and μ the eigenvalues of ZᵀMZ, those of MZZᵀM, V = σ²[(1 − ρ)I + ρZZᵀ] has

        −2ℓᴿ = Σ log d + ν log Σ (uᵀy)²/d,  d = 1 − ρ + ρμ,

    uᵀy = μ^(−1/2) vᵀZᵀMy for eigenvectors v; in the ν − r directions left μ = 0.
    """
    if not len(y):
        return None
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    q = left[:, values > 1e-10 * values[0]]
    y = y - q @ (q.T @ y)
    nu, blocks = len(y) - q.shape[1], np.unique(codes, return_inverse=True)[1]
    order = np.argsort(blocks, kind="stable")
    begin = np.concatenate([[0], np.flatnonzero(np.diff(blocks[order])) + 1])
    zq, zy = np.add.reduceat(q[order], begin, axis=0), np.add.reduceat(y[order], begin, axis=0)
    sizes = np.bincount(blocks).astype(float)
    mu, v = np.linalg.eigh(np.diag(sizes) - zq @ zq.T)
    apart = mu > 1e-9 * sizes.max()
    mu, v = mu[apart], v[:, apart]
    rest = nu - len(mu)
    # two variances of two contrasts fit anything
    if nu < 3 or rest < 1 or not len(mu):
        return None
    squares = (v.T @ zy) ** 2 / mu[:, None]
    squares = np.vstack([np.maximum(np.sum(y**2, axis=0) - squares.sum(axis=0), 0.0), squares])
    mu, count = np.concatenate([[0.0], mu]), np.concatenate([[rest], np.ones(len(mu), int)])
    # directions with equal μ, as of equal blocks, are one
    level, at = np.unique(np.round(mu / mu.max(), 9), return_inverse=True)
    if len(level) < 2:
        return None
    same = np.eye(len(level))[at].T
    return same @ (mu * count) / (same @ count), same @ count, same @ squares


def _least(mu: np.ndarray, count: np.ndarray, squares: np.ndarray, end: float) -> np.ndarray:
    """ρ (T,) between `end` and 1 of the least −2ℓᴿ: of 200 trial values, then by bisection of the derivative.

    Parameters
    ----------
    mu, count, squares : (L, T); rows of which `count` is zero are not there.
    """
    trial = end + (1.0 - end) * (np.sin(np.linspace(-np.pi / 2, np.pi / 2, 202)[1:-1]) + 1.0) / 2
    nu = count.sum(axis=0)
    best, least = np.zeros(mu.shape[1], int), np.full(mu.shape[1], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for j, rho in enumerate(trial):
            d = 1.0 - rho + rho * mu
            value = np.sum(count * np.log(d), axis=0) + nu * np.log(np.sum(squares / d, axis=0))
            better = value < least
            best[better], least[better] = j, value[better]
        around = np.concatenate([[end], trial, [1.0]])
        low, high = around[best], around[best + 2]
        for _ in range(60):
            rho = 0.5 * (low + high)
            inverse = 1.0 / (1.0 - rho + rho * mu)
            moved = (mu - 1.0) * inverse
            shrunk = squares * inverse
            slope = np.sum(count * moved, axis=0) - nu * np.sum(shrunk * moved, axis=0) / shrunk.sum(axis=0)
            low, high = np.where(slope < 0, rho, low), np.where(slope < 0, high, rho)
    return np.where((nu > 0) & np.isfinite(least), 0.5 * (low + high), np.nan)
