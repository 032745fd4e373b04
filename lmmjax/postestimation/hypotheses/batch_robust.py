"""Robust covariances of the fixed effects of many responses."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.design import Design, EstimabilityWarning, take_columns, take_rows
from lmmjax.fitted import FittedMany, ModelData, kept
from lmmjax.inference.robust.clusters import alone, clustered
from lmmjax.inference.robust.clusters_many import Block, ManyClusters, shared_blocks
from lmmjax.inference.robust.sandwich import correction, hotelling_f, joint_test, single_tests
from lmmjax.postestimation.alike import Alike, alike
from lmmjax.postestimation.hypotheses.robust import Robust, lost_to_clusters

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
    for own in alike(fits):
        made, l = _sandwich(robust, own), rows[:, own.columns]
        ok = np.flatnonzero(~alone(made.design, made.codes, l) & np.any(l != 0, axis=1))
        if made.groups < 2 or not len(ok):
            continue
        found = made.single_tests(robust.kind, l[ok])
        at = own.which[:, None]
        cov[at[:, :, None], ok[:, None], ok], df[at, ok] = found
    return cov, df if tests else np.full((t, k), np.nan)


def robust_joint_of_many(
    fits: FittedMany,
    robust: Robust,
    those: np.ndarray,
    rows: np.ndarray,
    difference: np.ndarray,
    sets: Sequence[np.ndarray],
    ddf: str,
) -> tuple[np.ndarray, np.ndarray]:
    """F and its denominator degrees of freedom (T, h) of h sets of contrasts of the responses `those` (T,).

    Parameters
    ----------
    rows : (k, p) L; difference : (T, k) Lβ̂ − rhs.
    sets : positions of the rows of L, independent ones, that are tested together.
    ddf : "satterthwaite", Hotelling's T² approximation, or "normal".

    Missing where a single cluster determines one of the contrasts, or clusters are too few.
    """
    f, den_df = np.full((2, len(fits.names), len(sets)), np.nan)
    used = np.unique(np.concatenate([np.zeros(0, int), *sets]))
    gone = np.zeros(len(rows), bool)
    gone[used] = lost_to_clusters(fits.data, robust, rows[used])
    few: list[int] = []
    for own in alike(fits):
        if not those[own.which].all():
            continue
        made, l = _sandwich(robust, own), rows[:, own.columns]
        lost = alone(made.design, made.codes, l) | gone
        for j, at in enumerate(sets):
            if made.groups < 2 or lost[at].any():
                continue
            cov, eta = made.joint_tests(robust.kind, l[at])
            for k, c, e in zip(own.which, cov, eta, strict=True):
                test = hotelling_f(c, float(e), difference[k, at], ddf)
                f[k, j], den_df[k, j] = test.f, test.den_df
            if np.isnan(f[own.which, j]).all():
                few.append(len(at))
    if few:
        warnings.warn(
            f"clusters of {robust.cluster!r} are too few to test {min(few)} contrasts together for some "
            "responses: test fewer, or without robust=",
            EstimabilityWarning,
            stacklevel=stack_level(),
        )
    return f, den_df


@dataclasses.dataclass(frozen=True, eq=False)
class _Sandwich:
    """The clusters of responses alike.

    Attributes
    ----------
    design, codes : on the rows that they have; groups : number of clusters.
    psi, beta, y : (t, m + 1), (t, p), (n, t).
    blocks : of the design, or None: one response after the other.
    """

    design: Design
    codes: np.ndarray
    psi: np.ndarray
    beta: np.ndarray
    y: np.ndarray
    blocks: list[Block] | None

    @property
    def groups(self) -> int:
        return int(self.codes.max()) + 1

    def single_tests(self, kind: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """LV_RLᵀ (t, k, k) and degrees of freedom (t, k)."""
        if self.blocks is not None:
            cov, df = self._many(self.blocks).single_tests(kind, rows)
        else:
            cov, df = self._each(single_tests, kind, rows)
        return correction(kind, self.groups) * cov, df

    def joint_tests(self, kind: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """LV_RLᵀ (t, k, k) and η (t,)."""
        if self.blocks is not None:
            cov, eta = self._many(self.blocks).joint_tests(kind, rows)
        else:
            cov, eta = self._each(joint_test, kind, rows)
        return correction(kind, self.groups) * cov, eta

    def _many(self, blocks: list[Block]) -> ManyClusters:
        return ManyClusters(self.design, blocks, self.psi, self.beta, self.y)

    def _each(self, test: Callable, kind: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for psi, beta, y in zip(self.psi, self.beta, self.y.T, strict=True):
            made = clustered(self.design, psi, beta, y, self.codes)
            inner = made.factor.T @ rows.T
            squares, degrees = test(made.pieces(kind), inner)
            found.append((inner.T @ squares @ inner, degrees))
        cov, degrees = zip(*found, strict=True)
        return np.array(cov), np.array(degrees)


def _sandwich(robust: Robust, own: Alike) -> _Sandwich:
    fits, which, rows = own.fits, own.which, own.rows
    design, codes = fits.data.design, robust.codes
    blocks: list[Block] | None = None
    if not own.whole:
        design = take_rows(take_columns(design, own.columns), rows, own.weights)
        codes = robust.on_rows(rows).codes
    if len(which) > FEW:
        blocks = _blocks(robust, fits.data) if own.whole else shared_blocks(design, codes)
    psi, beta = fits.estimate.psi[which], fits.estimate.beta[which][:, own.columns]
    return _Sandwich(design, codes, psi, beta, fits.y[np.ix_(rows, which)], blocks)


@kept
def _blocks(robust: Robust, data: ModelData) -> list[Block] | None:
    return shared_blocks(data.design, robust.codes)
