"""Many responses with one design: which of them share it, and how the others are fitted.

Complete responses share one design. Those with missing values are fitted by pattern where many have the
same, else with weights of zero and one; those with weights have designs of their own. A response whose rows
do not determine all columns of X is fitted with those that they do. Up to `FEW` responses, and those of
designs that do not take them `together`, are fitted one after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import UNROLL
from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.arrays.sparse_columns import Columns, SparseColumns, finite_columns, pieces
from lmmjax.batch import least_squares as linear
from lmmjax.batch.carried import APART, fit_carried
from lmmjax.batch.determined import determined
from lmmjax.batch.device import fit_blocks, on_devices, own_on_devices, placed
from lmmjax.batch.far_lanes import put_far
from lmmjax.batch.lanes import lanes_of, take_lanes
from lmmjax.batch.one_kernel import fit_gaps, fit_one_kernel
from lmmjax.batch.outcome import INFINITE, Outcome, failed, outcome
from lmmjax.batch.sources import FEW, few, few_apart, own_problem, own_products
from lmmjax.batch.starts import MOST, How, Starts
from lmmjax.core import Problem, ProblemMaker, descents
from lmmjax.core.exactness import exact_lanes, without_digits
from lmmjax.core.far.fit import rounded, suspects
from lmmjax.design import columns_on_rows, take_columns, take_rows
from lmmjax.gram.block.products import BlockProducts
from lmmjax.gram.spectral.products import SpectralProducts
from lmmjax.optimize import Status

ALIKE = 8
"""Responses with one pattern of missing values from which on its rows have a decomposition of their own."""


def estimate_many(
    maker: ProblemMaker,
    y: Columns,
    reml: bool = True,
    max_iter: int = 100,
    weights: np.ndarray | None = None,
    dtype: Any = np.float64,
    starts: Starts | None = None,
) -> Outcome:
    """Fit every column of y (n, T); arrays of the result lead with T.

    A missing value (NaN) leaves its row out of the fit of its response, and nothing else. A response with an
    infinite value gets `Status.NOT_FINITE`, one of which too little is left `Status.NOT_ESTIMABLE`, with the
    reason that the model on its rows would give; their results are missing. Sparse responses stay sparse, and
    those on a device there.

    Parameters
    ----------
    weights : (n, T) weights ≥ 0 of every value, Var(ε) = σ²/w, times those of the design; 0 leaves the
        value out.
    dtype : of the descents by lanes. With float32 the products, and all that is reported at the optimum
        found, are still formed in float64, and responses that float32 does not certify descend again.
    starts : of the descents, of which the best is kept.
    """
    how = How(reml, max_iter, dtype, starts or Starts())
    if weights is None:
        found, usable = _shared_design(maker, y, how)
        left = np.flatnonzero(~usable)
        if len(left):
            for part, values in pieces(y[:, left]):
                found.put(left[part], _incomplete(maker, values, how))
    else:
        y = y if isinstance(y, DeviceColumns) else np.asarray(y)
        found = _own_weights(maker, y, weights, how)
    if np.dtype(dtype) != np.float64:
        left = np.flatnonzero(np.isin(found.estimate.status, (Status.STALLED, Status.ITERATION_LIMIT)))
        if len(left):
            own = None if weights is None else weights[:, left]
            found.put(left, estimate_many(maker, y[:, left], reml, max_iter, own, starts=starts))
    hidden = without_digits(maker.design, found.estimate) | rounded(maker, found.estimate)
    status = np.where(hidden, np.int32(Status.TOO_FEW_DIGITS), found.estimate.status)
    estimate = dataclasses.replace(found.estimate, status=status)
    found = dataclasses.replace(found, estimate=determined(maker, y, weights, reml, estimate))
    _give_reasons(found, y, weights)
    return found


def _shared_design(maker: ProblemMaker, y: Columns, how: How) -> tuple[Outcome, np.ndarray]:
    """Fits of the complete columns of y (n, T), and which they are (T,)."""
    total = y.shape[1]
    shared = maker.prepared.shared
    if linear.is_linear(maker):
        fitted = linear.shared_least_squares(maker, y if isinstance(y, SparseColumns) else np.asarray(y))
        return _closed(fitted, maker, how), fitted.finite
    one_kernel = isinstance(shared, SpectralProducts | BlockProducts) and maker.design.known is None
    if one_kernel and how.starts.given is None:
        found, usable = fit_one_kernel(maker, y, how.reml)
        return found.without(~usable, Status.NOT_FINITE, INFINITE), usable
    place, spread = placed() if shared.together and not shared.carried else None, None
    if total <= few(maker, FEW if place is None else place.few) or not shared.together:
        found, usable = _one_by_one(maker, y, how)
    elif place is not None:
        found, usable, spread = on_devices(place, maker, y, how.reml, how.max_iter, how.starts, how.dtype)
    else:
        usable = np.ones(total, bool)

        def block(part: slice) -> Problem:
            problem = lanes_of(maker, y[:, part], how.reml)
            usable[part] = np.isfinite(problem.origin.scale)
            return problem

        starts = how.starts.inside(maker, own=False)
        fitted = fit_blocks(total, shared.vector, block, how.max_iter, starts, how.dtype)
        found = outcome(*fitted, len(starts))
    found = found.without(~usable, Status.NOT_FINITE, INFINITE)
    exact = exact_lanes(maker, y, found.estimate, how.reml, spread)
    found = found.without(exact, Status.PERFECT_FIT, "")
    put_far(maker, y, found, how)
    if how.starts.number(maker, own=False) == 1:
        _descend_again(found, how, lambda left, how: _shared_design(maker, y[:, left], how)[0])
    return found, usable


def _closed(fitted: linear.LeastSquares, maker: ProblemMaker, how: How) -> Outcome:
    """The outcome of linear models, which need no descent."""
    found = outcome(linear.estimates(fitted, maker, how.reml), np.ones(len(fitted.n), int))
    found = found.without(~fitted.finite, Status.NOT_FINITE, INFINITE)
    perfect = fitted.perfect & fitted.finite & (maker.design.known is None)
    return found.without(perfect, Status.PERFECT_FIT, "")


def _descend_again(found: Outcome, how: How, fit: Callable[[np.ndarray, How], Outcome]) -> None:
    """Give responses that one descent has left without a certificate, before its limit, the other starts."""
    if how.starts.count is not None or how.starts.given is not None:
        return
    status, n_iter = found.estimate.status, found.estimate.n_iter
    early = (status == Status.ITERATION_LIMIT) & (n_iter < how.max_iter)
    left = np.flatnonzero((status == Status.STALLED) | early)
    if len(left):
        again = fit(left, dataclasses.replace(how, starts=Starts(MOST)))
        better = np.isin(again.estimate.status, (Status.CONVERGED, Status.LOCAL))
        if better.any():
            found.put(left[better], again.some(better))


def _one_by_one(maker: ProblemMaker, y: Columns, how: How) -> tuple[Outcome, np.ndarray]:
    """`_shared_design` as a loop."""
    y = y if isinstance(y, SparseColumns) else np.asarray(y, dtype=float)
    usable, starts = finite_columns(y), how.starts.outside(maker, own=False)
    with jax.enable_x64(True), np.errstate(all="ignore"):
        some = y.cleared(~usable) if isinstance(y, SparseColumns) else np.where(usable, y, 0.0)
        problem = lanes_of(maker, some, how.reml)
        # called as for a single fit, whose program it is
        results = [
            descents(take_lanes(problem, k), starts if usable[k] else starts[:1], max_iter=how.max_iter)
            for k in range(y.shape[1])
        ]
    found = jax.tree.map(lambda *arrays: np.stack(arrays), *(result for result, _ in results))
    return outcome(found, np.array([count for _, count in results]), len(starts)), usable


def _own_weights(
    maker: ProblemMaker, y: np.ndarray | DeviceColumns, weights: np.ndarray | None, how: How
) -> Outcome:
    """Fits of responses with weights of their own, or, where these are None, of 0 and 1: missing values."""
    if linear.is_linear(maker):
        y = np.asarray(y)
        fitted = linear.own_least_squares(maker, y, weights)
        found = _closed(fitted, maker, how)
        return _with_reduced(found, fitted.finite & ~fitted.estimable, maker, y, weights, how)
    if maker.prepared.shared.carried and y.shape[1] >= APART:
        y, begin = np.asarray(y), how.starts.inside(maker, own=True)
        own = _given(y, weights)
        found, poor = fit_carried(maker, y, own, how.reml, how.max_iter, begin, how.dtype)
        if len(poor):
            found.put(poor, _by_pattern(maker, y[:, poor], own[:, poor], how))
        return found
    if not maker.prepared.shared.individual or y.shape[1] <= few_apart(maker):
        return _by_pattern(maker, np.asarray(y), weights, how)
    products, total, place = own_products(maker), y.shape[1], placed()
    q, groups, p = products.z.shape[0], products.groups, maker.design.p
    # products of all pairs of columns of X, of which each response has its own
    pairs = p * (p + 1) * q * (q + 1) // 4 if p > UNROLL else 0
    vector, starts = groups * max(q**2 * 4, pairs), how.starts.inside(maker, own=True)
    if place is not None:
        found, finite, estimable = own_on_devices(
            place, maker, y, weights, how.reml, how.max_iter, starts, how.dtype, vector
        )
    else:
        finite, estimable = np.ones(total, bool), np.ones(total, bool)

        def block(part: slice) -> Problem:
            values = np.asarray(y[:, part])
            own = _given(values, None if weights is None else weights[:, part])
            problem, finite[part], estimable[part] = own_problem(products, values, own, how.reml)
            return problem

        found = outcome(*fit_blocks(total, vector, block, how.max_iter, starts, how.dtype), len(starts))
    found = found.without(~finite, Status.NOT_FINITE, INFINITE)
    far = np.flatnonzero(suspects(maker.design, found.estimate)) if how.max_iter else np.zeros(0, int)
    if len(far):
        own = None if weights is None else weights[:, far]
        found.put(far, _by_pattern(maker, np.asarray(y[:, far]), own, how))
    if how.starts.number(maker, own=True) == 1:

        def again(left: np.ndarray, how: How) -> Outcome:
            return _own_weights(maker, y[:, left], None if weights is None else weights[:, left], how)

        _descend_again(found, how, again)
    return _with_reduced(found, finite & ~estimable, maker, y, weights, how)


def _with_reduced(
    found: Outcome,
    reduced: np.ndarray,
    maker: ProblemMaker,
    y: np.ndarray | DeviceColumns,
    weights: np.ndarray | None,
    how: How,
) -> Outcome:
    """The outcome with responses `reduced` (T,), whose rows leave something undetermined, fitted apart."""
    left = np.flatnonzero(reduced)
    if len(left):
        own = None if weights is None else weights[:, left]
        found.put(left, _reduced(maker, np.asarray(y[:, left]), own, how))
    return found


def _given(y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """The weights of y (n, T), of one where none are given."""
    return np.ones(y.shape) if weights is None else weights


def _reduced(maker: ProblemMaker, y: np.ndarray, weights: np.ndarray | None, how: How) -> Outcome:
    """Fits of responses whose rows leave something undetermined: by the columns of X that are left."""
    weights = _given(y, weights)
    present, design = ~np.isnan(y) & (weights > 0), maker.design
    sets: dict[bytes, list[int]] = {}
    for k, rows in enumerate(present.T):
        kept = columns_on_rows(design.x[rows], [codes[rows] for codes in design.factors])
        sets.setdefault(kept.tobytes(), []).append(k)

    def fit(where: np.ndarray) -> Outcome:
        rows = present[:, where[0]]
        kept = columns_on_rows(design.x[rows], [codes[rows] for codes in design.factors])
        if len(where) < FEW // 8 or len(kept) == design.p:
            return _by_pattern(maker, y[:, where], weights[:, where], how)
        part = maker.with_columns(kept)
        return _own_weights(part, y[:, where], weights[:, where], how).widened(kept, design.p)

    return _joined(maker, y.shape[1], [np.array(where) for where in sets.values()], fit)


def _incomplete(maker: ProblemMaker, y: np.ndarray, how: How) -> Outcome:
    """Fits of responses with missing values: by pattern where many share one, else by weights of 0 and 1."""
    if linear.is_linear(maker):
        return _own_weights(maker, y, None, how)
    if isinstance(maker.prepared.shared, SpectralProducts) and maker.design.known is None:
        return _with_gaps(maker, y, how)
    codes = np.unique(np.packbits(np.isnan(y), axis=0), axis=1, return_inverse=True)[1].ravel()
    size = np.bincount(codes)[codes]
    carried = maker.prepared.shared.carried
    common = (size >= FEW // 8) | (not (maker.prepared.shared.individual or carried))
    if y.shape[1] - common.sum() < (APART if carried else FEW // 8):
        common[:] = True
    parts = [np.flatnonzero(common), np.flatnonzero(~common)]

    def fit(where: np.ndarray) -> Outcome:
        of = _by_pattern if common[where[0]] else _own_weights
        return of(maker, y[:, where], None, how)

    return _joined(maker, y.shape[1], [where for where in parts if len(where)], fit)


def _with_gaps(maker: ProblemMaker, y: np.ndarray, how: How) -> Outcome:
    """Fits of one kernel: patterns that several share by a decomposition of their own, others without."""
    codes = np.unique(np.packbits(np.isnan(y), axis=0), axis=1, return_inverse=True)[1].ravel()
    alone = np.bincount(codes)[codes] < ALIKE
    alone = alone if how.starts.given is None else np.zeros(len(codes), bool)
    found = failed(y.shape[1], maker.design.p, maker.design.structure.n_params, "")
    left = ~alone
    where = np.flatnonzero(alone)
    if len(where):
        made = fit_gaps(maker, np.asarray(y[:, where], dtype=float), how.reml)
        done = np.zeros(len(where), bool) if made is None else made[2]
        if made is not None:
            found.put(where[done], outcome(*made[:2]).some(done))
        left[where[~done]] = True
    rest = np.flatnonzero(left)
    if len(rest):
        found.put(rest, _by_pattern(maker, y[:, rest], None, how))
    return found


def _by_pattern(maker: ProblemMaker, y: np.ndarray, weights: np.ndarray | None, how: How) -> Outcome:
    """Fits with a design for every pattern of rows and weights."""
    key = np.where(np.isnan(y), 0.0, _given(y, weights))
    _, first, pattern = np.unique(key, axis=1, return_index=True, return_inverse=True)
    parts = [np.flatnonzero(pattern.ravel() == k) for k in range(len(first))]
    return _joined(
        maker, y.shape[1], parts, lambda where: _on_rows(maker, y[:, where], key[:, where[0]], how)
    )


def _on_rows(maker: ProblemMaker, y: np.ndarray, w: np.ndarray, how: How) -> Outcome:
    """Fits of y (n, T) on the rows of positive weight w (n,): what the model on these rows would give."""
    design, rows = maker.design, w > 0
    if not np.isfinite(w).all():
        return failed(y.shape[1], design.p, design.structure.n_params, "").without(
            np.ones(y.shape[1], bool), Status.NOT_FINITE, "not finite: a weight is infinite or missing"
        )
    try:
        kept = columns_on_rows(design.x[rows], [codes[rows] for codes in design.factors])
        part = ProblemMaker(take_columns(take_rows(design, rows, w), kept), maker.backend)
    except ValueError as error:
        reason = f"not estimable on the {rows.sum()} rows that it has: {error}"
        return failed(y.shape[1], design.p, design.structure.n_params, reason)
    return _shared_design(part, y[rows], dataclasses.replace(how, starts=how.starts.several))[0].widened(
        kept, design.p
    )


def _joined(
    maker: ProblemMaker, total: int, parts: list[np.ndarray], fit: Callable[[np.ndarray], Outcome]
) -> Outcome:
    """The outcome of `total` responses, made of those of each part."""
    found = failed(total, maker.design.p, maker.design.structure.n_params, "")
    for where in parts:
        found.put(where, fit(where))
    return found


def _give_reasons(found: Outcome, y: Columns, weights: np.ndarray | None) -> None:
    """Fill in the reasons of responses that have a status only."""
    status = found.estimate.status
    left = np.flatnonzero((status != Status.CONVERGED) & (found.reasons == ""))
    for k in left:
        found.reasons[k] = Status(int(status[k])).advice
    perfect = left[status[left] == Status.PERFECT_FIT]
    for part, columns in pieces(y[:, perfect]) if len(perfect) else ():
        for k, values in zip(perfect[part], columns.T, strict=True):
            some = values[np.isfinite(values) & (True if weights is None else weights[:, k] > 0)]
            if len(some) and np.ptp(some) == 0:
                found.reasons[k] = f"constant: all its {len(some)} values are {some[0]:g}"
