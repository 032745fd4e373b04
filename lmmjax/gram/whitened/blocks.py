"""WᵀR⁻¹W by group for W = [Z X y] and a residual covariance R(r): four ways, all linear in the rows.

With few distinct steps (Markov families) or patterns (the others) R⁻¹ has few distinct entries c(r), and
WᵀR⁻¹W = Σ c_k(r) M_k with products M_k that are formed once: no row is touched again. Otherwise the rows are
kept: of Markov families decorrelated one after another, of others multiplied by the inverse of their pattern.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, record, static
from lmmjax.gram.base import ResponseProducts
from lmmjax.gram.whitened.patterns import Patterns, Steps, inverse
from lmmjax.residual import ResidualStructure


@record
class Blocks:
    """log|R|, and per group of the random effects: xx (w, w, G) of [Z X], xy (w, G), yy (G)."""

    logdet: Array
    xx: Array
    xy: Array
    yy: Array


@record
class WhitenedResponse(ResponseProducts):
    """What the ways keep of a response: products xy and yy, or rows; `total` is yᵀy."""

    xy: Array
    yy: Array
    total: Array


@dataclasses.dataclass(frozen=True)
class Tangent:
    """A residual structure whose covariances are linear in r: those of the tangent at `start` (k,)."""

    structure: ResidualStructure
    start: Array

    def covariance(self, patterns: Patterns, r: Array) -> Array:
        """R (K, t, t) at `start`, moved along its derivative."""

        def at(start: Array) -> Array:
            return patterns.covariance(self.structure, start)

        value, tangent = jax.jvp(at, (self.start,), (r - self.start,))
        return value + tangent


class Products(abc.ABC):
    """One of the ways; records of arrays."""

    direct = True
    """Whether it does without LAPACK."""

    @abc.abstractmethod
    def blocks(self, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse) -> Blocks:
        """The products at parameters r (k,)."""


@record
class StepProducts(Products):
    """Products by distinct step: xx (3K, w, w, G) for coefficients α², β², −αβ; count (K,)."""

    steps: Steps
    count: Array
    xx: Array

    def blocks(self, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse) -> Blocks:
        alpha, beta, logvar = self.steps.weights(_family(structure), r)
        c = jnp.concatenate([alpha * alpha, beta * beta, -alpha * beta])

        def total(a: Array) -> Array:
            return (c @ a.reshape(len(c), -1)).reshape(a.shape[1:])

        return Blocks(self.count @ logvar, total(self.xx), total(response.xy), total(response.yy))


@record
class StepRows(Products):
    """Rows w (w, n), those before them, and the group of each (n,)."""

    steps: Steps
    w: Array
    w_before: Array
    codes: Array
    groups: int = static()

    def blocks(self, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse) -> Blocks:
        alpha, beta, logvar = self.steps.weights(_family(structure), r)
        rows = jnp.concatenate([self.w, response.xy[None]])
        before = jnp.concatenate([self.w_before, response.yy[None]])
        u = alpha[None] * rows - beta[None] * before
        width = len(rows)
        left, right = np.triu_indices(width)

        def total(pair: tuple[Array, Array]) -> Array:
            product = u[pair[0]] * u[pair[1]]
            if self.groups == 1:
                return jnp.sum(product)[None]
            return jax.ops.segment_sum(product, self.codes, self.groups, indices_are_sorted=True)

        # a loop over pairs of columns: one program, and one product at a time
        sums = jax.lax.map(total, (jnp.asarray(left), jnp.asarray(right)))
        place = np.zeros((width, width), int)
        place[left, right] = place[right, left] = np.arange(len(left))
        whole = sums[place]
        return Blocks(jnp.sum(logvar), whole[:-1, :-1], whole[:-1, -1], whole[-1, -1])


@record
class PatternRows(Products):
    """Rows per size: w (g, t, w), the pattern (g,) and the group of the random effects (g,) of each."""

    patterns: tuple[Patterns, ...]
    w: tuple[Array, ...]
    pattern: tuple[Array, ...]
    owner: tuple[Array, ...]
    groups: int = static()

    @property
    def direct(self) -> bool:
        return all(p.direct for p in self.patterns)

    def blocks(self, structure: ResidualStructure | Tangent, r: Array, response: WhitenedResponse) -> Blocks:
        parts = []
        for k, patterns in enumerate(self.patterns):
            logdet, c = inverse(covariance_of(patterns, structure, r))
            w, y = self.w[k], response.yy[k]
            both = jnp.concatenate([w, y[..., None]], axis=-1)
            solved = c[self.pattern[k]] @ both
            product = jnp.swapaxes(both, -1, -2) @ solved
            product = jax.ops.segment_sum(product, self.owner[k], self.groups)
            product = jnp.moveaxis(product, 0, -1)
            parts.append(
                Blocks(jnp.sum(logdet[self.pattern[k]]), product[:-1, :-1], product[:-1, -1], product[-1, -1])
            )
        return jax.tree.map(lambda *a: sum(a[1:], a[0]), *parts)


def covariance_of(patterns: Patterns, structure: ResidualStructure | Tangent, r: Array) -> Array:
    """R (K, t, t) of patterns, along the tangent where a tangent is given."""
    if isinstance(structure, Tangent):
        return structure.covariance(patterns, r)
    return patterns.covariance(structure, r)


def _family(structure: ResidualStructure | Tangent) -> ResidualStructure:
    if isinstance(structure, Tangent):
        raise ValueError("a tangent needs the covariance matrices of groups: prepare with markov=False")
    return structure
