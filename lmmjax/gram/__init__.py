"""Covariance backends: each turns a design into cross-products with `gram` and `project`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmjax.basis import Rows
from lmmjax.design import Design
from lmmjax.gram.base import CrossProducts, Gram, GramJet, Prepared, Projection, ResponseProducts
from lmmjax.gram.dense import DensePrepared
from lmmjax.gram.grouping import GroupedPrepared

BACKENDS: dict[str, Callable[..., Prepared]] = {"grouped": GroupedPrepared, "dense": DensePrepared}


def choose(design: Design) -> str:
    """Name of the cheapest backend that covers the design."""
    if not design.terms:
        return "dense"
    first = design.terms[0].codes
    shared = all(term.codes is first or np.array_equal(term.codes, first) for term in design.terms[1:])
    return "grouped" if shared else "dense"


def prepare(design: Design, rows: Rows, backend: str | None = None, **options) -> Prepared:
    """Cross-products of `design` by the named backend, or the one that `choose` finds."""
    name = choose(design) if backend is None else backend
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; the known ones are: {', '.join(sorted(BACKENDS))}")
    if name == "grouped" and choose(design) != "grouped":
        raise ValueError("the grouped backend needs random terms that all share one grouping factor")
    return BACKENDS[name](design, rows, **options)


__all__ = [
    "BACKENDS",
    "CrossProducts",
    "Gram",
    "GramJet",
    "Prepared",
    "Projection",
    "ResponseProducts",
    "choose",
    "prepare",
]
