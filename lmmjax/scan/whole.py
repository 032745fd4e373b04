"""A scan from its arguments to its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.memory import require_memory
from lmmjax.arrays.other_arguments import answered
from lmmjax.batch.device import placed
from lmmjax.fitted import Fitted, FittedMany, require_choice
from lmmjax.inference.scan.general import DDF
from lmmjax.scan.beside import Beside, covariates
from lmmjax.scan.engines import require_ddf
from lmmjax.scan.evaluate import How
from lmmjax.scan.general import require_refits
from lmmjax.scan.keep import keeps
from lmmjax.scan.loco import nulls_of
from lmmjax.scan.markers import markers_of
from lmmjax.scan.own import Own, own_covariates, own_pairs, own_work
from lmmjax.scan.pairs import Pairs, joined, labelled
from lmmjax.scan.sink import Scanned, own_to, reasons_of, scan_to, warn_of_markers
from lmmjax.scan.tables import TESTS, frame
from lmmjax.scan.task import Task, wanted
from lmmjax.scan.work import scan_work
from lmmjax.stream.carry import Conduct

RATIOS = ("null", "refit")


@answered
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
    how = _how(fits, ratio, test)
    if (markers is None) == (own is None):
        raise ValueError("pass markers, or own= with a covariate for each response: one of the two")
    if sink is None and (resume or chunk is not None or executor is not None):
        raise ValueError("resume, chunk and executor are for results that are written: pass sink=, a file")
    conduct = Conduct(resume, chunk, executor, progress)
    if own is not None:
        options = {
            "keep": keep,
            "loco": loco,
            "chromosome": chromosome,
            "ids": ids,
            "names": names,
            "group": group,
        }
        options |= {"maf": maf or None, "max_missing": None if max_missing == 1.0 else max_missing}
        if meant := [name for name, value in options.items() if value is not None]:
            raise ValueError(f"{', '.join(meant)}: for markers; own= has a row a response and covariate")
        if ddf not in (None, "satt"):
            require_choice("ddf", ddf, DDF)
        found, beside = own_covariates(fits, own), covariates(fits.data, interaction)
        assert isinstance(fits, FittedMany)
        if sink is None:
            return scan_own(fits, found, how, beside, ddf)
        return own_to(own_work(fits, found, how, beside, ddf), sink, conduct)
    options = {"ids": ids, "names": names, "group": group, "maf": maf, "max_missing": max_missing}
    asked = {"ratio": ratio, "test": test, "interaction": interaction, "ddf": ddf, "keep": keep}
    task = task_of(fits, markers, loco=loco, chromosome=chromosome, **asked, **options)
    return (
        scan_in_memory(task, progress) if sink is None else scan_to(scan_work(task), sink, markers, conduct)
    )


def task_of(
    fits: Fitted | FittedMany,
    markers: Any,
    *,
    ratio: str = "null",
    test: str | None = None,
    group: str | None = None,
    interaction: Any = None,
    ddf: str | None = None,
    loco: Any = None,
    chromosome: Any = None,
    keep: Any = None,
    **matching: Any,
) -> Task:
    """What a scan is asked for, checked; arguments as of `Fit.scan`."""
    how = _how(fits, ratio, test)
    beside = covariates(fits.data, interaction)
    found = markers_of(fits.data, markers, group=group, **matching)
    require_ddf(fits, ddf)
    nulls = nulls_of(fits, ddf, found, markers, loco, chromosome, group)
    return Task(nulls, found, how, beside, None if keep is None else keeps(keep))


def _how(fits: Fitted | FittedMany, ratio: str, test: str | None) -> How:
    require_choice("ratio", ratio, RATIOS)
    require_choice("test", test, (None, *TESTS))
    if ratio == "refit":
        require_refits(fits)
    return How(ratio, test)


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
    void: list[Any] = []
    report = progress or (lambda done, total: None)
    report(0, len(found))
    size = task.size(task.nulls.first)
    # markers that lie on a device stay there
    read = found.read_there if found.source.there is not None and placed() is not None else found.read
    for first in range(0, len(found), size):
        stop = min(first + size, len(found))
        places, g = read(first, stop)
        pairs = task.block(places, g)
        if task.keep is None:
            none = np.isnan(pairs.terms[0]["t"]).reshape(-1, len(labels)).all(axis=1)
            void += zip(found.names[places[none]], found.reasons(places[none], g[:, none]), strict=True)
            kept.append(pairs)
        else:
            # of what blocks had before only what may stay
            kept = [task.kept(joined([*kept, pairs]))] if kept else [pairs]
        if stop < len(found):
            report(stop, len(found))
    report(len(found), len(found))
    if task.nulls.any_fit:
        warn_of_markers(reasons_of(void), len(found))
    return frame(task.table(joined(kept).ordered()) if kept else {}, **task.facts)


def scan_own(fits: FittedMany, own: Own, how: How, beside: Beside, ddf: str | None) -> pd.DataFrame:
    """A covariate of its own for every response."""
    total = len(fits.names)
    pairs = [own_pairs(fits, own.read(j, 0, total), j, 0, how, beside, ddf) for j in range(len(own.names))]
    rows = joined(pairs).rows(wanted(how, beside))
    table = labelled(rows, pd.Index(list(own.names)), fits.names, beside.terms)
    return frame(table, loglik="REML" if fits.reml else "ML", ratio=how.ratio, test=how.test)
