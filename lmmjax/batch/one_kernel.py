"""Many responses under one kernel: products and global fits of some at a time, by processors or devices."""

from __future__ import annotations

import numpy as np

from lmmjax.arrays.processors import mapped
from lmmjax.arrays.sparse_columns import Columns, pieces
from lmmjax.batch.device import gaps_on_devices, one_kernel_on_devices, placed
from lmmjax.batch.outcome import Outcome, failed, outcome
from lmmjax.core import Estimate, ProblemMaker
from lmmjax.core.spectral.fit import at_once, spectral_estimates
from lmmjax.core.spectral.gaps import gap_estimates
from lmmjax.gram.block.products import BlockProducts
from lmmjax.gram.spectral.products import SpectralProducts


def fit_one_kernel(maker: ProblemMaker, y: Columns, reml: bool) -> tuple[Outcome, np.ndarray]:
    """Fits of the columns of y (n, T), and which (T,) are finite: those of others are of zeros."""
    total, shared = y.shape[1], maker.prepared.shared
    assert isinstance(shared, SpectralProducts | BlockProducts)
    place = placed()
    if place is not None and total > place.few:
        return one_kernel_on_devices(place, maker, y, reml)
    size, usable = at_once(shared), np.ones(total, bool)

    def fit(at: np.ndarray, values: np.ndarray) -> Outcome:
        with np.errstate(invalid="ignore", over="ignore"):
            fine = usable[at] = np.isfinite(np.sum(values * values, axis=0))
        values = values if fine.all() else np.where(fine, values, 0.0)
        return outcome(*spectral_estimates(maker.lanes(values, reml)))

    found = failed(total, maker.design.p, maker.design.structure.n_params, "")
    for part, dense in pieces(y):
        values, at = np.asarray(dense, dtype=float), np.arange(total)[part]
        cuts = [slice(k, k + size) for k in range(0, len(at), size)]
        made = mapped(lambda cut, at=at, values=values: fit(at[cut], values[:, cut]), cuts)
        for cut, own in zip(cuts, made, strict=True):
            found.put(at[cut], own)
    return found, usable


def fit_gaps(
    maker: ProblemMaker, y: np.ndarray, reml: bool
) -> tuple[Estimate, np.ndarray, np.ndarray] | None:
    """`gap_estimates` of y (n, T), by processors or devices."""
    place = placed()
    if place is not None and y.shape[1] > place.few:
        return gaps_on_devices(place, maker, y, reml)
    return gap_estimates(maker, y, reml)
