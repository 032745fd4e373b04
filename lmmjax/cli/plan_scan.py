"""The command `lmmjax shards plan-scan`, and the work of its plan: a scan in numbered shards of markers.

The fits without markers lie beside the parts, as a file of plain data: shards read them, and fit nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer

import lmmjax
from lmmjax.cli.batch_options import out_parquet
from lmmjax.cli.common import (
    AllowPython,
    Force,
    MaximumLikelihood,
    Weights,
    check_words,
    one_line_errors,
    waiting,
)
from lmmjax.cli.genotypes import MaxMissing, MinorFrequency, markers_source
from lmmjax.cli.levels import Kernels, References
from lmmjax.cli.scan_options import (
    Chromosomes,
    Data,
    Group,
    Interaction,
    KeepLod,
    KeepTop,
    Loco,
    Markers,
    MarkersAPart,
    PlannedScanOut,
    Ratio,
    ScanDdf,
    ScanFormula,
    ScanResponses,
    Test,
    fitted,
    scan_options,
)
from lmmjax.saving import save_record
from lmmjax.scan.sink import place_of, require_place
from lmmjax.scan.whole import task_of
from lmmjax.scan.work import ScanWork, chooser, is_ranked, scan_work, shard_size
from lmmjax.stream.files import reading, written_whole
from lmmjax.stream.parts import Reduce
from lmmjax.stream.shards import SHARDS, Planned, given, put_plan, states

FITS, KNOWN = "_fits.lmm", "_known.npz"
"""Beside the parts: the fits without markers, and what else is worked out once."""

OPTIONS = ("ratio", "test", "ddf", "group", "interaction", "maf", "max_missing", "top", "lod", "loco")
"""Options of a scan that shards need."""


def plan_scan(
    formula: ScanFormula,
    data: Data,
    markers: Markers,
    out: PlannedScanOut,
    responses: ScanResponses = None,
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    ref: References = None,
    kernel: Kernels = None,
    ratio: Ratio = "null",
    test: Test = None,
    ddf: ScanDdf = None,
    group: Group = None,
    interaction: Interaction = None,
    maf: MinorFrequency = 0.0,
    max_missing: MaxMissing = 1.0,
    top: KeepTop = None,
    lod: KeepLod = None,
    loco: Loco = None,
    chromosomes: Chromosomes = None,
    chunk: MarkersAPart = None,
    force: Force = False,
    allow_python: AllowPython = False,
) -> None:
    """Plan a scan, with the arguments of `lmmjax scan`: its shards are ranges of markers.

    The model is fitted without markers, once. The same plan again changes
    nothing.
    """
    with one_line_errors():
        check_words(formula, "satterthwaite")
        inputs = [data, markers, *([] if responses is None else [responses])]
        path, parts = place_of(out if not out.suffix else out_parquet(out, inputs, False, force), inputs)
        asked = given(
            ("markers", "chromosomes"),
            command="scan",
            formula=formula,
            data=data,
            markers=markers,
            out=out,
            responses=responses,
            ratio=ratio,
            test=test,
            ddf=ddf,
            group=group,
            interaction=interaction,
            maf=maf,
            max_missing=max_missing,
            top=top,
            lod=lod,
            loco=loco,
            chromosomes=chromosomes,
        )
        with waiting("reading and fitting"):
            fits = fitted(formula, data, responses, ml, weights, ref, kernel, allow_python)
            work = scan_of(fits, asked)
        require_place(work.ranked, path, parts)
        size = chunk or shard_size(work)
        found = put_plan(
            path,
            parts,
            asked,
            work.manifest,
            size,
            chunk is not None,
            lambda folder: _put_beside(folder, fits, work),
        )
    typer.echo(said(found, out))


def _put_beside(folder: Path, fits: Any, work: ScanWork) -> None:
    """What shards read, unless it is there."""
    if not (folder / FITS).exists():
        save_record(fits.fitted, folder / FITS, decompositions=True)
    if not (folder / KNOWN).exists():
        with waiting("kernels without chromosomes"), written_whole(folder / KNOWN) as file:
            known: dict[str, Any] = work.task.nulls.known()
            np.savez(file, **known)


def said(found: Planned, out: Path) -> str:
    """What a plan comes to, and what follows."""
    count, done = found.count, len(states(found)["done"])
    return (
        f"{found.total:,} {found.unit} in {count:,} {SHARDS[count != 1]}, 0 to {count - 1}"
        + (f", {done:,} of them done" if done else "")
        + f": lmmjax shards run {out} --shard K, then lmmjax shards join {out}"
    )


def scan_of(fits: Any, asked: dict[str, Any]) -> ScanWork:
    """The scan that the arguments of a plan describe, not yet cut."""
    options = scan_options(chromosomes=asked["chromosomes"], **{name: asked[name] for name in OPTIONS})
    return scan_work(task_of(fits.fitted, markers_source(Path(asked["markers"])), **options))


def planned_scan(found: Planned, allow_python: bool) -> ScanWork:
    """The scan of a plan; ValueError if its fits are not there."""
    again = "plan the same again, which makes it anew"
    for path in (found.parts / FITS, found.parts / KNOWN):
        if not path.exists():
            raise ValueError(f"{path} is not there: {again}")
    work = scan_of(lmmjax.load(found.parts / FITS, safe=not allow_python), found.asked)
    with reading(found.parts / KNOWN, f"delete it and {again}"):
        known = dict(np.load(found.parts / KNOWN, allow_pickle=False))
    work = work.knowing(known) if known else work
    return work.kept_in(found.parts)


def left_to_choose(found: Planned) -> Reduce | None:
    """What is left to choose when all parts of a plan are there."""
    if found.joined or found.asked.get("command") != "scan":
        return None
    asked = found.asked
    keep = scan_options(chromosomes=None, **{name: asked[name] for name in OPTIONS})["keep"] or ()
    if not is_ranked(keep):
        return None
    return chooser(tuple(keep), asked["test"], 1 + len(found.manifest["interaction"]))
