"""Which columns of X are independent: of all rows, and of some that may lack levels of a factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve_triangular

DEPENDENT = 1e-10
"""Distance of a column from those before it, in its own length, that counts as none."""

ROUNDING = 8.0 * np.finfo(float).eps
"""The same in the lengths of the columns that it would be made of: what rounding of their entries leaves."""


def independent_columns(x: np.ndarray) -> np.ndarray:
    """Positions of the columns of x (n, p) that do not depend linearly on the columns before them.

    Column j counts as dependent if its distance from the span of the kept columns before it is at most
    1e-10 of its own length. That is the tolerance of float64, not of taste (lme4: 1e-7): a covariate
    far from zero, such as a time stamp, keeps its place. It also depends on them if rounding of their
    entries explains the distance: x beside x + 1e9 and a constant. Units do not matter.
    """
    peak = np.max(np.abs(x), axis=0, initial=0)
    scaled = x / np.where(peak > 0, peak, 1)
    length = np.linalg.norm(scaled, axis=0)
    triangle = np.asarray(np.linalg.qr(scaled / np.where(length > 0, length, 1), mode="r"))
    p = x.shape[1]
    if not p:
        return np.arange(0)
    if len(triangle) == p and np.all(np.abs(np.diagonal(triangle)) > DEPENDENT):
        # column j is made of −(R⁻¹)_ij R_jj of column i
        inverse = solve_triangular(triangle, np.eye(p))
        distance = np.abs(np.diagonal(triangle))
        made_of = np.sum(np.abs(np.triu(inverse, 1)), axis=0) * distance
        if np.all(distance > np.maximum(DEPENDENT, ROUNDING * made_of)):
            return np.arange(p)
    kept: list[int] = []
    basis, factor = np.zeros((len(triangle), p)), np.zeros((p, p))
    for j in range(p):
        k, column = len(kept), triangle[:, j]
        for _ in range(2):
            column = column - basis[:, :k] @ (basis[:, :k].T @ column)
        distance, along = np.linalg.norm(column), basis[:, :k].T @ triangle[:, j]
        made_of = solve_triangular(factor[:k, :k], along) if k else along
        if distance > max(DEPENDENT, ROUNDING * np.sum(np.abs(made_of))):
            basis[:, k], factor[:k, k], factor[k, k] = column / distance, along, distance
            kept.append(j)
    return np.array(kept, dtype=np.int64)


def columns_on_rows(x: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
    """Positions of the columns of a model that are fitted on some of its rows, x (n, p).

    Where the reference level of a factor is lost, the first level that is left takes its place, and the
    columns that are its own go first.

    Parameters
    ----------
    factors : codes (n,) on these rows of the factors that X is made of; 0 is the reference level.
    """
    live, spare = x != 0, np.zeros(x.shape[1], bool)
    for codes in factors:
        first = int(codes.min()) if codes.size else 0
        if first > 0:
            here = codes == first
            spare |= live[here].any(axis=0) & ~live[~here].any(axis=0)
    order = np.argsort(spare, kind="stable")
    return np.sort(order[independent_columns(x[:, order])])
