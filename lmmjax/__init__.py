"""Linear mixed models in JAX: exact ML and REML, one fit or thousands."""

from typing import TYPE_CHECKING

from lmmjax._version import __version__
from lmmjax.adapters.multitrait import multitrait
from lmmjax.arrays import enable_compilation_cache
from lmmjax.core import (
    Estimate,
    Problem,
    conditional_modes,
    estimate,
    gram,
    loglik,
    predict,
    problem_from_arrays,
    profiled_deviance,
    response_axes,
    restricted_loglik,
)
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import FitWarning
from lmmjax.formula import Kernel, Pedigree, grm
from lmmjax.model import Model, lmm, load
from lmmjax.omics import duplicate_correlation, voom
from lmmjax.optimize import Status
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
from lmmjax.results import BatchFit, Fit, Moments, compare, modeltable, power
from lmmjax.selfcheck import self_check, warn_of_known_fault

if TYPE_CHECKING:
    from lmmjax.adapters.formula_regressor import LMMRegressor as LMMRegressor
    from lmmjax.adapters.matrix_regressor import MixedEffectsRegressor as MixedEffectsRegressor
    from lmmjax.adapters.pertpy_method import PertpyLMM as PertpyLMM
    from lmmjax.stream.images import Images as Images

__all__ = [
    "AR1",
    "ARMA",
    "CAR1",
    "BatchFit",
    "CompoundSymmetry",
    "EstimabilityWarning",
    "Estimate",
    "Exponential",
    "Fit",
    "FitWarning",
    "Gaussian",
    "Kernel",
    "KnownVariance",
    "Matern32",
    "Matern52",
    "Model",
    "Moments",
    "Pedigree",
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
    "conditional_modes",
    "duplicate_correlation",
    "enable_compilation_cache",
    "estimate",
    "gram",
    "grm",
    "lmm",
    "load",
    "loglik",
    "modeltable",
    "multitrait",
    "power",
    "predict",
    "problem_from_arrays",
    "profiled_deviance",
    "response_axes",
    "restricted_loglik",
    "self_check",
    "voom",
]

_LATER = {
    "Images": "stream.images",
    "LMMRegressor": "adapters.formula_regressor",
    "MixedEffectsRegressor": "adapters.matrix_regressor",
    "PertpyLMM": "adapters.pertpy_method",
}
"""Names that are imported when they are asked for, because they need an extra."""


_ELSEWHERE = {
    "anova": "fit.anova(), or compare(fit0, fit1)",
    "emmeans": "fit.emmeans()",
    "lme": "lmm(formula, data).fit()",
    "lmer": "lmm(formula, data).fit()",
    "mixedlm": "lmm(formula, data).fit()",
    "gls": "lmm(formula, data, residual=...).fit()",
    "mmrm": "lmm(formula, data, residual=Unstructured(visit, group=subject)).fit()",
    "dream": "lmm(formula, samples).fit_batch(responses)",
    "lmFit": "lmm(formula, samples).fit_batch(responses)",
    "duplicateCorrelation": "duplicate_correlation",
    "voomWithDreamWeights": "voom",
    "AR": "AR1",
    "CS": "CompoundSymmetry",
    "TOEP": "Toeplitz",
    "UN": "Unstructured",
}
"""Names of other packages."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "scan":
        return import_module(f"{__name__}.scan")
    if name not in _LATER:
        said = f": it is {_ELSEWHERE[name]} here" if name in _ELSEWHERE else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{said}")

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


warn_of_known_fault()
