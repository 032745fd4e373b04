"""The design of a model as arrays: X, Z, weights, the structure of its covariance, internal coordinates."""

from lmmjax.design.aliases import Aliases, EstimabilityWarning, aliases
from lmmjax.design.basis import (
    Basis,
    Origin,
    Rows,
    inner_columns,
    solve_upper,
    standardise,
    standardise_response,
)
from lmmjax.design.design import (
    Condensed,
    Design,
    RandomTerm,
    ResidualDesign,
    check_design,
    take_columns,
    take_rows,
)
from lmmjax.design.kernels import LevelKernel
from lmmjax.design.rank import columns_on_rows, independent_columns
from lmmjax.design.structure import Structure, TermStructure

__all__ = [
    "Aliases",
    "Basis",
    "Condensed",
    "Design",
    "EstimabilityWarning",
    "LevelKernel",
    "Origin",
    "RandomTerm",
    "ResidualDesign",
    "Rows",
    "Structure",
    "TermStructure",
    "aliases",
    "check_design",
    "columns_on_rows",
    "independent_columns",
    "inner_columns",
    "solve_upper",
    "standardise",
    "standardise_response",
    "take_columns",
    "take_rows",
]
