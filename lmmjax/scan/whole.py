"""A scan from its arguments to its table."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.memory import require_memory
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import Fitted, FittedMany, require_choice, response_vector
from lmmjax.formula import nearest
from lmmjax.inference.scan.general import GeneralScan
from lmmjax.inference.scan.spectral import SpectralEngine
from lmmjax.inference.scan.statistics import LOD
from lmmjax.scan.engines import Part, parts_of
from lmmjax.scan.evaluate import How, Values, evaluate
from lmmjax.scan.general import general_scans, marker_values, own_covariates, own_values, require_refits
from lmmjax.scan.hits import hits, table_of_hits
from lmmjax.scan.keep import Keep, chosen, keeps
from lmmjax.scan.markers import Markers, markers_of
from lmmjax.scan.tables import COLUMNS, TESTS, frame

RATIOS = ("null", "refit")


def scan(
    fits: Fitted | FittedMany,
    markers: Any = None,
    *,
    ratio: str = "null",
    test: str | None = None,
    names: Any = None,
    ids: Any = None,
    group: str | None = None,
    interaction: Any = None,
    maf: float = 0.0,
    max_missing: float = 1.0,
    ddf: str | None = None,
    own: Any = None,
    keep: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Every marker against every response; see `Fit.scan`."""
    require_choice("ratio", ratio, RATIOS)
    require_choice("test", test, (None, *TESTS))
    how = How(ratio, test)
    if ratio == "refit":
        require_refits(fits)
    if (markers is None) == (own is None):
        raise ValueError("pass markers, or own= with a covariate for each response: one of the two")
    if own is not None:
        return scan_own(fits, own, how, interaction, ddf)
    found = markers_of(
        fits.data, markers, ids=ids, names=names, group=group, maf=maf, max_missing=max_missing
    )
    beside = None if interaction is None else covariate(fits, interaction)
    parts = parts_of(fits, ddf)
    labels = responses(fits)
    if keep is not None:
        return scan_hits(fits, parts, found, keeps(keep), how, beside, progress)
    require_memory(
        "the table of all markers and responses",
        len(found),
        len(labels),
        len(COLUMNS[test]),
        remedy="keep some of them, keep=",
    )
    tables, void = [], [np.empty(0, int)]
    report = progress or (lambda done, total: None)
    report(0, len(found))
    for places, g in found.blocks(found.size(len(found))):
        values = block_values(parts, found, g, beside, how, len(labels))
        void.append(places[np.isnan(values[0]["t"]).all(axis=1)])
        tables.append(rows(found, places, labels, values, beside, test))
        report(int(places[-1]) + 1 if len(places) else 0, len(found))
    report(len(found), len(found))
    if np.isfinite(fits.estimate.deviance).any():
        warn_of_markers(found, np.concatenate(void))
    out = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]} if tables else {}
    criterion = "REML" if fits.reml else "ML"
    return frame(out, loglik=criterion, ratio=ratio, test=test)


def warn_of_markers(markers: Markers, places: np.ndarray) -> None:
    """An `EstimabilityWarning` that names the markers without a result for any response, if any."""
    if len(places):
        shown = ", ".join(str(name) for name in markers.names[places[:6]]) + (
            ", ..." if len(places) > 6 else ""
        )
        warnings.warn(
            f"{len(places)} of {len(markers)} markers have no results ({shown}): each is constant, missing "
            "or determined by the fixed effects",
            EstimabilityWarning,
            stacklevel=stack_level(),
        )


def scan_hits(
    fits: Fitted | FittedMany,
    parts: list[Part],
    found: Markers,
    keep: tuple[Keep, ...],
    how: How,
    beside: Any,
    progress: Callable[[int, int], None] | None,
) -> pd.DataFrame:
    """Some of the pairs: of one kernel by a sweep in float32, of others from all of their statistics."""
    labels, report = responses(fits), progress or (lambda done, total: None)
    if beside is not None:
        raise ValueError("keep= is of markers without interaction=: keep rows of the whole table")
    fast = all(isinstance(part.engine, SpectralEngine) for part in parts)
    table: Any = pd.DataFrame()
    report(0, len(found))
    for places, g in found.blocks(found.size(len(found))):
        if fast:
            block = hits(parts, found, places, g, keep, how)
        else:
            block = all_pairs(block_values(parts, found, g, None, how, len(labels))[0], places, how.test)
        more = table_of_hits([block], found, labels)
        table = pd.concat([table, more], ignore_index=True) if len(table) else more
        # of what blocks had before only what may stay
        table = table[chosen(table, keep, how.test, table["strength"].to_numpy())]
        report(int(places[-1]) + 1 if len(places) else 0, len(found))
    report(len(found), len(found))
    out = table.drop(columns=["place", "strength"]).reset_index(drop=True)
    out.attrs.update(loglik="REML" if fits.reml else "ML", ratio=how.ratio, test=how.test)
    return out


