"""The criterion's parts for many responses at once, on a design of families: products of stacked matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.custom_batching

from lmmjax.arrays import Array
from lmmjax.core.criterion import SHORTCUTS, CriterionParts, parts
from lmmjax.gram.families.products import FamilyProducts


@jax.custom_batching.custom_vmap
def parts_of_families(shared: FamilyProducts, d: Array, response: Any, reml: Array) -> CriterionParts:
    """`criterion.parts`; over many responses without LAPACK, whose calls in a mapped loop can hang."""
    return parts(shared.jet(d, response), reml)


@parts_of_families.def_vmap
def _mapped(_: int, batched: list, shared: FamilyProducts, d: Array, response: Any, reml: Array) -> Any:
    axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
    axes = (axes[0].mapped, *axes[1:])
    out = jax.vmap(lambda s, d, y, k: parts(s.jet(d, y), k), in_axes=axes)(shared.mapped, d, response, reml)
    return out, jax.tree.map(lambda _: True, out)


SHORTCUTS[FamilyProducts] = parts_of_families
