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
from lmmjax.results import Fit

__all__ = [
    "BatchFit",
    "Estimate",
    "Fit",
    "Model",
    "Moments",
    "Problem",
    "Status",
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
