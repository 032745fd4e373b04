"""A model with its data and its fits, as records; what fits them; the entries of ψ by name.

Everything that needs a model takes `ModelData`, everything that needs a fit `Fitted` or `FittedMany`.
"""

from lmmjax.fitted.checks import (
    require_choice,
    require_count,
    require_data,
    require_estimates,
    require_function,
    require_key,
    require_known,
    require_level,
    require_rows,
    require_switch,
)
from lmmjax.fitted.components import (
    Component,
    component_names,
    components,
    reported,
    sd_limits,
    sd_scale,
)
from lmmjax.fitted.data import ModelData, model_data
from lmmjax.fitted.errors import psi_errors, relative_covariance, sd_errors
from lmmjax.fitted.fit_many import by_reml_many, fit_draws, fit_many, one_of_many, some_of_many
from lmmjax.fitted.fit_one import by_criterion, fit_one, refitted
from lmmjax.fitted.identification import (
    FitWarning,
    announce,
    announce_many,
    identified_psi,
    identified_sds,
    not_identified,
    remarks,
    status,
    unidentified_names,
)
from lmmjax.fitted.kept import kept
from lmmjax.fitted.kernel_bounds import batch_bounds, fit_bound
from lmmjax.fitted.mean_variance import by_mean, with_mean
from lmmjax.fitted.open_effects import (
    combined,
    covariances_many,
    identified_effects,
    identified_effects_many,
    identified_population,
    open_effects,
    open_effects_many,
)
from lmmjax.fitted.records import Fitted, FittedMany, ModelView
from lmmjax.fitted.responses import kept_rows, response_vector
from lmmjax.fitted.values import (
    fitted_modes,
    fitted_values,
    linear_part,
    normalized_residuals,
    residuals,
    scaled_residuals,
)

__all__ = [
    "Component",
    "FitWarning",
    "Fitted",
    "FittedMany",
    "ModelData",
    "ModelView",
    "announce",
    "announce_many",
    "batch_bounds",
    "by_criterion",
    "by_mean",
    "by_reml_many",
    "combined",
    "component_names",
    "components",
    "covariances_many",
    "fit_bound",
    "fit_draws",
    "fit_many",
    "fit_one",
    "fitted_modes",
    "fitted_values",
    "identified_effects",
    "identified_effects_many",
    "identified_population",
    "identified_psi",
    "identified_sds",
    "kept",
    "kept_rows",
    "linear_part",
    "model_data",
    "normalized_residuals",
    "not_identified",
    "one_of_many",
    "open_effects",
    "open_effects_many",
    "psi_errors",
    "refitted",
    "relative_covariance",
    "remarks",
    "reported",
    "require_choice",
    "require_count",
    "require_data",
    "require_estimates",
    "require_function",
    "require_key",
    "require_known",
    "require_level",
    "require_rows",
    "require_switch",
    "residuals",
    "response_vector",
    "scaled_residuals",
    "sd_errors",
    "sd_limits",
    "sd_scale",
    "some_of_many",
    "status",
    "unidentified_names",
    "with_mean",
]
