"""Robust covariances of the fixed effects of many responses."""

from __future__ import annotations

import numpy as np

from lmmjax.design import take_columns, take_rows
from lmmjax.fitted import FittedMany, kept
from lmmjax.inference.clusters import alone, clustered
from lmmjax.inference.clusters_many import Block, shared_blocks, tests_of_many
from lmmjax.inference.robust import correction, single_tests
from lmmjax.postestimation.robust import Robust, lost_to_clusters

FEW = 4
"""Responses with a design in common up to which they are taken one after the other."""


def robust_of_many(
    fits: FittedMany, robust: Robust, rows: np.ndarray, tests: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """LV_RLᵀ (T, k, k) and degrees of freedom (T, k) of the contrasts rows (k, p), of each by itself.

    Parameters
    ----------
    tests : whether degrees of freedom are wanted; else they are missing.

    Responses without a fit, and what a single cluster of their rows determines, are NaN.
    """
    t, k = len(fits.names), len(rows)
    cov, df = np.full((t, k, k), np.nan), np.full((t, k), np.nan)
    lost_to_clusters(fits.data, robust, rows)
    for which, weights in _alike(fits):
        found = _of_one_design(fits, robust, rows, which, weights)
        cov[which], df[which] = found
    return cov, df if tests else np.full((t, k), np.nan)


def _alike(fits: FittedMany) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Positions of responses with rows, weights and fixed effects in common, and their weights (n,).

    Weights are 0 where a row is missing, and None of responses with the design of the model.
    """
    fitted = np.isfinite(fits.estimate.psi).all(axis=1)
    whole = ~np.isnan(fits.y).any(axis=0) & fits.kept.all(axis=1) & (fits.weights is None)
    out: list[tuple[np.ndarray, np.ndarray | None]] = [(np.flatnonzero(fitted & whole), None)]
    found: dict[bytes, tuple[list[int], np.ndarray]] = {}
    for j in np.flatnonzero(fitted & ~whole):
        own = np.where(np.isnan(fits.y[:, j]), 0.0, 1.0 if fits.weights is None else fits.weights[:, j])
        found.setdefault(own.tobytes() + fits.kept[j].tobytes(), ([], own))[0].append(int(j))
    out += [(np.array(those), own) for those, own in found.values()]
    return [(which, own) for which, own in out if len(which)]


def _of_one_design(
    fits: FittedMany, robust: Robust, rows: np.ndarray, which: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """`robust_of_many` of responses at positions `which` (t,), alike."""
    design, codes, y, columns = fits.data.design, robust.codes, fits.y[:, which], fits.kept[which[0]]
    blocks: list[Block] | None = None
    if weights is not None:
        here = weights > 0
        design = take_rows(take_columns(design, np.flatnonzero(columns)), here, weights)
        codes, y = np.unique(codes[here], return_inverse=True)[1], y[here]
    rows, groups = rows[:, columns], int(codes.max()) + 1
    cov, df = np.full((len(which), len(rows), len(rows)), np.nan), np.full((len(which), len(rows)), np.nan)
    ok = np.flatnonzero(~alone(design, codes, rows) & np.any(rows != 0, axis=1))
    if groups < 2 or not len(ok):
        return cov, df
    psi, beta = fits.estimate.psi[which], fits.estimate.beta[which][:, columns]
    if len(which) > FEW:
        blocks = _blocks(fits, robust) if weights is None else shared_blocks(design, codes)
    if blocks is not None:
        some, df[:, ok] = tests_of_many(design, blocks, robust.kind, psi, beta, y, rows[ok])
        cov[:, ok[:, None], ok] = some
    else:
        for j in range(len(which)):
            made = clustered(design, psi[j], beta[j], y[:, j], codes)
            inner = made.factor.T @ rows[ok].T
            squares, df[j, ok] = single_tests(made.pieces(robust.kind), inner)
            cov[j, ok[:, None], ok] = inner.T @ squares @ inner
    return correction(robust.kind, groups) * cov, df


@kept
def _blocks(fits: FittedMany, robust: Robust) -> list[Block] | None:
    return shared_blocks(fits.data.design, robust.codes)
