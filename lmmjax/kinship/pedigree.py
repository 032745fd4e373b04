"""Additive and dominance relationships of the individuals of a pedigree.

With ½ at the columns of the known parents of i in row i of P, T = (I − P)⁻¹, F the coefficients of inbreeding
and D the diagonal of the variances of Mendelian sampling,

    A = TDTᵀ,   A⁻¹ = (I − P)ᵀD⁻¹(I − P),   D_i = 1 − ¼ Σ (1 + F_k) over the known parents k,   F_i = ½ a_sd.

F is computed a generation at a time. A generation needs elements of A among its parents, which follow from D
of the generations before it: columns of A are two triangular solves, restricted to ancestors. An individual
may be its own mate (selfing), and father here and mother there, as plants are.

Sources: Henderson (1976), doi:10.2307/2529339; Quaas (1976), doi:10.2307/2529279; Meuwissen & Luo (1992),
doi:10.1186/1297-9686-24-4-305, for F by this decomposition; Colleau (2002), doi:10.1186/1297-9686-34-4-409,
for columns of A in place of elements.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lmmjax.arrays.memory import require_memory

if TYPE_CHECKING:
    from scipy import sparse

BLOCK = 1 << 22
"""Numbers in a block of columns of A."""


class PedigreeLoop(Exception):
    """Individuals, by number, of which each is a parent of the one before it and the first of the last."""

    def __init__(self, loop: list[int]):
        super().__init__(loop)
        self.loop = loop


@dataclasses.dataclass(frozen=True, eq=False)
class Ancestry:
    """A pedigree whose individuals come after their parents.

    Attributes
    ----------
    order : (n,) numbers of the individuals as given, in this order.
    parents : (n, 2) places of their parents in it, −1 where unknown.
    first : places where generations begin, and n; the parents of each are in those before it.
    """

    order: np.ndarray
    parents: np.ndarray
    first: np.ndarray

    @cached_property
    def place(self) -> np.ndarray:
        """(n,) the place of each individual as given."""
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(place))
        return place

    @cached_property
    def inbreeding(self) -> np.ndarray:
        """(n,) F, in the order of `parents`."""
        return _inbreeding(self)

    @property
    def mendelian(self) -> np.ndarray:
        """(n,) D, in the order of `parents`."""
        return mendelian_variance(self.parents, self.inbreeding)


def ancestry(parents: np.ndarray) -> Ancestry:
    """Individuals ordered so that parents come first.

    Parameters
    ----------
    parents : (n, 2) numbers of the parents of each individual, −1 where unknown; in any order.

    Raises
    ------
    PedigreeLoop : an individual is its own ancestor.
    """
    n = len(parents)
    child, side = np.nonzero(parents >= 0)
    parent = parents[child, side]
    child = child[np.argsort(parent, kind="stable")]
    begin = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=n))])
    # how many known parents have no place yet
    left = np.sum(parents >= 0, axis=1)
    generation = np.flatnonzero(left == 0)
    generations = []
    while len(generation):
        generations.append(generation)
        counts = begin[generation + 1] - begin[generation]
        ends = np.cumsum(counts)
        below = child[np.repeat(begin[generation] - (ends - counts), counts) + np.arange(counts.sum())]
        np.subtract.at(left, below, 1)
        below = np.unique(below)
        generation = below[left[below] == 0]
    order = np.concatenate([*generations, np.zeros(0, int)])
    if len(order) < n:
        raise PedigreeLoop(_loop(parents, left > 0))
    place = np.empty(n, int)
    place[order] = np.arange(n)
    moved = np.where(parents >= 0, place[parents], -1)[order]
    return Ancestry(order, moved, np.concatenate([[0], np.cumsum([len(g) for g in generations])]).astype(int))


def additive(of: Ancestry, which: np.ndarray) -> np.ndarray:
    """A (k, k) of some individuals, by their numbers as given (k,).

    Raises
    ------
    ValueError : more than the available memory.
    """
    require_memory(
        "the relationship matrix",
        len(which),
        len(which),
        remedy="ask for those that have records, or take the inverse, which is sparse",
    )
    return _among(of, of.place[which])


def additive_inverse(of: Ancestry) -> sparse.csc_array:
    """A⁻¹ (n, n), sparse, in the order as given.

    Raises
    ------
    PedigreeLoop : never. ZeroDivisionError : some D is zero, as of offspring of two fully inbred parents.
    """
    from scipy import sparse

    d = of.mendelian
    if np.any(d <= 0):
        raise ZeroDivisionError(of.order[np.flatnonzero(d <= 0)[0]])
    root = sparse.diags_array(d**-0.5) @ _without_parents(of.parents)
    inverse = sparse.csc_array(root.T @ root)[of.place][:, of.place]
    inverse.sort_indices()
    return inverse


def dominance(of: Ancestry, which: np.ndarray) -> np.ndarray:
    """Dominance relationships (k, k) of some individuals, by their numbers as given (k,), if none is inbred.

    d_ij = ¼(a_ss' a_dd' + a_sd' a_ds') of the parents s, d of i and s', d' of j, and d_ii = 1: the
    probability that both alleles are identical by descent. It is an approximation where F > 0.

    Source: Cockerham (1954), doi:10.1093/genetics/39.6.859.

    Raises
    ------
    ValueError : more than the available memory.
    """
    k = len(which)
    require_memory("the matrix of dominance relationships", 3, k, k, remedy="ask for those that have records")
    own = of.parents[of.place[which]]
    known = np.unique(own[own >= 0])
    # the last row and column are those of the unknown parent
    a = np.zeros((len(known) + 1, len(known) + 1))
    a[:-1, :-1] = _among(of, known)
    sire, dam = np.where(own >= 0, np.searchsorted(known, own), len(known)).T
    out = np.empty((k, k))
    step = max(1, BLOCK // max(k, 1))
    for first in range(0, k, step):
        s, d = a[sire[first : first + step]], a[dam[first : first + step]]
        out[first : first + step] = 0.25 * (s[:, sire] * d[:, dam] + s[:, dam] * d[:, sire])
    np.fill_diagonal(out, 1.0)
    return out


def _inbreeding(of: Ancestry) -> np.ndarray:
    f = np.zeros(len(of.parents))
    for begin, end in zip(of.first[1:-1], of.first[2:], strict=True):
        those = np.arange(begin, end)[np.all(of.parents[begin:end] >= 0, axis=1)]
        pairs, family = np.unique(np.sort(of.parents[those], axis=1), axis=0, return_inverse=True)
        f[those] = 0.5 * _between(of.parents, f, pairs)[family.ravel()]
    return f


def _between(parents: np.ndarray, f: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Elements a (k,) of A at pairs (k, 2) of places, of which and of whose ancestors F is known."""
    out = np.empty(len(pairs))
    fewer = int(len(np.unique(pairs[:, 1])) < len(np.unique(pairs[:, 0])))
    pairs = pairs[:, [fewer, 1 - fewer]]
    order = np.argsort(pairs[:, 0], kind="stable")
    first = 0
    while first < len(order):
        # as many columns as fit, with all their mates
        step = max(1, BLOCK // len(parents))
        own = pairs[order[first:], 0]
        starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]]))
        last = first + (starts[step] if step < len(starts) else len(own))
        at = order[first:last]
        inside = ancestors(parents, np.unique(pairs[at]))
        local = np.where(parents[inside] >= 0, np.searchsorted(inside, parents[inside]), -1)
        columns, column = np.unique(pairs[at, 0], return_inverse=True)
        a = _columns(local, mendelian_variance(parents[inside], f), np.searchsorted(inside, columns))
        out[at] = a[np.searchsorted(inside, pairs[at, 1]), column]
        first = last
    return out


