"""Standard errors of ψ̂, and of standard deviations and correlations, in units of σ̂ first.

Variances have the square of the unit of y and their covariances its fourth power, which need not be doubles.
"""

from __future__ import annotations

import numpy as np

from lmmjax.core import Estimate
from lmmjax.design import Structure
from lmmjax.fitted.components import Component, delta_se, sd_scale


def relative_covariance(
    structure: Structure, estimate: Estimate, general: np.ndarray | bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """σ̂^(2p) (..., m + 1) of every entry of ψ̂, and `cov_psi` in these units, NaN where it is missing.

    Parameters
    ----------
    general : (..., m + 1) entries that keep what a generalised inverse of the information says of them.
    """
    unit = structure.units(np.asarray(estimate.psi)[..., -1:])
    missing = np.isnan(np.diagonal(estimate.cov_psi, axis1=-2, axis2=-1)) & ~np.asarray(general)
    gone = missing[..., :, None] | missing[..., None, :]
    return unit, np.where(gone, np.nan, estimate.cov_relative)


def psi_errors(structure: Structure, estimate: Estimate) -> np.ndarray:
    """Standard errors (..., m + 1) of ψ̂; NaN on a boundary, and where the data do not identify it."""
    unit, cov = relative_covariance(structure, estimate)
    with np.errstate(invalid="ignore"):
        return unit * np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))


def sd_errors(structure: Structure, rows: list[Component], estimate: Estimate) -> np.ndarray:
    """Standard errors (..., m + 1) of the values of `sd_scale`."""
    unit, cov = relative_covariance(structure, estimate)
    _, jacobian = sd_scale(np.asarray(estimate.psi), rows)
    with np.errstate(invalid="ignore"):
        return delta_se(jacobian * unit[..., None, :], cov)
