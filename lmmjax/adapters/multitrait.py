"""Models of several traits from data with a column a trait."""

from __future__ import annotations

from typing import Any

from lmmjax.adapters.stack_traits import stack_traits
from lmmjax.arrays.other_arguments import answered
from lmmjax.model import Model, lmm
from lmmjax.residual import Unstructured, VarIdent


@answered
def multitrait(
    formula: str,
    data: Any,
    *,
    kernels: Any = None,
    residual: Any = None,
    trait: str = "trait",
    value: str = "value",
    unit: str = "unit",
    backend: str | None = None,
    safe: bool = False,
) -> Model:
    """A model of two or more traits: bivariate REML, genetic and residual correlations.

    `cbind(a, b) ~ x + (1 | id)` with a column for each trait is the ordinary model

        value ~ 0 + trait + trait:x + (0 + trait | id),     residual=Unstructured("trait", group="unit")

    of data with a row for each value: every trait has its own coefficients, every random term a covariance
    matrix of traits, and so have the residuals of one row of `data`. A missing value leaves out its trait
    only. `fit.genetic_correlation()` and `fit.heritability(by="trait")` are of interest then.

    Where every level of a kernel has all traits, the model is fitted in the coordinates of its
    eigenvectors; else all rows, values of traits, form a dense matrix.

    Parameters
    ----------
    formula : traits left of ~ in cbind(); right of it as in `lmm`.
    data : a frame with a row a record.
    kernels, backend, safe : as in `lmm`.
    residual : covariance of the residuals, with the columns that are made; None: free between the traits of a
        row, independent with variances of their own where no row has two traits.
    trait, value, unit : names of the columns that are made: the trait, its value, the row of `data`.

    Raises
    ------
    ValueError : the left side is not two columns or more; a column has a name that is to be made.

    Source: Henderson & Quaas (1976), doi:10.2527/jas1976.4361188x; by rotation Zhou & Stephens (2014),
    doi:10.1038/nmeth.2848.
    """
    made = stack_traits(formula, data, kernels, trait, value, unit)
    if residual is None:
        residual = Unstructured(trait, group=unit) if made.together else VarIdent(trait)
    return lmm(made.formula, made.data, residual=residual, kernels=made.kernels, backend=backend, safe=safe)
