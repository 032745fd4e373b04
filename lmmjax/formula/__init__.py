"""Formulas and data frames to arrays; the only part of the package that knows formulaic."""

from lmmjax.formula.annotated import observed
from lmmjax.formula.arrays import array_frame, new_array_frame
from lmmjax.formula.build import fitted_rows, model_frame, new_frame
from lmmjax.formula.columns import Table, nearest
from lmmjax.formula.frame import (
    ModelFrame,
    NewFrame,
    NewRandom,
    RandomColumns,
    confined,
    take_columns,
    take_rows,
)
from lmmjax.formula.reduce import reduced_text, updated_frame, with_random, without_term
from lmmjax.formula.relationships.genotypes import Genotypes, genotypes, grm
from lmmjax.formula.relationships.kernels import Kernel
from lmmjax.formula.relationships.pedigree import Pedigree
from lmmjax.formula.relationships.terms import kernels_of, same_kernel
from lmmjax.formula.residuals import ResidualColumns
from lmmjax.formula.text.bars import Bar, SplitFormula, quoted, split_bars

__all__ = [
    "Bar",
    "Genotypes",
    "Kernel",
    "ModelFrame",
    "NewFrame",
    "NewRandom",
    "Pedigree",
    "RandomColumns",
    "ResidualColumns",
    "SplitFormula",
    "Table",
    "array_frame",
    "confined",
    "fitted_rows",
    "genotypes",
    "grm",
    "kernels_of",
    "model_frame",
    "nearest",
    "new_array_frame",
    "new_frame",
    "observed",
    "quoted",
    "reduced_text",
    "same_kernel",
    "split_bars",
    "take_columns",
    "take_rows",
    "updated_frame",
    "with_random",
    "without_term",
]
