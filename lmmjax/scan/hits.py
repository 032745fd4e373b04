"""Scans of which some pairs are kept: a sweep in float32, and what it finds in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.inference.scan import statistics
from lmmjax.inference.scan.spectral import SpectralEngine
from lmmjax.inference.scan.statistics import LOD, f_test
from lmmjax.inference.scan.sweep import Wanted, sweep
from lmmjax.scan.engines import Part
from lmmjax.scan.evaluate import REPORTED, How, Values, refit_pairs
from lmmjax.scan.keep import BEHIND, Above, Best, Keep, Top
from lmmjax.scan.markers import Markers
from lmmjax.scan.tables import COLUMNS


def hits(
    parts: list[Part], markers: Markers, places: np.ndarray, g: np.ndarray, keep: tuple[Keep, ...], how: How
) -> dict[str, np.ndarray]:
    """Columns of the pairs of a block of markers (N, k) that may be kept, with `place` and `at`.

    `place` is that of the marker, `at` that of the response, `strength` the likelihood ratio.
    """
    rows = markers.on_rows(g)
    found = [_of(part, rows if part.rows is None else rows[part.rows], places, keep, how) for part in parts]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _of(part: Part, g: np.ndarray, places: np.ndarray, keep: tuple[Keep, ...], how: How) -> Values:
    engine = part.engine
    assert isinstance(engine, SpectralEngine)
    null, df, refit = engine.null, engine.df(1), how.ratio == "refit"
    shares = [one.share(null.n, df, how.test, refit) for one in keep if isinstance(one, Above)]
    slack = 10.0 ** (2.0 * BEHIND / null.n) if refit else np.ones(len(null.n))
    wanted = Wanted(
        np.min(shares, axis=0) if shares else None,
        max((one.n for one in keep if isinstance(one, Top)), default=0),
        any(isinstance(one, Best) for one in keep),
        slack,
        null.n,
    )
    block = engine.prepare(g)
    marker, response = sweep(engine, block, wanted)
    pair = np.unique(marker.astype(np.int64) * len(null.n) + response)
    marker, response = pair // len(null.n), pair % len(null.n)
    own = null.some(response)
    found = statistics(own, *engine.pairs(block, marker, response), df[response])
    values: dict[str, Any] = {name: getattr(found, name) for name in REPORTED}
    values |= {"ratio": own.ratio, "f": found.t**2, "df": df[response], "strength": found.lrt}
    if how.wants("score"):
        ml = engine.by_ml()
        b, c = ml.pairs(block, marker, response)
        values["p_score"] = f_test(own.n * b * b / (c * ml.null.a[response]), 1.0, df[response])
    if refit and len(marker):
        again = refit_pairs(engine, (g,), marker, response, how)[0]
        values |= again
        by_wald = own.n * np.log1p(again["t"] ** 2 / df[response])
        values["strength"] = again["lod"] * LOD if "lod" in again else by_wald
    out = {name: values[name] for name in (*COLUMNS[how.test], "strength")}
    return {"place": places[marker], "at": part.where[response], **out}


def table_of_hits(found: list[dict[str, np.ndarray]], markers: Markers, labels: pd.Index) -> pd.DataFrame:
    """The pairs of all blocks, by marker, with labels, `place` and `strength`."""
    joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    order = np.lexsort((joined["at"], joined["place"]))
    joined = {name: column[order] for name, column in joined.items()}
    front = {
        "marker": np.asarray(markers.names)[joined["place"]],
        "response": np.asarray(labels)[joined.pop("at")],
    }
    return pd.DataFrame(front | joined)
