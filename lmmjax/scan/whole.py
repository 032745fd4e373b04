"""A scan from its arguments to its table."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.memory import require_memory
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import Fitted, FittedMany, require_choice
from lmmjax.inference.scan.general import GeneralScan
from lmmjax.scan.beside import Beside, covariates
from lmmjax.scan.engines import Part
from lmmjax.scan.evaluate import How
from lmmjax.scan.general import general_scans, own_covariates, own_values, require_refits
from lmmjax.scan.keep import keeps
from lmmjax.scan.loco import nulls_of
from lmmjax.scan.markers import Markers, markers_of
from lmmjax.scan.nulls import responses
from lmmjax.scan.pairs import Pairs, joined, labelled
from lmmjax.scan.sink import Scanned, scan_to
from lmmjax.scan.tables import TESTS, frame
from lmmjax.scan.task import Task, wanted

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
    loco: Any = None,
    chromosome: Any = None,
    keep: Any = None,
    sink: str | Path | None = None,
    resume: bool = False,
    chunk: int | None = None,
    executor: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame | Scanned:
    """Every marker against every response; see `Fit.scan`."""
    require_choice("ratio", ratio, RATIOS)
    require_choice("test", test, (None, *TESTS))
    how = How(ratio, test)
    if ratio == "refit":
        require_refits(fits)
    if (markers is None) == (own is None):
        raise ValueError("pass markers, or own= with a covariate for each response: one of the two")
    if sink is None and (resume or chunk is not None or executor is not None):
        raise ValueError("resume, chunk and executor are for results that are written: pass sink=, a file")
    beside = covariates(fits.data, interaction)
    if own is not None:
        if any(given is not None for given in (keep, sink, loco)):
            raise ValueError("keep, sink and loco are for markers: own= has a row a response and covariate")
        return scan_own(fits, own, how, beside, ddf)
    found = markers_of(
        fits.data, markers, ids=ids, names=names, group=group, maf=maf, max_missing=max_missing
    )
    nulls = nulls_of(fits, ddf, found, markers, loco, chromosome, group)
    task = Task(nulls, found, how, beside, None if keep is None else keeps(keep))
    if sink is not None:
        options = {"resume": resume, "chunk": chunk, "executor": executor, "progress": progress}
        return scan_to(task, sink, markers, **options)
    return scan_in_memory(task, progress)


def scan_in_memory(task: Task, progress: Callable[[int, int], None] | None) -> pd.DataFrame:
    """The table of a scan."""
    found, labels = task.markers, task.labels
    if task.keep is None:
        require_memory(
            "the table of all markers and responses",
            len(found),
            len(labels) * task.beside.width,
            len(task.wanted),
            remedy="keep some of them, keep=, or write them to a file, sink=",
        )
    kept: list[Pairs] = []
    void = [np.empty(0, int)]
    report = progress or (lambda done, total: None)
    report(0, len(found))
    size = task.size(task.nulls.first)
    for first in range(0, len(found), size):
        stop = min(first + size, len(found))
        places, g = found.read(first, stop)
        pairs = task.block(places, g)
        if task.keep is None:
            void.append(places[np.isnan(pairs.terms[0]["t"]).reshape(-1, len(labels)).all(axis=1)])
            kept.append(pairs)
        else:
            # of what blocks had before only what may stay
            kept = [task.kept(joined([*kept, pairs]))]
        if stop < len(found):
            report(stop, len(found))
    report(len(found), len(found))
    if np.isfinite(task.nulls.fits.estimate.deviance).any():
        warn_of_markers(found, np.concatenate(void))
    return frame(task.table(joined(kept).ordered()) if kept else {}, **task.facts)


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


def scan_own(fits: Fitted | FittedMany, own: Any, how: How, beside: Beside, ddf: str | None) -> pd.DataFrame:
    """A covariate of its own for every response."""
    found = own_covariates(fits, own)
    labels, parts = responses(fits), [Part(*one) for one in general_scans(fits, ddf)]
    names, total, pairs = wanted(how, beside), len(labels), []
    for k, values in enumerate(found.values()):
        terms = [{name: np.full(total, np.nan) for name in names} for _ in range(beside.width)]
        for part in parts:
            assert isinstance(part.engine, GeneralScan)
            mine = own_values(part.engine, values[:, part.where], beside.carriers, part.rows, how)
            for whole, some in zip(terms, mine, strict=True):
                for name in whole:
                    whole[name][part.where] = some[name][0]
        pairs.append(Pairs(np.full(total, k), np.arange(total), np.zeros(total), terms))
    rows = joined(pairs).rows(names)
    table = labelled(rows, pd.Index(list(found)), labels, beside.terms)
    return frame(table, loglik="REML" if fits.reml else "ML", ratio=how.ratio, test=how.test)
