"""Fits without each group of rows in turn: by differences of products where these are exact, else by rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.batch.device import fit_blocks, left_out_on_devices, placed
from lmmjax.batch.lanes import take_lanes
from lmmjax.batch.outcome import not_estimable
from lmmjax.core import Estimate, Problem, ProblemMaker, best_of
from lmmjax.design import Structure, standardise_response, take_rows
from lmmjax.gram.grouped.prepare import GroupedPrepared

MANY = 2048
"""Up to so many refits take less time in a loop than to compile a program for all of them.

Without compression a refit takes its time in arithmetic, and a loop is as fast whatever their number.
"""

CHUNK = 1 << 24
"""Numbers that the products of the refits of one chunk may take: 128 MiB."""


def without_each(
    maker: ProblemMaker, y: np.ndarray, reml: bool, theta: np.ndarray, codes: np.ndarray, groups: int
) -> tuple[Estimate, list[str]]:
    """Fits to y (n,) without each of the groups that `codes` (n,) name; arrays lead with them.

    Every refit is the better of the descents from its moment start and from θ̂ (m,) of the whole fit. Also why
    the model cannot be fitted without a group; empty where it can.
    """
    design = maker.design
    result = not_estimable(groups, design.p, design.structure.n_params)
    reasons, todo = [""] * groups, np.ones(groups, bool)
    if isinstance(maker.prepared, GroupedPrepared) and not maker.prepared.shared.tied:
        todo = ~_by_difference(maker, y, reml, theta, codes, result)
    for group in np.flatnonzero(todo):
        keep = codes != group
        try:
            part = ProblemMaker(take_rows(design, keep), maker.backend)
        except ValueError as error:
            reasons[group] = f"not estimable: {error}"
            continue
        _store(result, group, best_from(part, y[keep], reml, theta))
    return result, reasons


def best_from(maker: ProblemMaker, y: np.ndarray, reml: bool, theta: np.ndarray) -> Estimate:
    """The better of the descents from the moment start and from θ (m,)."""
    with jax.enable_x64(True):
        problem = maker(y, reml)
    return _best(problem, theta)


def _by_difference(
    maker: ProblemMaker, y: np.ndarray, reml: bool, theta: np.ndarray, codes: np.ndarray, result: Estimate
) -> np.ndarray:
    """Fill in the groups whose products are those of all rows less their own; which they are (groups,)."""
    # imported here: a single fit has no use for it
    from lmmjax.gram.grouped.leave_out import LeaveOut

    prepared, structure = maker.prepared, maker.design.structure
    assert isinstance(prepared, GroupedPrepared)
    done = np.zeros(len(result.status), bool)
    y = y if prepared.order is None else y[prepared.order]
    residual, origin, factor = standardise_response(maker.rows, maker.basis, y)
    products = LeaveOut(prepared, maker.rows, residual * factor, len(result.status) == len(codes))
    present, row = np.unique(codes, return_index=True)
    part = products.part[row]
    # a part is a level only where the levels are the groups of the products
    usable = products.exact[part] & (np.bincount(products.part)[part] == np.bincount(codes)[present])
    levels, part = present[usable], part[usable]
    place, kappa = placed(), np.asarray(float(reml))
    if place is not None and len(levels) > place.few:
        starts = _starts(structure, maker.basis.inward, theta)
        _store(
            result,
            levels,
            left_out_on_devices(place, maker, products, origin, reml, part, starts),
        )
        done[levels] = True
        return done

    def problem(chosen: np.ndarray) -> Problem:
        shared, response, n = products(chosen)

        def every(tree):
            return jax.tree.map(lambda a: np.repeat(np.asarray(a)[..., None], len(chosen), axis=-1), tree)

        known = None if maker.design.known is None else np.asarray(float(maker.design.known))
        return Problem(shared, response, every(origin), every(maker.basis), n, kappa, structure, known)

    vector = products.elements()
    few = len(levels) <= MANY or not prepared.compressed
    chunk = max(1, CHUNK // vector)
    for first in range(0, len(levels), chunk):
        where, chosen = levels[first : first + chunk], part[first : first + chunk]
        fits = _one_by_one(problem(chosen), theta) if few else _together(problem, chosen, vector, theta)
        _store(result, where, fits)
        done[where] = True
    return done


def _one_by_one(problem: Problem, theta: np.ndarray) -> Estimate:
    results = [_best(take_lanes(problem, k), theta) for k in range(len(problem.n))]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *results)


def _together(
    problem: Callable[[np.ndarray], Problem], chosen: np.ndarray, vector: int, theta: np.ndarray
) -> Estimate:
    """The fits without the parts `chosen`, as lanes."""
    whole = problem(chosen)
    starts = _starts(whole.structure, jax.tree.map(lambda a: a[..., 0], whole.basis.inward), theta)
    return fit_blocks(len(chosen), vector, partial(take_lanes, whole), 100, starts)[0]


def _starts(structure: Structure, inward: Any, theta: np.ndarray) -> list[np.ndarray | None]:
    """Moments, and θ (m,) in internal coordinates."""
    with jax.enable_x64(True):
        inner = np.asarray(structure.change_basis(theta, inward))
    return [None, inner] if len(theta) else [None]


def _store(result: Estimate, where: Any, part: Estimate) -> None:
    for mine, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(part), strict=True):
        mine[where] = theirs


def _best(problem: Problem, theta: np.ndarray) -> Estimate:
    starts = [np.full(problem.structure.n_params, np.nan)]
    return best_of(problem, starts + ([np.asarray(theta)] if len(theta) else []))
