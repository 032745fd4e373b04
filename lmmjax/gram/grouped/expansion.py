"""Small nested designs as designs with one factor.

The groups within a group of the coarsest factor are its numbered members; a term of theirs becomes as many
columns as there are members, all with the same covariance. They are numbered in the order of their products,
so that wholes with the same parts have the same columns.
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
class Expansion:
    """A design as one with a single grouping factor.

    Attributes
    ----------
    codes : (n,), n_groups : the coarsest factor.
    columns : the local columns in order, each a term, its column, the member (n,) of every row or None where
        the factor is the coarsest, and which member it is of.
    first_columns : per term the first local column of each of its copies.
    members : per term, for each of its own groups (G,), which member it is of which group; empty with one
        factor.
    """

    codes: np.ndarray
    n_groups: int
    columns: tuple[tuple[int, int, np.ndarray | None, int], ...]
    first_columns: tuple[tuple[int, ...], ...]
    members: tuple[tuple[np.ndarray, np.ndarray], ...]

    def expand(self, z: tuple[Array, ...]) -> Array:
        """The local columns (q, n) from those of every term."""
        xp = namespace(*z)
        rows = [
            z[k][a] if member is None else xp.where(member == s, z[k][a], xp.zeros((), z[k].dtype))
            for k, a, member, s in self.columns
        ]
        return xp.stack(rows)


def expanded_columns(design: Design) -> int | None:
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


def expand_nested(design: Design, z: tuple[Array, ...], coarse_first: bool = False) -> Expansion:
    """Members of the groups of the coarsest factor as columns; z (q, n) a term, in internal coordinates.

    The columns of fine factors come first, as those of coarse ones often lie in them, unless `coarse_first`.
    """
    factors = grouping_factors(design)
    chain = nested_chain(factors)
    if chain is None:
        raise ValueError("the grouped backend needs random terms whose grouping factors are nested")
    coarsest = factors[-1]
    count = len(design.terms)
    members: list = [
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
        member = rank - (np.cumsum(sizes) - sizes)[top]
        found.insert(0, (factor, member[factor.codes], int(sizes.max())))
        for k in factor.terms:
            members[k] = (member.astype(np.int32), top.astype(np.int32))
    columns: list[tuple[int, int, np.ndarray | None, int]] = []
    places: list[tuple[int, ...]] = [()] * count
    for factor, member, copies in reversed(found) if coarse_first else found:
        for s in range(copies):
            for k in factor.terms:
                places[k] = (*places[k], len(columns))
                columns += [(k, a, member, s) for a in range(design.terms[k].q)]
    nested = len(factors) > 1
    return Expansion(
        coarsest.codes, coarsest.n_groups, tuple(columns), tuple(places), tuple(members) if nested else ()
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
