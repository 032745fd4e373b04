"""Small nested designs as designs with one factor.

The groups within a group of the coarsest factor take numbered slots there; a term of theirs becomes as many
columns as there are slots, all with the same covariance. They are put in slots by their products, so that
wholes with the same parts have the same columns.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.design import Design
from lmmjax.gram.factors import Factor, grouping_factors, nested_chain

MOST = 6
"""Most columns a group that the unrolled algebra of the grouped backend is used for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A design as one with a single grouping factor.

    Attributes
    ----------
    codes : (n,), n_groups : the coarsest factor.
    columns : the local columns in order, each a term, its column, and the slot (n,) of every row or None.
    places : per term the first local column of each of its copies.
    slots : per term slot and group (both (G,)) of each of its own groups; empty with one factor.
    """

    codes: np.ndarray
    n_groups: int
    columns: tuple[tuple[int, int, np.ndarray | None, int], ...]
    places: tuple[tuple[int, ...], ...]
    slots: tuple[tuple[np.ndarray, np.ndarray], ...]

    def expand(self, z: tuple[Array, ...]) -> Array:
        """The local columns (q, n) from those of every term."""
        xp = namespace(*z)
        rows = [
            z[k][a] if slot is None else xp.where(slot == s, z[k][a], xp.zeros((), z[k].dtype))
            for k, a, slot, s in self.columns
        ]
        return xp.stack(rows)


def width(design: Design) -> int | None:
    """Local columns a group of the coarsest factor, or None if the factors are not nested."""
    factors = grouping_factors(design)
    chain = nested_chain(factors)
    if chain is None or not factors:
        return None
    total, top = factors[-1].q, None
    for factor, owner in zip(reversed(factors[:-1]), reversed(chain), strict=True):
        top = owner if top is None else top[owner]
        total += factor.q * int(np.bincount(top).max())
    return total


def layout(design: Design, z: tuple[Array, ...]) -> Layout:
    """Slots for the groups of every factor below the coarsest; z (q, n) a term, in internal coordinates."""
    factors = grouping_factors(design)
    chain = nested_chain(factors)
    if chain is None:
        raise ValueError("the grouped backend needs random terms whose grouping factors are nested")
    coarsest = factors[-1]
    count = len(design.terms)
    slots: list = [
        (np.zeros(coarsest.n_groups, np.int32), np.arange(coarsest.n_groups, dtype=np.int32))
    ] * count
    # position of every group in a list that is sorted by its ancestors, coarsest first
    top, rank = np.arange(coarsest.n_groups), np.arange(coarsest.n_groups)
    found: list[tuple[Factor, np.ndarray | None, int]] = [(coarsest, None, 1)]
    for factor, owner in zip(reversed(factors[:-1]), reversed(chain), strict=True):
        top, above = top[owner], rank[owner]
        order = np.lexsort((*_signature(factor, z), above, top))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        sizes = np.bincount(top, minlength=coarsest.n_groups)
        slot = rank - (np.cumsum(sizes) - sizes)[top]
        found.insert(0, (factor, slot[factor.codes], int(sizes.max())))
        for k in factor.terms:
            slots[k] = (slot.astype(np.int32), top.astype(np.int32))
    columns: list[tuple[int, int, np.ndarray | None, int]] = []
    places: list[tuple[int, ...]] = [()] * count
    for factor, slot, copies in found:
        for s in range(copies):
            for k in factor.terms:
                places[k] = (*places[k], len(columns))
                columns += [(k, a, slot, s) for a in range(design.terms[k].q)]
    nested = len(factors) > 1
    return Layout(
        coarsest.codes, coarsest.n_groups, tuple(columns), tuple(places), tuple(slots) if nested else ()
    )


def _signature(factor: Factor, z: tuple[Array, ...]) -> list[np.ndarray]:
    """Keys (G,) by which the groups of a factor are told apart: their sizes and products of Z, rounded."""
    rows = [np.asarray(row) for k in factor.terms for row in z[k]] if namespace(*z) is np else []
    keys = [np.bincount(factor.codes, minlength=factor.n_groups)]
    for i, one in enumerate(rows):
        for two in rows[i:]:
            sums = np.bincount(factor.codes, weights=one * two, minlength=factor.n_groups)
            keys.append(np.round(sums, 9))
    return keys
