"""Whether all levels of a kernel that have rows have the same ones: the same traits, times, covariates."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.core import Tracer

from lmmjax.design import Design, LevelKernel, RandomTerm


@dataclasses.dataclass(frozen=True, eq=False)
class Arrangement:
    """Rows by level and position: those at one position are alike in all but X.

    Attributes
    ----------
    rows : (g, k) the row of every level that has some, at each position.
    kernel : the kernel; codes : (g,) which of its levels these are.
    """

    rows: np.ndarray
    kernel: LevelKernel
    codes: np.ndarray


def arrangement(design: Design) -> Arrangement | None:
    """The arrangement of a design, None if a rotation does not make its levels independent.

    All its terms are of one factor, one or more of them with the same kernel; levels have the same number of
    rows, of the same Z, weights and places in the residual structure.
    """
    related = [term for term in design.terms if term.kernel is not None]
    if not related or any(isinstance(a, Tracer) for a in (design.x, design.weights, *_columns(design))):
        return None
    first = related[0]
    kernel, codes = first.kernel, np.asarray(first.codes)
    assert kernel is not None
    if any(not _same(term.kernel, kernel) for term in related):
        return None
    if any(not _one_to_one(np.asarray(term.codes), codes) for term in design.terms):
        return None
    present, own = np.unique(codes, return_inverse=True)
    count = np.bincount(own)
    if len(present) < 2 or np.ptp(count) > 0:
        return None
    k = int(count[0])
    features = _features(design, own)
    order = np.lexsort((*features.T[::-1], own))
    rows = order.reshape(len(present), k)
    if np.any(features[rows] != features[rows[:1]]):
        return None
    return Arrangement(rows, kernel, present)


def _columns(design: Design) -> list:
    return [term.z for term in design.terms]


def _same(one: LevelKernel | None, two: LevelKernel) -> bool:
    if one is two or one is None:
        return one is two
    return one.same(two)


def _one_to_one(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codes (n,) make the same groups."""
    pairs = len(np.unique(np.column_stack([a, b]), axis=0))
    return pairs == len(np.unique(a)) == len(np.unique(b))


def _features(design: Design, own: np.ndarray) -> np.ndarray:
    """(n, f) what rows at one position have in common: Z, weights, place and variances of residuals."""
    residual, parts = design.residual, [np.asarray(z) for z in _columns(design)]
    if design.weights is not None:
        parts.append(np.asarray(design.weights))
    if residual is not None:
        parts += [residual.place, *residual.covariates]
    alike = np.column_stack([np.asarray(part, float).reshape(len(own), -1) for part in parts])
    if residual is None or residual.structure.residual.correlation is None:
        return alike
    _, at, group = np.unique(
        np.column_stack([own, residual.codes]), axis=0, return_index=True, return_inverse=True
    )
    group = group.ravel()
    if len(np.unique(residual.codes)) != len(at):
        # rows of different levels correlate
        return np.column_stack([alike, np.arange(len(own))])
    # groups of the residuals within a level, in the order of their first rows
    place = np.empty(len(own), int)
    place[np.lexsort(alike.T[::-1])] = np.arange(len(own))
    first = np.full(len(at), len(own))
    np.minimum.at(first, group, place)
    order = np.lexsort((first, own[at]))
    rank = np.empty(len(at), int)
    starts = np.cumsum(np.bincount(own[at])) - np.bincount(own[at])
    rank[order] = np.arange(len(at)) - starts[own[at][order]]
    return np.column_stack([rank[group], alike])


def random_codes(term: RandomTerm, at: Arrangement) -> np.ndarray:
    """(g,) the level of a term that each level of the arrangement is."""
    return np.asarray(term.codes)[at.rows[:, 0]]
