"""Symbolic analysis of a design: its grouping factors, which are nested in which, what that leaves dense."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from lmmjax.design import Design


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """A grouping factor with the random terms that share it.

    Attributes
    ----------
    codes : (n,) group of each row; n_groups : G.
    terms : positions of its terms in the design; widths : their numbers of columns.
    """

    codes: np.ndarray
    n_groups: int
    terms: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def q(self) -> int:
        """Columns a group."""
        return sum(self.widths)

    @property
    def size(self) -> int:
        """Random coefficients."""
        return self.q * self.n_groups


def grouping_factors(design: Design) -> tuple[Factor, ...]:
    """The distinct grouping factors, those with most groups first."""
    found: list[tuple[np.ndarray, int, list[int]]] = []
    for k, term in enumerate(design.terms):
        for codes, groups, terms in found:
            if groups == term.n_groups and (codes is term.codes or np.array_equal(codes, term.codes)):
                terms.append(k)
                break
        else:
            found.append((term.codes, term.n_groups, [k]))
    factors = [
        Factor(codes, groups, tuple(terms), tuple(design.terms[k].q for k in terms))
        for codes, groups, terms in found
    ]
    return tuple(sorted(factors, key=lambda f: -f.n_groups))


def parents(fine: Factor, coarse: Factor) -> np.ndarray | None:
    """(G,) the group of `coarse` that holds each group of `fine`; None if `fine` is not nested in it."""
    owner = np.zeros(fine.n_groups, coarse.codes.dtype)
    owner[fine.codes] = coarse.codes
    return owner if np.array_equal(owner[fine.codes], coarse.codes) else None


def nested_chain(factors: tuple[Factor, ...]) -> list[np.ndarray] | None:
    """Parents of the groups of every factor but the last, if each is nested in the next."""
    chain = []
    for fine, coarse in itertools.pairwise(factors):
        owner = parents(fine, coarse)
        if owner is None:
            return None
        chain.append(owner)
    return chain


def longest_chain(factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """The factor with most coefficients and those it is nested in, each within the next, finest first."""
    chain = [max(factors, key=lambda f: f.size)]
    for factor in factors:
        if factor.n_groups < chain[-1].n_groups and parents(chain[-1], factor) is not None:
            chain.append(factor)
    return tuple(chain)
