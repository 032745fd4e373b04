"""Linear mixed models in JAX: exact ML and REML, one fit or thousands."""

from lmmjax._compile import enable_compilation_cache
from lmmjax._version import __version__
from lmmjax.batchfit import BatchFit
from lmmjax.compare import compare
from lmmjax.estimate import Estimate, estimate
from lmmjax.model import Model, lmm
from lmmjax.moments import Moments
from lmmjax.optimize import Status
from lmmjax.problem import Problem, gram, loglik, profiled_deviance, response_axes, restricted_loglik
from lmmjax.residual import (
    AR1,
    ARMA,
    CAR1,
    CompoundSymmetry,
    Exponential,
    Gaussian,
    KnownVariance,
    Matern32,
    Matern52,
    Symmetric,
    Toeplitz,
    Unstructured,
    VarExp,
    VarIdent,
    VarPower,
)
from lmmjax.results import Fit

__all__ = [
    "AR1",
    "ARMA",
    "CAR1",
    "BatchFit",
    "CompoundSymmetry",
    "Estimate",
    "Exponential",
    "Fit",
    "Gaussian",
    "KnownVariance",
    "Matern32",
    "Matern52",
    "Model",
    "Moments",
    "Problem",
    "Status",
    "Symmetric",
    "Toeplitz",
    "Unstructured",
    "VarExp",
    "VarIdent",
    "VarPower",
    "__version__",
    "compare",
    "enable_compilation_cache",
    "estimate",
    "gram",
    "lmm",
    "loglik",
    "profiled_deviance",
    "response_axes",
    "restricted_loglik",
]
