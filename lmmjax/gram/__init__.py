"""Covariance backends: each turns a design into cross-products with `gram` and `project`."""

from __future__ import annotations

from collections.abc import Callable

from lmmjax.basis import Rows
from lmmjax.design import Design
from lmmjax.gram.base import Cost, CrossProducts, Gram, GramJet, Prepared, Projection, ResponseProducts
from lmmjax.gram.crossing import CrossedPrepared
from lmmjax.gram.dense import DensePrepared
from lmmjax.gram.factors import grouping_factors
from lmmjax.gram.grouping import GroupedPrepared
from lmmjax.gram.nesting import NestedPrepared
from lmmjax.gram.slots import MOST, width

BACKENDS: dict[str, Callable[..., Prepared]] = {
    "grouped": GroupedPrepared,
    "nested": NestedPrepared,
    "crossed": CrossedPrepared,
    "dense": DensePrepared,
}


def choose(design: Design) -> str:
    """Name of the cheapest backend that covers the design."""
    factors = grouping_factors(design)
    if not factors:
        return "dense"
    columns = width(design)
    if columns is None:
        return "crossed"
    return "grouped" if len(factors) == 1 or columns <= MOST else "nested"


def prepare(design: Design, rows: Rows, backend: str | None = None, **options) -> Prepared:
    """Cross-products of `design` by the named backend, or the one that `choose` finds."""
    name = choose(design) if backend is None else backend
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; the known ones are: {', '.join(sorted(BACKENDS))}")
    return BACKENDS[name](design, rows, **options)


__all__ = [
    "BACKENDS",
    "Cost",
    "CrossProducts",
    "Gram",
    "GramJet",
    "Prepared",
    "Projection",
    "ResponseProducts",
    "choose",
    "prepare",
]
