"""The commands `lmmjax shards`: a batch or a scan in numbered shards, for arrays of schedulers and workflows.

`plan` and `plan-scan` write what is to be done beside OUT, `run` makes one part, in any order and as often as
one likes, `join` puts the parts together. Each can be called wherever the files are.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from lmmjax.cli.batch_options import (
    BatchFormula,
    Chunk,
    Design,
    Icc,
    Index,
    Moderate,
    Out,
    ResponseOffset,
    Responses,
    ResponseWeights,
    Rows,
    Tests,
    out_parquet,
    read_design,
)
from lmmjax.cli.common import (
    AllowPython,
    Contrasts,
    Ddf,
    Force,
    MaximumLikelihood,
    Weights,
    check_words,
    one_line_errors,
    seconds,
    waiting,
    write_table,
)
from lmmjax.cli.levels import Kernels, References, absolute_kernels, model_of
from lmmjax.cli.plan_scan import left_to_choose, plan_scan, planned_scan, said
from lmmjax.scan.sink import SHOWN, files_of, reasons_of
from lmmjax.stream.chunks import chunk_of
from lmmjax.stream.jobs import make_part
from lmmjax.stream.lock import locked
from lmmjax.stream.moderated import moderate_results
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.parts import count_ends, remarks_of
from lmmjax.stream.shards import Planned, end, given, parts_of, planned, put_plan, spelled, states
from lmmjax.stream.work import Work, work_of

EXAMPLES = """Examples

lmmjax shards plan '~ Sex + age + (1 | donor)' samples.csv genes.parquet -o genes.out.parquet --chunk 2000

lmmjax shards plan-scan 'y ~ sex + (1 | id)' mice.csv mice.bed -o hits.parquet --kernel id=K.npz

lmmjax shards run genes.out.parquet --shard 3

lmmjax shards status genes.out.parquet

