"""The engine of a fit, or of many: which arrays of the records it is made of."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.arrays.sparse_columns import missing
from lmmjax.batch import estimate_many
from lmmjax.fitted import Fitted, FittedMany, by_criterion
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.scan import Engine
from lmmjax.inference.scan.general import GeneralScan
from lmmjax.inference.scan.spectral import SpectralEngine
from lmmjax.scan.general import general_scans


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Responses that have one engine.

    Attributes
    ----------
    where : (t,) their places; engine : theirs.
    rows : the rows of the fit (n',) that they have, None for all.
    """

    where: np.ndarray
    engine: Engine | GeneralScan
    rows: np.ndarray | None = None


def parts_of(fits: Fitted | FittedMany, ddf: str | None = None) -> list[Part]:
    """The engines of all responses that have a fit.

    Raises
    ------
    ValueError : degrees of freedom other than those of the residual for one kernel.
    """
    if not isinstance(fits.data.maker.prepared, SpectralPrepared) or by_mean(fits.data):
        return [Part(*own) for own in general_scans(fits, ddf)]
    if ddf not in (None, "residual"):
        raise ValueError(
            f"ddf={ddf!r}: with one kernel and nothing beside it the degrees of freedom are n - p - 1, "
            'ddf="residual"'
        )
    if isinstance(fits, Fitted):
        return [Part(np.zeros(1, int), _single(fits))]
    usable = np.isfinite(fits.estimate.psi).all(axis=1)
    if fits.weights is not None:
        raise ValueError("scan: responses with weights of their own: scan them one by one, fits[name].scan")
    gone = missing(fits.y)
    _, pattern = np.unique(gone[:, usable], axis=1, return_inverse=True)
    places = np.flatnonzero(usable)
    out = []
    for k in range(pattern.max(initial=-1) + 1):
        where = places[pattern.ravel() == k]
        lost = gone[:, where[0]]
        out.append(Part(where, _many(fits, where, ~lost), None if not lost.any() else np.flatnonzero(~lost)))
    return out


def _single(fit: Fitted) -> Engine:
    maker, estimate = fit.data.maker, fit.estimate

    def ml() -> tuple[np.ndarray, np.ndarray]:
        other = by_criterion(fit, False).estimate
        return np.asarray(other.psi)[None], np.atleast_1d(other.deviance)

    deviance = np.atleast_1d(np.asarray(estimate.deviance))
    return SpectralEngine(maker, fit.y[:, None], np.asarray(estimate.psi)[None], deviance, fit.reml, ml)


def _many(fits: FittedMany, where: np.ndarray, keep: np.ndarray) -> Engine:
    """The engine of responses that have the rows `keep` (n,)."""
    data = fits.data if keep.all() else fits.data.subset(keep)
    y, estimate = fits.y[np.ix_(keep, where)], fits.estimate

    def ml() -> tuple[np.ndarray, np.ndarray]:
        other = estimate_many(data.maker, y, False).estimate
        return np.asarray(other.psi), np.asarray(other.deviance)

    psi, deviance = np.asarray(estimate.psi)[where], np.asarray(estimate.deviance)[where]
    return SpectralEngine(data.maker, y, psi, deviance, fits.reml, ml)
