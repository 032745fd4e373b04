"""Which covariance backend a design takes, and its products by that backend."""

from __future__ import annotations

from collections.abc import Callable

from jax.core import Tracer

from lmmjax.design import Design, ResidualDesign, Rows
from lmmjax.gram.base import Prepared
from lmmjax.gram.block.decomposition import is_sparse
from lmmjax.gram.block.decomposition import pays as in_blocks
from lmmjax.gram.block.prepare import BlockPrepared
from lmmjax.gram.crossed.prepare import CrossedPrepared
from lmmjax.gram.curved import CurvedPrepared
from lmmjax.gram.dense.prepare import DensePrepared
from lmmjax.gram.factors import Factor, grouping_factors, nested_chain, parents
from lmmjax.gram.families.layout import pays as in_families
from lmmjax.gram.families.prepare import FamiliesPrepared
from lmmjax.gram.fixed.prepare import FixedPrepared
from lmmjax.gram.grouped.expansion import MOST, expanded_columns
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.gram.layered.prepare import LayeredPrepared, pays
from lmmjax.gram.nested.prepare import NestedPrepared
from lmmjax.gram.rotated.arrangement import arrangement
from lmmjax.gram.rotated.prepare import RotatedPrepared
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.gram.whitened.prepare import WhitenedPrepared

ONE_KERNEL = ("spectral", "block")
"""Backends of one kernel of one column, with independent residuals."""

LEVELS = 2000
"""Levels of a kernel up to which one decomposition of it, for all responses, comes before families."""

OF_TERMS = ("grouped", "nested", "crossed", "layered")
"""Backends that eliminate random terms, of which there are some."""

BACKENDS: dict[str, Callable[..., Prepared]] = {
    "grouped": GroupedPrepared,
    "nested": NestedPrepared,
    "crossed": CrossedPrepared,
    "layered": LayeredPrepared,
    "whitened": WhitenedPrepared,
    "spectral": SpectralPrepared,
    "block": BlockPrepared,
    "rotated": RotatedPrepared,
    "families": FamiliesPrepared,
    "fixed": FixedPrepared,
    "dense": DensePrepared,
}


def choose(design: Design) -> str:
    """Name of the cheapest backend that covers the design."""
    factors = grouping_factors(design)
    if any(term.kernel is not None for term in design.terms):
        if _one_kernel(design):
            return "block" if in_blocks(design) else "spectral"
        found = arrangement(design)
        if found is not None and len(found.rows) <= LEVELS:
            return "rotated"
        if in_families(design):
            return "families"
        return "dense" if found is None else "rotated"
    if design.residual is not None:
        return "whitened" if _inside(design.residual, factors) else "dense"
    if not factors:
        return "fixed"
    columns = expanded_columns(design)
    if columns is None:
        return "layered" if pays(design) else "crossed"
    return "grouped" if len(factors) == 1 or columns <= MOST else "nested"


def prepare(design: Design, rows: Rows, backend: str | None = None, **options) -> Prepared:
    """Cross-products of `design` by the named backend, or the one that `choose` finds."""
    name = choose(design) if backend is None else backend
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; the known ones are: {', '.join(sorted(BACKENDS))}")
    if name == "rotated":
        if arrangement(design) is None:
            raise ValueError(
                "the rotated backend is for terms of one factor with one kernel, whose levels all have the "
                "same rows but for the fixed effects: use dense or None"
            )
        return RotatedPrepared(design, rows, _independent, **options)
    if design.residual is not None and name not in ("whitened", "dense"):
        raise ValueError(f"the {name} backend has no residual structures: use whitened, dense or None")
    if not design.terms and name in OF_TERMS:
        raise ValueError(f"the {name} backend is for models with random terms: use fixed, dense or None")
    if design.residual is None and name == "whitened":
        raise ValueError("the whitened backend is for residual structures; the model has none")
    if name not in ("dense", "families", *ONE_KERNEL) and any(
        term.kernel is not None for term in design.terms
    ):
        raise ValueError(
            f"the {name} backend has no kernels: use spectral, block, rotated, families, dense or None"
        )
    if name in ONE_KERNEL and not _one_kernel(design):
        raise ValueError(
            f"the {name} backend is for one random term of one column with a kernel, and independent "
            "residuals: use dense or None"
        )
    if name == "block":
        return _blocks(design, rows, **options)
    if name == "dense" or all(term.family.linear for term in design.terms):
        return BACKENDS[name](design, rows, **options)
    return CurvedPrepared(design, rows, BACKENDS[name], **options)


def _independent(design: Design, rows: Rows, apart: bool, **options) -> Prepared:
    """Products of a design without kernels, with its groups apart if asked for."""
    name = choose(design)
    if apart and name == "grouped":
        options["compress"] = False
    if name != "whitened":
        options.pop("markov", None)
    return prepare(design, rows, name, **options)


def _blocks(design: Design, rows: Rows, **options) -> Prepared:
    """Products of a kernel by its blocks, or of it as a whole where these do not show that σ² may be zero."""
    if not is_sparse(design):
        raise ValueError("the block backend is for sparse kernels, which fall into blocks: use spectral")
    made = BlockPrepared(design, rows, **options)
    return SpectralPrepared(design, rows, **options) if made.closed else made


def _one_kernel(design: Design) -> bool:
    """Whether an eigendecomposition of one kernel makes everything diagonal; of concrete arrays."""
    if len(design.terms) != 1 or design.residual is not None:
        return False
    term = design.terms[0]
    traced = any(isinstance(a, Tracer) for a in (design.x, design.weights, term.z))
    return term.kernel is not None and term.q == 1 and term.family.linear and not traced


def _inside(residual: ResidualDesign, factors: tuple[Factor, ...]) -> bool:
    """Whether rows that correlate share their group of the coarsest of factors that are nested."""
    if not factors:
        return True
    own = Factor(residual.codes, residual.n_groups, (), ())
    return nested_chain(factors) is not None and parents(own, factors[-1]) is not None
