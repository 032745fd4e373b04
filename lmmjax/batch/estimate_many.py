"""Many responses with one design: which of them share it, and how the others are fitted.

Complete responses share one design. Those with missing values are fitted by pattern where many have the
same, else with weights of zero and one; those with weights have designs of their own. Up to `FEW` responses,
and those of designs that do not take them `together`, are fitted one after the other. Every response gets one
descent, from its moment start.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmmjax.arrays import Array
from lmmjax.batch.lanes import lane_count, take_lanes
from lmmjax.batch.newton_lanes import fit_lanes
from lmmjax.core import Estimate, Problem, ProblemMaker, best_of
from lmmjax.design import take_rows
from lmmjax.optimize import Status

if TYPE_CHECKING:
    from lmmjax.gram.grouped.own_weights import OwnWeights

FEW = 512
"""Up to so many responses are fitted one after the other, by the program of a single fit."""


def estimate_many(
    maker: ProblemMaker,
    y: np.ndarray,
    reml: bool = True,
    max_iter: int = 100,
    weights: np.ndarray | None = None,
    dtype: Any = np.float64,
) -> Estimate:
    """Fit every column of y (n, T); arrays of the result lead with T.

    A missing value (NaN) leaves its row out of the fit of its response, and nothing else. Responses with an
    infinite value get `Status.NOT_FINITE`, those with too few values left `Status.NOT_ESTIMABLE`; their
    results are missing.

    Parameters
    ----------
    weights : (n, T) weights ≥ 0 of every value, Var(ε) = σ²/w, times those of the design; 0 leaves the
        value out.
    dtype : of the descents by lanes. With float32 the products, and all that is reported at the optimum
        found, are still formed in float64, and responses that float32 does not certify descend again.
    """
    if weights is None:
        result, usable = _shared_design(maker, y, reml, max_iter, dtype)
        left = np.flatnonzero(~usable)
        if len(left):
            _merge(result, left, _incomplete(maker, y[:, left], reml, max_iter, dtype))
    else:
        result = _own_weights(maker, y, weights, reml, max_iter, dtype)
    if np.dtype(dtype) != np.float64:
        left = np.flatnonzero(np.isin(result.status, (Status.STALLED, Status.ITERATION_LIMIT)))
        if len(left):
            own = None if weights is None else weights[:, left]
            _merge(result, left, estimate_many(maker, y[:, left], reml, max_iter, own))
    return result


def _shared_design(
    maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int, dtype: Any
) -> tuple[Estimate, np.ndarray]:
    """Fits of the complete columns of y (n, T), and which they are (T,)."""
    total = y.shape[1]
    shared = maker.prepared.shared
    if total <= FEW or not shared.together:
        return _one_by_one(maker, y, reml, max_iter)
    usable = np.ones(total, bool)

    def block(part: slice) -> Problem:
        problem = maker.lanes(np.asarray(y[:, part], dtype=float), reml)
        usable[part] = np.isfinite(problem.origin.scale)
        return problem

    result = fit_lanes(total, lane_count(shared.vector, total), block, max_iter, None, dtype)
    return blank(result, ~usable, Status.NOT_FINITE), usable


def _own_weights(
    maker: ProblemMaker, y: np.ndarray, weights: np.ndarray, reml: bool, max_iter: int, dtype: Any
) -> Estimate:
    """Fits of responses with weights of their own."""
    if not maker.prepared.shared.individual:
        return _by_pattern(maker, y, weights, reml, max_iter, dtype)
    from lmmjax.gram.grouped.own_weights import OwnWeights

    products = OwnWeights(maker.design, maker.basis)
    total = y.shape[1]
    finite, estimable = np.ones(total, bool), np.ones(total, bool)

    def block(part: slice) -> Problem:
        problem, finite[part], estimable[part] = own_problem(products, y[:, part], weights[:, part], reml)
        return problem

    q, groups = products.z.shape[0], products.groups
    result = fit_lanes(total, lane_count(groups * q**2 * 4, total), block, max_iter, None, dtype)
    result = blank(result, ~estimable, Status.NOT_ESTIMABLE)
    return blank(result, ~finite, Status.NOT_FINITE)


def own_problem(
    products: OwnWeights, y: np.ndarray, weights: np.ndarray, reml: bool
) -> tuple[Problem, np.ndarray, np.ndarray]:
    """The problem of responses y (n, T) with weights (n, T) of their own; all axes of responses trail.

    Also which responses are finite (T,), and which leave something to estimate (T,).
    """
    shared, response, origin, basis, n, finite, estimable = products(
        np.asarray(y, dtype=float), np.asarray(weights, dtype=float)
    )
    kappa = np.asarray(float(reml))
    known = None if products.known is None else np.asarray(products.known)
    problem = Problem(shared, response, origin, basis, n, kappa, products.structure, known)
    return problem, finite, estimable


def _incomplete(maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int, dtype: Any) -> Estimate:
    """Fits of responses with missing values: by pattern where many share one, else by weights of 0 and 1."""
    codes = np.unique(np.packbits(np.isnan(y), axis=0), axis=1, return_inverse=True)[1].ravel()
    size = np.bincount(codes)[codes]
    common = (size >= FEW // 8) | (not maker.prepared.shared.individual)
    if y.shape[1] - common.sum() < FEW // 8:
        common[:] = True
    result = None
    for chosen, fit in ((common, _by_pattern), (~common, _own_weights)):
        where = np.flatnonzero(chosen)
        if len(where):
            part = fit(maker, y[:, where], np.ones((len(y), len(where))), reml, max_iter, dtype)
            if result is None:
                result = jax.tree.map(lambda a: np.zeros((y.shape[1], *a.shape[1:]), a.dtype), part)
            result = _merge(result, where, part)
    assert result is not None
    return result


def _by_pattern(
    maker: ProblemMaker, y: np.ndarray, weights: np.ndarray, reml: bool, max_iter: int, dtype: Any
) -> Estimate:
    """Fits with a design for every pattern of rows and weights."""
    key = np.where(np.isnan(y), 0.0, weights)
    _, first, pattern = np.unique(key, axis=1, return_index=True, return_inverse=True)
    result = None
    for k, one in enumerate(first):
        where = np.flatnonzero(pattern.ravel() == k)
        w = key[:, one]
        try:
            sub = ProblemMaker(take_rows(maker.design, w > 0, w), maker.backend)
            part = _shared_design(sub, y[w > 0][:, where], reml, max_iter, dtype)[0]
        except ValueError:
            m, p = maker.design.structure.n_params, maker.design.p
            part = not_estimable(len(where), p, m, maker.design.structure.n_params)
        if result is None:
            result = jax.tree.map(lambda a: np.zeros((y.shape[1], *a.shape[1:]), a.dtype), part)
        result = _merge(result, where, part)
    assert result is not None
    return result


def _merge(result: Estimate, where: np.ndarray, part: Estimate) -> Estimate:
    """`result` with its lanes `where` replaced."""
    for old, new in zip(jax.tree.leaves(result), jax.tree.leaves(part), strict=True):
        old[where] = new
    return result


def not_estimable(lanes: int, p: int, m: int, n_params: int) -> Estimate:
    """Missing results of responses that cannot be estimated."""

    def void(*shape: int) -> np.ndarray:
        return np.full((lanes, *shape), np.nan)

    return Estimate(
        theta=void(n_params),
        psi=void(m + 1),
        beta=void(p),
        sigma2=void(),
        cov_beta=void(p, p),
        cov_psi=void(m + 1, m + 1),
        cov_relative=void(m + 1, m + 1),
        deviance=void(),
        status=np.full(lanes, Status.NOT_ESTIMABLE, np.int32),
        grad_norm=void(),
        decrement=void(),
        n_iter=np.zeros(lanes, np.int32),
        singular=np.zeros(lanes, bool),
        moves=np.zeros((lanes, m + 1, m)),
    )


def _one_by_one(maker: ProblemMaker, y: np.ndarray, reml: bool, max_iter: int) -> tuple[Estimate, np.ndarray]:
    """`_shared_design` as a loop."""
    values = np.asarray(y, dtype=float)
    usable = np.isfinite(values.sum(axis=0))
    with jax.enable_x64(True), np.errstate(all="ignore"):
        problem = maker.lanes(np.where(usable, values, 0.0), reml)
        start = np.full(problem.structure.n_params, np.nan)
        # called as for a single fit, whose program it is
        results = [
            best_of(take_lanes(problem, k), [start], max_iter=max_iter) for k in range(values.shape[1])
        ]
    result = jax.tree.map(lambda *arrays: np.stack(arrays), *results)
    return blank(result, ~usable, Status.NOT_FINITE), usable


def blank(result: Estimate, bad: np.ndarray, status: Status) -> Estimate:
    """Missing values and a status in the lanes `bad` (T,)."""
    if not bad.any():
        return result

    def mask(a: Array) -> Array:
        if not np.issubdtype(a.dtype, np.floating):
            return a
        return np.where(bad.reshape((-1,) + (1,) * (a.ndim - 1)), np.nan, a)

    masked = jax.tree.map(mask, result)
    return dataclasses.replace(masked, status=np.where(bad, int(status), result.status).astype(np.int32))
