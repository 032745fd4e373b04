"""Fits of one kernel whose ratio of variances ended where it can go no further."""

from __future__ import annotations

import numpy as np

from lmmjax.core.spectral.records import LARGEST
from lmmjax.core.spectral.search import RATIOS
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.records import Fitted, FittedMany
from lmmjax.gram.block.prepare import BlockPrepared
from lmmjax.gram.spectral.prepare import SpectralPrepared


def bounds(data: ModelData, psi: np.ndarray, reml: bool) -> np.ndarray:
    """ "lower", "upper" or "" (...) for ψ (..., 2): at which end σ²ᵤ/σ² lies; "" for other models."""
    psi = np.asarray(psi, float)
    if not isinstance(data.maker.prepared, SpectralPrepared | BlockPrepared):
        return np.full(psi.shape[:-1], "", object)
    unit = float(np.asarray(data.maker.basis.outward[0])[0, 0]) ** 2
    low, high = (0.0, LARGEST * unit) if reml else RATIOS
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = psi[..., 0] / psi[..., 1]
        upper = np.where(ratio >= high * (1 - 1e-9), "upper", "")
        return np.where(ratio <= low * (1 + 1e-9), "lower", upper).astype(object)


def fit_bound(fitted: Fitted) -> str:
    """That of a fit."""
    return str(bounds(fitted.data, fitted.estimate.psi, fitted.reml))


def batch_bounds(fits: FittedMany) -> np.ndarray:
    """Those of many fits (T,)."""
    return bounds(fits.data, fits.estimate.psi, fits.reml)


def unbounded(count: int, total: int) -> str:
    """What is to be said of fits by maximum likelihood that ended at the largest ratio."""
    who = "the ratio of variances is" if total == 1 else f"the ratios of variances of {count} responses are"
    return (
        f"maximum likelihood: {who} at the bound {RATIOS[1]:g}; where the fixed effects span what a kernel "
        "has no part in, as they do where it is centred, the likelihood has no maximum: use REML"
    )
