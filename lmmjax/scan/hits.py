"""Pairs of a block of markers that may be kept.

With one kernel an engine finds them, by a sweep in float32 or on devices; else they are found among all
pairs. Only what may be kept is refitted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.batch.device.scan import DeviceEngine
from lmmjax.inference.scan import statistics
from lmmjax.inference.scan.candidates import Candidates
from lmmjax.inference.scan.engine import Engine
from lmmjax.inference.scan.general import GeneralScan
from lmmjax.inference.scan.statistics import LOD, f_test
from lmmjax.inference.scan.sweep import Wanted
from lmmjax.scan.beside import Beside
from lmmjax.scan.engines import Part
from lmmjax.scan.evaluate import How, Values, evaluate, refit_pairs
from lmmjax.scan.general import marker_values, refitted_pairs
from lmmjax.scan.keep import BEHIND, Above, Best, Keep, Top
from lmmjax.scan.markers import Markers
from lmmjax.scan.pairs import Pairs


def hits(
    part: Part,
    markers: Markers,
    places: np.ndarray,
    g: Any,
    beside: Beside,
    keep: tuple[Keep, ...],
    how: How,
) -> Pairs:
    """The pairs of the markers g (N, k) at places (k,), and the responses of a part, that may be kept."""
    engine = part.engine
    if isinstance(engine, Engine) and is_swept(part, beside, keep):
        marker, response, terms = _swept(engine, _rows(part, markers, g), keep, how)
    else:
        marker, response, terms = _among_all(part, markers, g, beside, keep, how)
    n, p = rows_and_effects(part)
    n, df = n[response], (n - p - beside.width)[response]
    strength = strength_of(terms[0], n, df)
    if how.ratio == "refit" and len(marker):
        again = refitted(part, markers, g, beside, marker, response, how)
        strength = strength_of(again[0], n, df)
        terms = [own | new for own, new in zip(terms, again, strict=True)]
    return Pairs(places[marker], part.where[response], strength, terms)


def is_swept(part: Part, beside: Beside, keep: tuple[Keep, ...]) -> bool:
    """Whether hits among the pairs of a part are found by a sweep in float32."""
    if not isinstance(part.engine, Engine) or beside.width > 1 or not part.engine.sweeps:
        return False
    # responses of different sizes are compared by more than ρ²
    return not (part.engine.alone and any(isinstance(one, Best) for one in keep))


def strength_of(values: Values, n: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Likelihood ratio of all columns; where it was not asked for, the one that t says, with n and df."""
    if "joint" in values:
        return values["joint"]
    if "lod" in values:
        return values["lod"] * LOD
    return n * np.log1p(values["t"] ** 2 / df)


def rows_and_effects(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(t,) rows and fixed effects of the responses of a part."""
    if isinstance(part.engine, GeneralScan):
        design, count = part.engine.design, part.engine.lanes
        return np.full(count, float(design.n)), np.full(count, float(design.p))
    return part.engine.null.n, part.engine.null.p


def part_values(part: Part, markers: Markers, g: Any, beside: Beside, how: How) -> list[Values]:
    """Statistics (k, t) of every column of the markers g (N, k) and the responses of a part."""
    if isinstance(part.engine, GeneralScan):
        return marker_values(part.engine, np.asarray(g), markers.codes, beside.carriers, part.rows, how)
    return evaluate(part.engine, _columns(part, markers, g, beside), how)


def refitted(
    part: Part,
    markers: Markers,
    g: Any,
    beside: Beside,
    marker: np.ndarray,
    response: np.ndarray,
    how: How,
) -> list[Values]:
    """What exact fits of pairs (Q,) of markers g (N, k) and responses of a part say of every column."""
    used, marker = np.unique(marker, return_inverse=True)
    g, marker = np.asarray(g[:, used]), marker.ravel()
    if isinstance(part.engine, GeneralScan):
        found = Candidates(g, markers.codes, beside.carriers)
        found = found if part.rows is None else found.on(part.rows)
        return refitted_pairs(part.engine, found, marker, response, how)
    return refit_pairs(part.engine, _columns(part, markers, g, beside), marker, response, how)


def _rows(part: Part, markers: Markers, g: Any) -> Any:
    """Markers (n', k) in the rows that a part has; those on a device come to an engine of the host."""
    rows = markers.on_rows(g if isinstance(part.engine, DeviceEngine) else np.asarray(g))
    return rows if part.rows is None else rows[part.rows]


def _columns(part: Part, markers: Markers, g: Any, beside: Beside) -> tuple[Any, ...]:
    rows = _rows(part, markers, g)
    if beside.width == 1:
        return (rows,)
    values = beside.values if part.rows is None else beside.values[part.rows]
    return dataclasses.replace(beside, values=values).columns(np.asarray(rows))


Found = tuple[np.ndarray, np.ndarray, list[Values]]
"""Places of markers and of responses (Q,), and the statistics of every column at the null."""


def _swept(engine: Engine, g: Any, keep: tuple[Keep, ...], how: How) -> Found:
    null, df, refit = engine.null, engine.df(1), how.ratio == "refit"
    shares = [one.share(null.n, df, how.test, refit) for one in keep if isinstance(one, Above)]
    slack = 10.0 ** (2.0 * BEHIND / null.n) if refit else np.ones(len(null.n))
    wanted = Wanted(
        np.min(shares, axis=0) if shares else None,
        max((one.n for one in keep if isinstance(one, Top)), default=0),
        any(isinstance(one, Best) for one in keep),
        slack,
    )
    found = engine.hits(engine.prepare(g), wanted, how.wants("score"))
    response = found.response
    own = null.some(response)
    exact = statistics(own, found.b, found.c, df[response])
    values = how.reported(exact) | {"ratio": own.ratio, "f": exact.t**2, "df": df[response]}
    if found.by_ml is not None:
        (b, c), n = found.by_ml, own.n
        f = n * b * b / (c * engine.by_ml().null.a[response])
        values["p_score"] = f_test(f, 1.0, df[response])
    return found.marker, response, [values]


def _among_all(
    part: Part, markers: Markers, g: Any, beside: Beside, keep: tuple[Keep, ...], how: How
) -> Found:
    values = part_values(part, markers, g, beside, How("null", how.test))
    n, p = rows_and_effects(part)
    df = n - p - beside.width
    strength = strength_of(values[0], n, df)
    refit = how.ratio == "refit"
    level = np.where(np.isnan(strength), -np.inf, strength)
    slack, near = BEHIND * LOD * refit, np.zeros(level.shape, bool)
    for one in keep:
        if isinstance(one, Top):
            last = np.partition(level, max(0, len(level) - one.n), axis=0)[max(0, len(level) - one.n)]
            near |= level >= last - slack
        elif isinstance(one, Best):
            near |= level >= level.max(axis=1, keepdims=True) - slack
        elif one.p is None or refit:
            share = one.share(n, df, how.test, refit, beside.width)
            near |= -np.expm1(-level / n) >= share
        else:
            near |= one.is_above(values[0], how.test)
    marker, response = np.nonzero(near & np.isfinite(level))
    return marker, response, [{name: own[name][marker, response] for name in own} for own in values]