lmmjax shards join genes.out.parquet"""

READ = ("design", "responses", "response_weights", "response_offset")
"""Arguments that are files which shards read."""

INDICES = {"SLURM_ARRAY_TASK_ID": 0, "AWS_BATCH_JOB_ARRAY_INDEX": 0, "LSB_JOBINDEX": 1}
"""Variables in which schedulers say which task of an array this is, and the number of the first task."""

shards = typer.Typer(
    no_args_is_help=True,
    help="A batch or a scan in numbered shards: for arrays of SLURM, AWS Batch and LSF, for Snakemake and "
    "Nextflow.",
)

PlannedOut = Annotated[Path, typer.Argument(metavar="OUT", help="The file that was named to the plan.")]


@shards.command(epilog=EXAMPLES)
def plan(
    formula: BatchFormula,
    design: Design,
    responses: Responses,
    out: Out,
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    ref: References = None,
    kernel: Kernels = None,
    response_weights: ResponseWeights = None,
    response_offset: ResponseOffset = None,
    ddf: Ddf = "satterthwaite",
    contrast: Contrasts = None,
    test: Tests = None,
    moderate: Moderate = False,
    icc: Icc = False,
    index: Index = None,
    rows: Rows = False,
    chunk: Chunk = None,
    force: Force = False,
    allow_python: AllowPython = False,
) -> None:
    """Check everything, cut the responses into shards, and write the plan to OUT.parts.

    The same plan again changes nothing.
    """
    with one_line_errors():
        check_words(formula, ddf)
        inputs = [design, responses, response_weights, response_offset]
        parquet = out_parquet(out, inputs, False, force)
        asked = given(
            READ,
            formula=formula,
            design=design,
            responses=responses,
            out=out,
            ml=ml,
            weights=weights,
            ref=ref,
            kernel=absolute_kernels(kernel),
            response_weights=response_weights,
            response_offset=response_offset,
            ddf=ddf,
            contrast=contrast,
            test=test,
            moderate=moderate,
            icc=icc,
            index=index,
            rows=rows,
        )
        with waiting("reading the design"):
            work = _batch(asked, allow_python)
        parts, size = parts_of(parquet), chunk or chunk_of(work)
        found = put_plan(parquet, parts, asked, work.manifest, size, chunk is not None)
    typer.echo(said(found, out))


shards.command("plan-scan", epilog=EXAMPLES)(plan_scan)


@shards.command(epilog=EXAMPLES)
def run(
    out: PlannedOut,
    shard: Annotated[
        int | None,
        typer.Option(
            help="Number of the shard, from 0. By default the index of the task in an array of SLURM or AWS "
            "Batch, or of LSF, whose first task, 1, makes shard 0.",
            min=0,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make the part again if it is there.")] = False,
    allow_python: AllowPython = False,
) -> None:
    """Make one shard's part; one that is there is left as it is, one that is damaged is made again."""
    begin = time.perf_counter()
    with one_line_errors(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        found, k = _planned(out), _number(shard)
        if found is not None and k >= found.count:
            raise ValueError(f"there is no shard {k}: {out} has {found.count}, 0 to {found.count - 1}")
        if found is None or found.joined:
            typer.echo(f"shard {k}: {out} is joined already")
            return
        if not force:
            found.require_files()
        scan = found.asked.get("command") == "scan"
        work = planned_scan(found, allow_python) if scan else _batch(found.asked, allow_python)
        work = found.of(work)
        made = make_part(work, found.parts, k, force)
    what, verb = f"shard {k} of {found.count}, {work.describe(k)}", "scanned" if scan else "fitted"
    typer.echo(f"{what}: {verb} in {seconds(time.perf_counter() - begin)}" if made else f"{what}: was there")


@shards.command(epilog=EXAMPLES)
def status(
    out: PlannedOut,
    todo: Annotated[
        bool,
        typer.Option("--todo", help="Print nothing but the shards to run, as an array takes them: 0-3,7."),
    ] = False,
    lines: Annotated[bool, typer.Option("--lines", help="With --todo: a number a line.")] = False,
) -> None:
    """Say which shards are done, missing or damaged."""
    with one_line_errors():
        found = _planned(out)
        if found is None or found.joined:
            typer.echo("" if todo else f"joined: {out}")
            return
        known = states(found)
    left = sorted([*known["missing"], *known["damaged"]])
    if todo:
        typer.echo("\n".join(map(str, left)) if lines else spelled(left))
        return
    typer.echo(f"{len(known['done']):,} of {found.count:,} shards are done")
    for state in ("missing", "damaged"):
        if known[state]:
            typer.echo(f"{state}: {spelled(known[state])}")
    last = "lmmjax shards run" if left else "lmmjax shards join"
    typer.echo(f"next: {last} {out}" + (" --shard K" if left else ""))


@shards.command(epilog=EXAMPLES)
def join(out: PlannedOut) -> None:
    """Put the parts together to OUT, in the order of the responses or markers; the parts go.

    Nothing is joined while a shard is missing or damaged. If OUT is a
    folder, its parts are the results, and stay.
    """
    with one_line_errors():
        found = _planned(out)
        if found is None:
            typer.echo(f"joined: {out}")
            return
        with waiting("joining"):
            end(found, left_to_choose(found))
            how = _scanned(found) if found.unit == "markers" else _fitted(found)
            if found.path != out and found.path.exists():
                write_table(out, pd.read_parquet(found.path))
                found.path.unlink()
    typer.echo(f"{found.total:,} {found.unit}: {how}. Results: {out}")


def _fitted(found: Planned) -> str:
    """What became of responses, whose tests are moderated if they were planned so."""
    with locked(found.path):
        moderate_results(found.path)
    failed, singular = count_ends(found.path)
    return f"{singular:,} on the boundary, {failed:,} could not be fitted"


def _scanned(found: Planned) -> str:
    """What became of markers."""
    files = files_of(found.path)
    rows = sum(pyarrow("parquet").read_metadata(file).num_rows for file in files)
    without = reasons_of(remarks_of(files))
    some = (
        f" ({', '.join(f'{name}: {why}' for name, why in without.iloc[:SHOWN].items())})"
        if len(without)
        else ""
    )
    return f"{rows:,} rows, {len(without):,} markers without results{some}"


def _planned(out: Path) -> Planned | None:
    """The plan of OUT; None if OUT is text, and was written already."""
    if out.is_dir():
        return planned(out)
    path = out_parquet(out, [], True, True)
    if path != out and out.exists() and not path.exists() and not parts_of(path).exists():
        return None
    return planned(path)


def _number(shard: int | None) -> int:
    """Which shard is wanted: the option, or what a scheduler says."""
    if shard is not None:
        return shard
    for name, first in INDICES.items():
        text = os.environ.get(name, "")
        # LSF sets it to 0 outside of an array
        if text.isdecimal() and int(text) >= first:
            return int(text) - first
    raise ValueError(f"which shard? give --shard K, or run in an array ({', '.join(INDICES)} is not set)")


def _batch(asked: dict[str, Any], allow_python: bool) -> Work:
    """The work that the arguments of `plan` describe."""
    rows = asked["rows"]
    table, index = read_design(Path(asked["design"]), asked["responses"], asked["index"], rows)
    model = model_of(asked["formula"], table, asked["weights"], asked["ref"], asked["kernel"], allow_python)
    return work_of(
        model.data,
        asked["responses"],
        reml=not asked["ml"],
        weights=asked["response_weights"],
        offset=asked["response_offset"],
        contrasts=asked["contrast"],
        tests=asked["test"],
        ddf=asked["ddf"],
        moderate=asked["moderate"],
        icc=asked["icc"],
        index=index,
        rows=rows,
    )
