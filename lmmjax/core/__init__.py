"""The likelihood, its optimum and what follows from it, as pure functions of arrays.

Also the interface for those who bring arrays: problems made inside `jit`, estimates, modes, predictions.
"""

from lmmjax.core.conditional import Modes, conditional_means, conditional_modes
from lmmjax.core.descents import best_of, descents, few_groups, further_points, further_starts
from lmmjax.core.estimate import METHODS, Estimate, estimate, estimate_jit
from lmmjax.core.problem import (
    Problem,
    ProblemMaker,
    gram,
    loglik,
    profiled_deviance,
    response_axes,
    restricted_loglik,
)
from lmmjax.core.pure import predict, problem_from_arrays

__all__ = [
    "METHODS",
    "Estimate",
    "Modes",
    "Problem",
    "ProblemMaker",
    "best_of",
    "conditional_means",
    "conditional_modes",
    "descents",
    "estimate",
    "estimate_jit",
    "few_groups",
    "further_points",
    "further_starts",
    "gram",
    "loglik",
    "predict",
    "problem_from_arrays",
    "profiled_deviance",
    "response_axes",
    "restricted_loglik",
]
