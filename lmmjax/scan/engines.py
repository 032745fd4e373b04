"""The engine of a fit, or of many: which arrays of the records it is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.arrays.device_columns import DeviceColumns
from lmmjax.arrays.sparse_columns import missing
from lmmjax.batch import estimate_many
from lmmjax.batch.device import placed
from lmmjax.batch.device.scan import on_devices
from lmmjax.batch.estimate_many import ALIKE
from lmmjax.core import ProblemMaker
from lmmjax.core.spectral.gaps import MOST
from lmmjax.fitted import Fitted, FittedMany, by_criterion, require_choice
from lmmjax.fitted.mean_variance import by_mean
from lmmjax.gram.block.prepare import BlockPrepared
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.scan import Engine
from lmmjax.inference.scan.engine import KernelFits
from lmmjax.inference.scan.general import DDF, GeneralScan
from lmmjax.inference.scan.partial import BlockEngine, GapEngine
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


def parts_of(fits: Fitted | FittedMany, ddf: str | None = None, gaps: bool = True) -> list[Part]:
    """The engines of all responses that have a fit.

    Without `gaps`, responses with missing values have decompositions of their own.

    Raises
    ------
    ValueError : degrees of freedom other than those of the residual for one kernel.
    """
    require_ddf(fits, ddf)
    if not is_one_kernel(fits):
        return [Part(*own) for own in general_scans(fits, ddf)]
    if isinstance(fits, Fitted):
        return [Part(np.zeros(1, int), _single(fits))]
    usable = np.isfinite(fits.estimate.psi).all(axis=1)
    gone = missing(fits.columns)
    out, left = [], usable.copy()
    if gaps and gone.any() and fits.weights is None and _is_spectral(fits):
        few = _few_missing(fits, gone, usable)
        if len(few):
            out.append(Part(few, _with_gaps(fits, few)))
            left[few] = False
    places = np.flatnonzero(left)
    if not len(places):
        return out
    if fits.weights is not None:
        own = np.where(gone[:, places], 0.0, np.asarray(fits.weights)[:, places])
        pattern = np.unique(own, axis=1, return_inverse=True)[1]
    elif gone.any():
        pattern = np.unique(np.packbits(gone[:, places], axis=0), axis=1, return_inverse=True)[1]
    else:
        pattern = np.zeros(len(places), int)
    for k in range(pattern.max(initial=-1) + 1):
        where = places[pattern.ravel() == k]
        keep = ~gone[:, where[0]]
        if fits.weights is not None:
            keep &= np.asarray(fits.weights)[:, where[0]] > 0
        out.append(Part(where, _many(fits, where, keep), None if keep.all() else np.flatnonzero(keep)))
    return out


def require_ddf(fits: Fitted | FittedMany, ddf: str | None) -> None:
    """ValueError for degrees of freedom that a scan of the model does not have."""
    if not is_one_kernel(fits):
        if ddf not in (None, "satt"):
            require_choice("ddf", ddf, DDF)
    elif ddf not in (None, "residual"):
        raise ValueError(
            f"ddf={ddf!r}: with one kernel and nothing beside it the degrees of freedom are n - p - 1, "
            'ddf="residual"'
        )


def is_one_kernel(fits: Fitted | FittedMany) -> bool:
    """Whether the model is one kernel with independent residuals, in a form that has an engine of its own."""
    return isinstance(fits.data.maker.prepared, SpectralPrepared | BlockPrepared) and not by_mean(fits.data)


def _is_spectral(fits: FittedMany) -> bool:
    return isinstance(fits.data.maker.prepared, SpectralPrepared)


def _few_missing(fits: FittedMany, gone: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Responses (t,) with a few missing values that few others share: they need no decomposition."""
    prepared, (n, p) = fits.data.maker.prepared, fits.data.design.x.shape
    assert isinstance(prepared, SpectralPrepared)
    codes = np.unique(np.packbits(gone, axis=0), axis=1, return_inverse=True)[1].ravel()
    count = gone.sum(axis=0)
    none = prepared.left_over + np.count_nonzero(np.asarray(prepared.shared.mu) <= 0)
    fine = usable & (count > 0) & (count <= MOST * n) & (n - count > p + 1)
    fine &= (np.bincount(codes)[codes] < ALIKE) & np.isfinite(np.asarray(fits.estimate.beta)).all(axis=1)
    return np.flatnonzero(fine & ((none == 0) | (none > count)))


def _engine(fits: KernelFits) -> Engine:
    block = isinstance(fits.maker.prepared, BlockPrepared)
    return on_devices(BlockEngine(fits) if block else SpectralEngine(fits), placed())


def _single(fit: Fitted) -> Engine:
    maker, estimate = fit.data.maker, fit.estimate

    def ml() -> tuple[np.ndarray, np.ndarray]:
        other = by_criterion(fit, False).estimate
        return np.asarray(other.psi)[None], np.atleast_1d(other.deviance)

    deviance = np.atleast_1d(np.asarray(estimate.deviance))
    psi = np.asarray(estimate.psi)[None]
    return _engine(KernelFits(maker, fit.y[:, None], psi, deviance, fit.reml, ml))


def _many(fits: FittedMany, where: np.ndarray, keep: np.ndarray) -> Engine:
    """The engine of responses that have the rows `keep` (n,), with equal weights."""
    data, weights = fits.data, None
    if fits.weights is not None:
        weights = np.asarray(fits.weights)[:, where[0]]
    if weights is not None or not keep.all():
        data = data.subset(keep, weights)
    whole = keep.all() and len(where) == len(fits.names) and isinstance(fits.columns, DeviceColumns)
    y = fits.columns if whole else np.asarray(fits.y)[np.ix_(keep, where)]
    return _engine(_some(fits, data.maker, y, where))


def _some(fits: FittedMany, maker: ProblemMaker, y: Any, where: np.ndarray) -> KernelFits:
    """The fits of some responses, values y (n, t)."""

    def ml() -> tuple[np.ndarray, np.ndarray]:
        other = estimate_many(maker, y, False).estimate
        return np.asarray(other.psi), np.asarray(other.deviance)

    psi, deviance = np.asarray(fits.estimate.psi)[where], np.asarray(fits.estimate.deviance)[where]
    return KernelFits(maker, y, psi, deviance, fits.reml, ml)


def _with_gaps(fits: FittedMany, where: np.ndarray) -> Engine:
    """The engine of responses that lack a few rows each."""
    y = np.asarray(fits.y)[:, where]
    made: dict[int, Engine] = {}

    def apart(k: int, reml: bool) -> tuple[Engine, np.ndarray]:
        keep = ~np.isnan(y[:, k])
        if k not in made:
            made.clear()
            made[k] = _many(fits, where[k : k + 1], keep)
        return made[k], np.flatnonzero(keep)

    return on_devices(GapEngine(_some(fits, fits.data.maker, y, where), apart), placed())
