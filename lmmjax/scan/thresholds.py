"""Thresholds of LOD by permutation, of the largest of all markers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.batch.device.scan import DeviceEngine
from lmmjax.fitted import Fitted, FittedMany, require_count, require_key, require_level
from lmmjax.inference.scan.partial import BlockEngine
from lmmjax.inference.scan.permutations import White, largest, permuted
from lmmjax.inference.scan.spectral import SpectralEngine
from lmmjax.inference.scan.statistics import LOD
from lmmjax.scan.engines import parts_of
from lmmjax.scan.markers import markers_of
from lmmjax.scan.nulls import responses


def scan_threshold(
    fits: Fitted | FittedMany,
    markers: Any,
    key: Any,
    n: int = 1000,
    *,
    level: float = 0.05,
    **matching: Any,
) -> pd.DataFrame:
    """LOD thresholds of every response; see `Fit.scan_threshold`."""
    require_key(key)
    require_count("n", n)
    require_level(level)
    found, parts, labels = (
        markers_of(fits.data, markers, **matching),
        parts_of(fits, gaps=False),
        responses(fits),
    )
    keys = jax.random.split(key, len(labels))
    most = np.full((len(labels), n), np.nan)
    for part in parts:
        engine = part.engine
        engine = engine.host if isinstance(engine, DeviceEngine) else engine
        if not isinstance(engine, SpectralEngine | BlockEngine):
            raise ValueError(
                "thresholds by permutation are for models of one kernel and nothing beside it: "
                "of others simulate responses (fit.simulate) and scan them"
            )
        for k, at in enumerate(part.where):
            white = White(engine, k)
            order = permuted(white, keys[at], n)
            share = np.zeros(n)
            for _, g in found.blocks(found.size(len(found))):
                rows = found.on_rows(g)
                block = engine.prepare(rows if part.rows is None else rows[part.rows])
                share = np.maximum(share, largest(white, block, order))
            most[at] = -engine.null.n[k] * np.log1p(-np.minimum(share, 1.0 - 1e-15)) / LOD
    return pd.DataFrame({"response": np.asarray(labels), "lod": np.quantile(most, 1.0 - level, axis=1)})
