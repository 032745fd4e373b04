"""The Gram of rows in families: sums over stacks of small matrices, of larger ones, and of patterns."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, record, static
from lmmjax.design import Structure
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Projection, ResponseProducts
from lmmjax.gram.families.large import Large
from lmmjax.gram.families.small import PatternResponse, Patterns, Small, SmallResponse

Part = Small | Patterns | Large

MOST, ROWS = 48, 200_000
"""Rows of the largest family, and of all in stacks, up to which responses descend together."""

WORK, LAPACK = 1e7, 16
"""Operations, over all evaluations, that take as long as compiling; how much faster those of LAPACK are."""


@record
class FamilyProducts(CrossProducts):
    """Stacks of families; `own` per term the diagonal of K (G,), None where groups are independent."""

    parts: tuple[Part, ...]
    logdet_r: Array
    own: tuple[Array | None, ...]
    structure: Structure = static()
    n_groups: tuple[int, ...] = static()

    @property
    def sequential(self) -> bool:
        return True

    @property
    def together(self) -> bool:
        sizes = [part.sizes for part in self.parts]
        return max(s for _, s in sizes) <= MOST and sum(b * s for b, s in sizes) <= ROWS

    @property
    def carried(self) -> bool:
        return True

    @property
    def few(self) -> float:
        sizes = ((part, *part.sizes) for part in self.parts)
        cubes = sum(b * s**3 / (LAPACK if isinstance(part, Large) else 1) for part, b, s in sizes)
        return max(4.0, WORK / cubes)

    @property
    def vector(self) -> int:
        return 4 * sum(b * s * s for b, s in (part.sizes for part in self.parts))

    @property
    def costly(self) -> bool:
        return sum(b * s for b, s in (part.sizes for part in self.parts)) > 5000

    def cost(self) -> Cost:
        m = self.structure.n_params
        cubes = sum(b * s**3 for b, s in (part.sizes for part in self.parts))
        squares = sum(b * s**2 for b, s in (part.sizes for part in self.parts))
        role = ("in the matrices of families",) * len(self.structure.terms)
        return Cost(cubes * (7 / 3 + 2 * m), 8.0 * squares * (2 * m + 4), role)

    @property
    def mapped(self) -> FamilyProducts:
        """The same with arithmetic for many responses at once."""
        parts = (
            dataclasses.replace(part, mapped=True) if isinstance(part, Large) else part for part in self.parts
        )
        return dataclasses.replace(self, parts=tuple(parts))

    def gram(self, d: Array, response: FamilyResponse) -> Gram:
        every: Any = zip(self.parts, response.parts, strict=True)
        return _added([part.gram(d, own) for part, own in every], self._logdet(response))

    def jet(self, d: Array, response: FamilyResponse) -> GramJet:
        every: Any = zip(self.parts, response.parts, strict=True)
        jets = [part.jet(d, own) for part, own in every]
        value = _added([jet.value for jet in jets], self._logdet(response))
        return GramJet(value, _added([jet.first for jet in jets]), _added([jet.second for jet in jets]))

    def _logdet(self, response: FamilyResponse) -> Array:
        return self.logdet_r if response.logdet_r is None else response.logdet_r

    def project(self, d: Array, response: ResponseProducts) -> tuple[Projection, ...]:
        assert isinstance(response, FamilyResponse)
        large = [part for part in self.parts if isinstance(part, Large)]
        assert len(large) == len(self.parts), "prepared without the levels"
        q, p, dtype = [len(z) for z in large[0].z], large[0].x.shape[0], large[0].x.dtype
        # one more for levels that are none
        out = [
            [jnp.zeros((k, k, g + 1), dtype), jnp.zeros((k, p, g + 1), dtype), jnp.zeros((k, g + 1), dtype)]
            for k, g in zip(q, self.n_groups, strict=True)
        ]
        for part, own in zip(large, response.parts, strict=True):
            assert isinstance(own, SmallResponse)
            for found, (levels, *values) in zip(out, part.projected(d, own), strict=True):
                for k, more in enumerate(values):
                    found[k] = found[k].at[..., levels].add(more)
        return tuple(
            Projection(u[..., :-1], tx[..., :-1], ty[..., :-1], own)
            for (u, tx, ty), own in zip(out, self.own, strict=True)
        )


@record
class FamilyResponse(ResponseProducts):
    """What each stack has of responses, and log|R| of those with weights of their own, else None."""

    parts: tuple[SmallResponse | PatternResponse, ...]
    logdet_r: Array | None = None


def _added(found: list[Gram], logdet: Array | float = 0.0) -> Gram:
    total = jax.tree.map(lambda *arrays: sum(arrays[1:], arrays[0]), *found)
    return Gram(total.logdet + logdet, total.xx, total.xy, total.yy)
