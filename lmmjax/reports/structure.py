"""What a model looks like to its backend, and what an evaluation of it costs."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.fitted import ModelData
from lmmjax.gram.rotated.prepare import RotatedPrepared
from lmmjax.reports.markup import wrapped


@dataclasses.dataclass(frozen=True)
class StructureReport:
    """Blocks of a model and the cost of one evaluation of its criterion with derivatives.

    Attributes
    ----------
    backend : name of the covariance backend.
    n, p : rows and fixed effects.
    terms : per random term its text, groups, columns, and what becomes of it.
    products : bytes of the cross-products that every evaluation starts from.
    memory : bytes one evaluation holds beside them.
    operations : floating-point operations of one evaluation.
    """

    backend: str
    n: int
    p: int
    terms: tuple[tuple[str, int, int, str], ...]
    products: int
    memory: float
    operations: float

    def __str__(self) -> str:
        wide = max((len(text) for text, *_ in self.terms), default=0)
        lines = [f"{self.backend} backend: {self.n:,} rows, {self.p} fixed effects"]
        for text, groups, q, role in self.terms:
            lines.append(f"  {text:<{wide}}  {groups:>9,} groups × {q}  {role}")
        lines.append(
            f"products {_bytes(self.products)}; one evaluation with derivatives: about "
            f"{_count(self.operations)} operations, {_bytes(self.memory)}"
        )
        return "\n".join(wrapped(lines))

    __repr__ = __str__


def structure_report(data: ModelData) -> StructureReport:
    """See `Model.structure`."""
    shared = data.maker.prepared.shared
    cost = shared.cost()
    prepared, roles = data.maker.prepared, cost.roles
    if isinstance(prepared, RotatedPrepared):
        roles = ("rotated by the eigenvectors of the kernel",) * len(roles)
    terms = zip(data.frame.random, roles, strict=True)
    return StructureReport(
        backend=type(prepared).__name__.removesuffix("Prepared").lower(),
        n=data.design.n,
        p=data.design.p,
        terms=tuple((f"({t.label})", len(t.levels), t.z.shape[1], role) for t, role in terms),
        products=sum(np.asarray(a).nbytes for a in jax.tree.leaves(shared)),
        memory=cost.memory,
        operations=cost.operations,
    )


def _bytes(count: float) -> str:
    return _scaled(count, 1024, (" B", " KiB", " MiB", " GiB"))


def _count(number: float) -> str:
    return _scaled(number, 1000, ("", " thousand", " million", " billion"))


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """A number in the largest of some units, each `step` of the one before."""
    for unit in units[:-1]:
        if value < step:
            return f"{value:.3g}{unit}"
        value /= step
    return f"{value:,.3g}{units[-1]}"