def all_pairs(values: Values, places: np.ndarray, test: str | None) -> dict[str, np.ndarray]:
    """The columns of all pairs of a block, as `hits` gives those of some."""
    k, total = values["t"].shape
    strength = values["lod"] * LOD if "lod" in values else values["t"] ** 2
    out = {name: values[name].ravel() for name in COLUMNS[test]}
    front = {"place": np.repeat(places, total), "at": np.tile(np.arange(total), k)}
    return {**front, **out, "strength": strength.ravel()}


def responses(fits: Fitted | FittedMany) -> pd.Index:
    """Labels (T,)."""
    if isinstance(fits, FittedMany):
        return fits.names
    return pd.Index([fits.response if fits.response is not None else fits.data.frame.response or "y"])


def block_values(
    parts: list[Part], markers: Markers, g: np.ndarray, beside: Any, how: How, total: int
) -> list[Values]:
    """The statistics (k, T) of a block of markers (N, k) for all responses, NaN for those without a fit."""
    out = _nothing(g.shape[1], total, beside, how)
    columns = None
    for part in parts:
        if isinstance(part.engine, GeneralScan):
            carriers = carrier_columns(len(markers.codes), beside)
            found = marker_values(part.engine, g, markers.codes, carriers, part.rows, how)
        else:
            columns = term_columns(markers.on_rows(g), beside) if columns is None else columns
            mine = columns if part.rows is None else tuple(c[part.rows] for c in columns)
            found = evaluate(part.engine, mine, how)
        _put(out, part.where, found)
    return out


def _nothing(count: int, total: int, beside: Any, how: How) -> list[Values]:
    """Missing statistics (k, T) of every term."""
    names = wanted(how.test, beside)
    return [
        {name: np.full((count, total), np.nan) for name in names} for _ in range(1 + (beside is not None))
    ]


def _put(out: list[Values], where: np.ndarray, found: list[Values]) -> None:
    """The statistics of some responses."""
    for whole, own in zip(out, found, strict=True):
        for name in whole:
            whole[name][:, where] = own[name]


def carrier_columns(n: int, beside: Any) -> np.ndarray:
    """What the columns of a marker multiply it by (n, s): 1, and a covariate."""
    one = np.ones((n, 1))
    return one if beside is None else np.column_stack([one, beside[1]])


def scan_own(
    fits: Fitted | FittedMany, own: Any, how: How, interaction: Any, ddf: str | None
) -> pd.DataFrame:
    """A covariate of its own for every response."""
    found = own_covariates(fits, own)
    beside = None if interaction is None else covariate(fits, interaction)
    labels, parts = responses(fits), [Part(*one) for one in general_scans(fits, ddf)]
    tables = []
    for name, values in found.items():
        out = _nothing(1, len(labels), beside, how)
        carriers = carrier_columns(len(values), beside)
        for part in parts:
            assert isinstance(part.engine, GeneralScan)
            _put(out, part.where, own_values(part.engine, values[:, part.where], carriers, part.rows, how))
        tables.append(table_of(pd.Index([name]), labels, out, beside, how.test))
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return frame(joined, loglik="REML" if fits.reml else "ML", ratio=how.ratio, test=how.test)


def term_columns(g: np.ndarray, beside: Any) -> tuple[np.ndarray, ...]:
    """The columns of candidates g (n, k): themselves, and times a covariate."""
    return (g,) if beside is None else (g, g * beside[1][:, None])


def wanted(test: str | None, beside: Any) -> tuple[str, ...]:
    """Names of the columns of statistics."""
    return COLUMNS[test] if beside is None else (*COLUMNS[test], "p_joint")


def rows(
    markers: Markers, places: np.ndarray, labels: pd.Index, values: list[Values], beside: Any, test: Any
) -> dict[str, np.ndarray]:
    """Columns of the table of the markers at some places."""
    return table_of(markers.names[places], labels, values, beside, test)


def table_of(
    names: pd.Index, labels: pd.Index, values: list[Values], beside: Any, test: Any
) -> dict[str, np.ndarray]:
    """Columns of the table, a row a marker, response and term."""
    k, total, s = len(names), len(labels), len(values)
    out: dict[str, np.ndarray] = {
        "marker": np.repeat(np.asarray(names), total * s),
        "response": np.tile(np.repeat(np.asarray(labels), s), k),
    }
    if beside is not None:
        out["term"] = np.tile(np.array(["marker", f"marker:{beside[0]}"], dtype=object), k * total)
    for name in wanted(test, beside):
        out[name] = np.stack([own[name] for own in values], axis=-1).ravel()
    return out


def covariate(fits: Fitted | FittedMany, given: Any) -> tuple[str, np.ndarray]:
    """Name and values (n,) of what markers interact with: a fixed effect by name, or values of rows."""
    data = fits.data
    if isinstance(given, str):
        if given not in data.x_names:
            raise ValueError(
                f"interaction={given!r} is no fixed effect: {nearest(given, data.x_names)}; or pass "
                "its values"
            )
        return given, np.asarray(data.frame.x)[:, data.x_names.index(given)]
    values = response_vector(data, given, "interaction")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"interaction is missing in row {int(np.argmin(np.isfinite(values)))} of the model")
    own = getattr(given, "name", None)
    return "covariate" if own is None else str(own), np.asarray(values, float)