def _among(of: Ancestry, places: np.ndarray) -> np.ndarray:
    """A (k, k) at some places, a block of columns at a time."""
    inside = ancestors(of.parents, np.unique(places))
    parents = of.parents[inside]
    local = np.where(parents >= 0, np.searchsorted(inside, parents), -1)
    d, at = of.mendelian[inside], np.searchsorted(inside, places)
    out = np.empty((len(at), len(at)))
    step = max(1, BLOCK // max(len(inside), 1))
    for first in range(0, len(at), step):
        out[:, first : first + step] = _columns(local, d, at[first : first + step])[at]
    # rounding is not symmetric
    return 0.5 * (out + out.T)


def _columns(parents: np.ndarray, mendelian: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Columns (n, k) of A = TDTᵀ."""
    from scipy.sparse.linalg import splu

    unit = np.zeros((len(parents), len(which)), order="F")
    unit[which, np.arange(len(which))] = 1.0
    # triangular as it is: nothing is permuted and nothing fills in
    factor = splu(_without_parents(parents), permc_spec="NATURAL", diag_pivot_thresh=0.0)
    return factor.solve(mendelian[:, None] * factor.solve(unit, "T"))


def _without_parents(parents: np.ndarray) -> sparse.csc_array:
    """I − P."""
    # imported here: scipy.sparse adds a warning filter, and few need it
    from scipy import sparse

    n = len(parents)
    child, side = np.nonzero(parents >= 0)
    values = np.concatenate([np.ones(n), np.full(len(child), -0.5)])
    rows = np.concatenate([np.arange(n), child])
    at = np.concatenate([np.arange(n), parents[child, side]])
    return sparse.csc_array(sparse.coo_array((values, (rows, at)), shape=(n, n)))


def mendelian_variance(parents: np.ndarray, f: np.ndarray) -> np.ndarray:
    """D of individuals with these parents."""
    return 1.0 - 0.25 * np.sum(np.where(parents >= 0, 1.0 + f[parents], 0.0), axis=1)


def ancestors(parents: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Places, ascending, of some individuals and all their ancestors."""
    found = np.zeros(len(parents), bool)
    while len(which):
        found[which] = True
        above = np.unique(parents[which])
        which = above[(above >= 0) & ~found[above]]
    return np.flatnonzero(found)


def _loop(parents: np.ndarray, open_: np.ndarray) -> list[int]:
    """A loop among the individuals that found no place; each has a parent that found none."""
    at, path = int(np.flatnonzero(open_)[0]), []
    while at not in path:
        path.append(at)
        at = next(int(p) for p in parents[at] if p >= 0 and open_[p])
    return path[path.index(at) :]
