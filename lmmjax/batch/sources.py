"""Problems for the tests of many responses, and those with designs of their own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmmjax.arrays import UNROLL
from lmmjax.arrays.sparse_columns import Columns
from lmmjax.core import Problem, ProblemMaker, response_axes
from lmmjax.design import take_rows
from lmmjax.gram.families.own_weights import OwnFamilies
from lmmjax.gram.families.prepare import FamiliesPrepared

if TYPE_CHECKING:
    from lmmjax.gram.grouped.own_weights import OwnWeights

FEW = 512
"""Up to so many responses are fitted one after the other, by the program of a single fit."""


MANY_EFFECTS = 48
"""Fixed effects beyond which lanes are slower than single fits: with 100 by 125 to 5 ms, in gigabytes."""


def few(maker: ProblemMaker, usual: int = FEW) -> float:
    """`FEW`, twice as many with many fixed effects, whose mapped programs take longer to compile, or all.

    On devices, where a single fit waits for each of its launches, fewer are `usual`.
    """
    p = maker.design.p
    if p > MANY_EFFECTS:
        return float("inf")
    return min((2 if p > UNROLL else 1) * usual, maker.prepared.shared.few)


def few_apart(maker: ProblemMaker) -> float:
    """Up to how many responses with designs of their own are, of models with many fixed effects or slopes.

    With 40 effects a program for lanes takes 22 CPU seconds longer to compile and 9 ms less for a response.
    """
    return few(maker) if maker.design.p > UNROLL or getattr(maker.prepared.shared, "wide", False) else 0


@dataclasses.dataclass(frozen=True)
class SharedDesign:
    """The design without a response: the same problem for all."""

    maker: ProblemMaker
    reml: bool

    @property
    def few(self) -> float:
        return few(self.maker)

    def one(self, _: int) -> Problem:
        return self.lanes(np.zeros(1, int))

    def lanes(self, _: np.ndarray) -> Problem:
        return self.maker(np.zeros(self.maker.design.n), self.reml)


class OwnDesigns:
    """Responses y (n, T) with designs of their own: missing values, and weights (n, T) or None."""

    def __init__(
        self, maker: ProblemMaker, y: Columns, weights: np.ndarray | None, reml: bool, tangents: bool
    ):
        self.tangents = tangents
        self.maker, self.y, self.weights, self.reml = maker, y, weights, reml
        self.made: tuple[bytes, ProblemMaker | None] = (b"", None)
        self.products: Any = None

    @property
    def few(self) -> float:
        return max(FEW // 8, few_apart(self.maker))

    def _weights(self, which: Any) -> np.ndarray:
        y = np.asarray(self.y[:, which])
        return np.where(np.isnan(y), 0.0, 1.0 if self.weights is None else self.weights[:, which])

    def maker_of(self, k: int) -> ProblemMaker:
        """A maker for the rows and weights of response k; the last one is kept."""
        w = self._weights(k)
        key, maker = self.made
        if maker is None or key != w.tobytes():
            maker = ProblemMaker(take_rows(self.maker.design, w > 0, w), self.maker.backend)
            maker = maker.tangents if self.tangents else maker
            self.made = w.tobytes(), maker
        return maker

    def one(self, k: int) -> Problem:
        w = self._weights(k)
        maker = self.maker_of(k)
        return maker(np.asarray(self.y[w > 0, k], float), self.reml)

    def lanes(self, which: np.ndarray) -> Problem:
        if self.products is None:
            self.products = own_products(self.maker)
        return own_problem(self.products, np.asarray(self.y[:, which]), self._weights(which), self.reml)[0]


Source = SharedDesign | OwnDesigns


def is_apart(source: Source) -> bool:
    """Whether its problems cannot be mapped over, and go one after the other."""
    shared = source.maker.prepared.shared
    return shared.sequential or (isinstance(source, OwnDesigns) and not shared.individual)


def mapped_axes(problem: Problem) -> Problem:
    """Trailing axes of lanes: of all arrays but κ, of those of the response, or of none."""
    if problem.n.ndim:
        return dataclasses.replace(jax.tree.map(lambda _: -1, problem), reml=None)
    return response_axes(problem, -1 if problem.origin.scale.ndim else None)


def own_families(maker: ProblemMaker) -> OwnFamilies:
    """A design of families, ready for responses with weights."""
    assert isinstance(maker.prepared, FamiliesPrepared)
    return OwnFamilies(maker.design, maker.rows, maker.basis, maker.prepared)


def own_products(maker: ProblemMaker) -> OwnWeights:
    """The design, ready for responses with weights."""
    # imported here: scipy.sparse adds a warning filter, and a single fit has no use for it
    from lmmjax.gram.grouped.own_weights import OwnWeights

    return OwnWeights(maker.design, maker.basis)


def own_problem(
    products: OwnWeights | OwnFamilies, y: np.ndarray, weights: np.ndarray, reml: bool
) -> tuple[Problem, np.ndarray, np.ndarray]:
    """The problem of responses y (n, T) with weights (n, T) of their own; all axes of responses trail.

    Also which responses are finite (T,), and which determine all that there is to estimate (T,).
    """
    shared, response, origin, basis, n, finite, estimable = products(
        np.asarray(y, dtype=float), np.asarray(weights, dtype=float)
    )
    kappa = np.asarray(float(reml))
    known = None if products.known is None else np.asarray(products.known)
    problem = Problem(shared, response, origin, basis, n, kappa, products.structure, known)
    return problem, finite, estimable
