"""A million responses of W1's design through `lmmjax batch`, from Parquet to Parquet.

Writes the responses to a folder (800 values each: 6.4 GB in float64, 3.2 GB in float32), drops the file from
the page cache, runs the command in a process of its own, watches its memory, and judges its results.
What bounds it is told by the parts measured alone: bytes from the disk, responses decoded from Parquet,
responses fitted in memory, and fitted with the columns of the result. Needs the `parquet` extra.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.harness.isolated import isolated
from benchmarks.harness.judge import Judge
from benchmarks.harness.simulate import UNBALANCED, grouped_design, grouped_responses
from benchmarks.harness.spec import spread
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.timing import Timed, timed
from benchmarks.harness.workload import Options, Record, Workload, register
from benchmarks.peers.exchange import peak_mib
from benchmarks.workloads.w1 import DESIGN_SEED, MODEL, SEED

if TYPE_CHECKING:
    import lmmjax as lj

BLOCK = 20_000
"""Responses a row group, each from a seed of its own; the first are those of W1."""


def block(design: pd.DataFrame, k: int, responses: int) -> np.ndarray:
    """Those of all responses (T, n) that are in row group k."""
    return grouped_responses(SEED + 1_000 * k, design, min(BLOCK, responses - k * BLOCK), slopes=False)


def write(path: Path, design: pd.DataFrame, responses: int, kind: str) -> float:
    """Write responses, a row each; seconds."""
    import pyarrow as pa
    import pyarrow.parquet

    begin = time.perf_counter()
    names = [f"row{k}" for k in range(len(design))]
    schema = pa.schema([(name, kind) for name in names])
    # random digits do not compress
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for k in range(-(-responses // BLOCK)):
            y = block(design, k, responses).astype(kind)
            writer.write_table(pa.table([pa.array(column) for column in np.ascontiguousarray(y.T)], schema))
    return time.perf_counter() - begin


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(responses: int, found: Timed) -> Record:
    """Responses a second, and responses a second of processor time, each of its best call."""
    return {
        "per_second": responses / found.best,
        "per_processor_second": responses / min(found.processor),
    }


def raw(path: Path, most: int = 4 << 30) -> float:
    """Bytes a second from the disk, of at most `most`."""
    forget(path)
    begin, done = time.perf_counter(), 0
    with path.open("rb", buffering=0) as file:
        while done < most and (part := file.read(16 << 20)):
            done += len(part)
    return done / (time.perf_counter() - begin)


def decoded(path: Path, responses: int, size: int) -> Record:
    """`rate` of the reader alone, the file in the page cache."""
    from lmmjax.stream import open_source

    source = open_source(path, rows=True)

    def read() -> None:
        for start in range(0, responses, size):
            source.read(start, min(start + size, responses))

    return rate(responses, timed(read, 3))


def fitted(model: lj.Model, y: np.ndarray) -> dict[str, Record]:
    """`rate` of `fit_batch` in memory, and with the columns of the result."""
    from lmmjax.stream.columns import result_columns

    def fit() -> lj.BatchFit:
        fits = model.fit_batch(y)
        _ = fits.deviance
        return fits

    def results() -> None:
        result_columns(fit().fitted, pd.RangeIndex(y.shape[1]))

    return {name: rate(y.shape[1], timed(f, 5)) for name, f in (("fits", fit), ("with results", results))}


def command(folder: Path, responses: Path, out: Path) -> Record:
    """Wall and processor time, peak memory and last line of `lmmjax batch`."""
    files = [str(folder / "design.csv"), str(responses), "-o", str(out), "--rows"]
    program = "import sys; from lmmjax.cli import app; app()"
    begin, before = time.perf_counter(), sum(os.times()[2:4])
    arguments = [sys.executable, "-c", program, "batch", MODEL.formula, *files]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, peak_mib(child.pid))
            time.sleep(0.1)
        said = child.stdout.read().decode().strip() if child.stdout else ""
    seconds = time.perf_counter() - begin
    if child.returncode:
        raise SystemExit(said)
    used = sum(os.times()[2:4]) - before
    return {
        "seconds": seconds,
        "processor_seconds": used,
        "peak_mib": peak,
        "said": said.splitlines()[-1],
    }


def judged(out: Path, design: pd.DataFrame, responses: int, kind: str) -> float:
    """Largest distance from the optimum among ten responses, in tolerances."""
    table, judge, gaps = pd.read_parquet(out), Judge.of(MODEL, design), []
    for k in spread(responses, 10):
        row, y = table.iloc[k], block(design, k // BLOCK, responses)[k % BLOCK].astype(kind)
        cov = np.array([row["sd_(Intercept)|g"] ** 2])
        gaps.append(judge.response(y).gap(cov, row["sigma"] ** 2, row["deviance"]))
    return max(gaps)


def measure(folder: str, responses: int, kind: str) -> Record:
    """Everything, with files in `folder`."""
    import lmmjax as lj
    from lmmjax.stream.chunks import chunk_size

    place = Path(folder)
    source, out = place / "responses.parquet", place / "results.parquet"
    design = grouped_design(DESIGN_SEED, UNBALANCED, balanced_time=False)
    design.to_csv(place / "design.csv", index=False, float_format="%.17g")
    model = lj.lmm(MODEL.formula, design)
    got: Record = {"write_seconds": write(source, design, responses, kind), "bytes": source.stat().st_size}
    got["load"] = os.getloadavg()[0]
    got["disk_bytes_per_second"] = raw(source)
    got["disk_responses_per_second"] = got["disk_bytes_per_second"] * responses / got["bytes"]
    got["chunk"] = min(chunk_size(model.data), responses)
    sample = min(responses, 5 * BLOCK)
    got["decoded"] = decoded(source, sample, min(got["chunk"], sample))
    got["in memory"] = fitted(model, block(design, 0, responses).T)
    forget(source)
    got["command"] = command(place, source, out)
    got["per_second"] = responses / got["command"]["seconds"]
    got["result_bytes"] = out.stat().st_size
    got["gap_in_tolerances"] = judged(out, design, responses, kind)
    return got


def run(options: Options) -> Iterator[Record]:
    given, keep = options.extra["folder"], options.extra["keep"]
    facts = {
        "responses": options.size(1_000_000, 2_000),
        "kind": "float32" if options.extra["float32"] else "float64",
    }
    with tempfile.TemporaryDirectory(prefix="lmmjax-million-") as temporary:
        folder = given or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        options.say(f"million: {facts['responses']:,} responses, {facts['kind']}")
        try:
            yield facts | isolated(measure, timeout=options.timeout, folder=str(folder.resolve()), **facts)
        finally:
            for name in () if keep else ("responses.parquet", "results.parquet"):
                (folder / name).unlink(missing_ok=True)


def table(records: list[Record]) -> str:
    """The command, then its parts alone."""
    return "\n\n".join(map(_one, records))


def _one(got: Record) -> str:
    whole, gap = got["command"], got["gap_in_tolerances"]
    said = (
        f"{got['responses']:,} responses in {got['kind']}, {got['bytes'] / 1e9:.2f} GB: "
        f"{duration(whole['seconds'])}, peak {count(whole['peak_mib'])} MiB; "
        f"{'within tolerance' if gap <= 1 else 'OFF THE OPTIMUM'} where judged ({gap:.1g} tolerances)"
    )
    disk = f"the disk ({got['disk_bytes_per_second'] / 1e6:,.0f} MB a second)"
    parts = {
        disk: {"per_second": got["disk_responses_per_second"]},
        "the Parquet reader, file in memory": got["decoded"],
        "`fit_batch`, responses in memory": got["in memory"]["fits"],
        "the same with the columns of the result": got["in memory"]["with results"],
    }
    rows = [[k, count(v["per_second"]), count(v.get("per_processor_second"))] for k, v in parts.items()]
    columns = ["", "responses a second:", "a second of processor time:"]
    return f"{said}\n\n{markdown(columns, rows)}"


register(
    Workload(
        id="million",
        title="1,000,000 responses of W1 by `lmmjax batch`, Parquet to Parquet",
        goal="what disk, reader and engine can do alone; the judge's optimum",
        run=run,
        table=table,
        counted="responses",
        extras={
            "folder": {
                "type": Path,
                "metavar": "FOLDER",
                "help": "where its files go, 7 GB (a temporary folder)",
            },
            "float32": {"action": "store_true", "help": "responses in single precision"},
            "keep": {"action": "store_true", "help": "do not delete the files in the folder"},
        },
    )
)
