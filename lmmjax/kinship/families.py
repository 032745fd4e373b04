"""Relationships of pedigrees that fall into many families: sparse matrices, without what is n × n.

T = (I − P)⁻¹ = (I + P)(I + P²)(I + P⁴) … ends, as no one is its own ancestor; it has entries within families.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays.memory import require_memory
from lmmjax.kinship.pedigree import Ancestry, ancestors, mendelian_variance

MANY, SHARE = 1000, 0.25
"""Individuals from which on families are looked for, and the share of related pairs up to which they pay."""


def in_families(of: Ancestry, which: np.ndarray) -> bool:
    """Whether individuals (k,), by their numbers as given, fall into families that are small."""
    if len(which) < MANY:
        return False
    inside, local = _inside(of, of.place[which])
    sizes = np.bincount(_families(local)).astype(float)
    return float(sizes @ sizes) <= SHARE * float(len(which)) ** 2 and len(inside) > 0


def additive_sparse(of: Ancestry, which: np.ndarray) -> Any:
    """A (k, k), sparse, of some individuals, by their numbers as given (k,).

    Raises
    ------
    ValueError : more than the available memory.
    """
    return _additive(of, of.place[which])


def dominance_sparse(of: Ancestry, which: np.ndarray) -> Any:
    """Dominance relationships (k, k), sparse, of some individuals; see `kinship.dominance`."""
    import scipy.sparse as sp

    own = of.parents[of.place[which]]
    known = np.unique(own[own >= 0])
    # relationships of parents, the last being the unknown one
    a: Any = sp.csr_matrix(_additive(of, known))
    a.resize((len(known) + 1, len(known) + 1))
    sire, dam = np.where(own >= 0, np.searchsorted(known, own), len(known)).T
    # pairs whose sires are related, or whose sire and dam are
    k = len(which)
    at = sp.csr_matrix((np.ones(k), (np.arange(k), sire)), shape=(k, len(known) + 1))
    near = at @ a
    pairs: Any = (near @ at.T + near @ sp.csr_matrix((np.ones(k), (dam, np.arange(k))))).tocoo()
    i, j = pairs.row, pairs.col

    def between(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return np.asarray(a[one, two]).ravel()

    value = between(sire[i], sire[j]) * between(dam[i], dam[j])
    value = 0.25 * (value + between(sire[i], dam[j]) * between(dam[i], sire[j]))
    away = (i != j) & (value != 0)
    diagonal = np.arange(k)
    data = np.concatenate([value[away], np.ones(k)])
    place = (np.concatenate([i[away], diagonal]), np.concatenate([j[away], diagonal]))
    return sp.csr_array((data, place), shape=(k, k))


def _inside(of: Ancestry, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Individuals at some places with all ancestors, and their parents (m, 2) among them."""
    inside = ancestors(of.parents, np.unique(places))
    parents = of.parents[inside]
    return inside, np.where(parents >= 0, np.searchsorted(inside, parents), -1)


def _families(parents: np.ndarray) -> np.ndarray:
    """(m,) the family of every individual: those of different ones have no ancestor in common."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    child, side = np.nonzero(parents >= 0)
    links = sp.csr_array((np.ones(len(child)), (child, parents[child, side])), shape=(len(parents),) * 2)
    return connected_components(links, directed=False)[1]


def _additive(of: Ancestry, places: np.ndarray) -> Any:
    import scipy.sparse as sp

    inside, parents = _inside(of, places)
    sizes = np.bincount(_families(parents), minlength=1).astype(float)
    require_memory("the relationships within families", 4, int(sizes @ sizes))
    m = len(inside)
    child, side = np.nonzero(parents >= 0)
    step: Any = sp.csr_array((np.full(len(child), 0.5), (child, parents[child, side])), shape=(m, m))
    step.sum_duplicates()
    t: Any = sp.eye_array(m, format="csr")
    while step.nnz:
        t, step = t + t @ step, step @ step
        step.eliminate_zeros()
    rows = t[np.searchsorted(inside, places)]
    d = mendelian_variance(of.parents[inside], of.inbreeding)
    half = rows @ sp.diags_array(d)
    out = sp.csr_array(half @ rows.T)
    # rounding is not symmetric
    return sp.csr_array(0.5 * (out + out.T))
