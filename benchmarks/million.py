"""A million responses of W1's design through `lmmjax batch`, from Parquet to Parquet.

    python -m benchmarks.million FOLDER [--responses 1000000] [--float32] [--keep] [--json FILE]

Writes the responses to FOLDER (800 values each: 6.4 GB in float64, 3.2 GB in float32), drops the file from
the page cache, runs the command in a process of its own, watches its memory, and judges its results.
What bounds it is told by the parts measured alone: bytes from the disk, responses decoded from Parquet,
responses fitted in memory, and fitted with the columns of the result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

import lmmjax as lj
from benchmarks.judge import Judge, tolerance
from benchmarks.machine import describe
from benchmarks.processes import pin
from benchmarks.simulate import UNBALANCED, grouped_design, grouped_responses
from benchmarks.table import save
from benchmarks.workloads.w1 import W1
from lmmjax.sources import open_source
from lmmjax.stream import chunk_size, result_columns

BLOCK = 20_000
"""Responses a row group, each from a seed of its own; the first are those of W1."""

FORMULA = W1.model.formula


def block(design: pd.DataFrame, k: int) -> np.ndarray:
    """Responses (T, n) of row group k."""
    return grouped_responses(102 + 1_000 * k, design, BLOCK, slopes=False)


def write(path: Path, design: pd.DataFrame, count: int, kind: str) -> float:
    """Write `count` responses, a row each; seconds."""
    begin = time.perf_counter()
    names = [f"row{k}" for k in range(len(design))]
    schema = pa.schema([(name, kind) for name in names])
    # random digits do not compress
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for k in range(-(-count // BLOCK)):
            y = block(design, k)[: count - k * BLOCK].astype(kind)
            writer.write_table(pa.table([pa.array(column) for column in np.ascontiguousarray(y.T)], schema))
    return time.perf_counter() - begin


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(count: int, call: Callable[[], Any], repeats: int = 1) -> dict[str, float]:
    """Responses a second, and responses a second of processor time, each of its best call."""
    wall, processor = [], []
    for _ in range(repeats):
        begin, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - used)
    return {"per_second": count / min(wall), "per_processor_second": count / min(processor)}


def raw(path: Path, most: int = 4 << 30) -> float:
    """Bytes a second from the disk, of at most `most`."""
    forget(path)
    begin, done = time.perf_counter(), 0
    with path.open("rb", buffering=0) as file:
        while done < most and (part := file.read(16 << 20)):
            done += len(part)
    return done / (time.perf_counter() - begin)


def decoded(path: Path, count: int, size: int) -> dict[str, float]:
    """`rate` of the reader alone, the file in the page cache."""
    source = open_source(path, rows=True)

    def read() -> None:
        for start in range(0, count, size):
            source.read(start, min(start + size, count))

    return rate(count, read, 3)


def fitted(model: lj.Model, y: np.ndarray) -> dict[str, dict[str, float]]:
    """`rate` of `fit_batch` in memory, and with the columns of the result."""

    def fit() -> lj.BatchFit:
        fits = model.fit_batch(y)
        _ = fits.deviance
        return fits

    def results() -> None:
        result_columns(fit(), pd.RangeIndex(y.shape[1]))

    results()
    return {"fits": rate(y.shape[1], fit, 5), "with results": rate(y.shape[1], results, 5)}


def command(folder: Path, responses: Path, out: Path) -> dict[str, Any]:
    """Wall and processor time, peak memory and last line of `lmmjax batch`."""
    arguments = ["batch", FORMULA, str(folder / "design.csv"), str(responses), "-o", str(out), "--rows"]
    program = "import sys; from lmmjax.cli import app; app()"
    begin, before = time.perf_counter(), sum(os.times()[2:4])
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE) as child:
        peak = 0
        while child.poll() is None:
            peak = max(peak, _peak(child.pid))
            time.sleep(0.1)
        said = child.stdout.read().decode().strip() if child.stdout else ""
    seconds = time.perf_counter() - begin
    if child.returncode:
        raise SystemExit(said)
    used = sum(os.times()[2:4]) - before
    return {
        "seconds": seconds,
        "processor_seconds": used,
        "peak_mib": peak / 1024,
        "said": said.splitlines()[-1],
    }


def _peak(pid: int) -> int:
    """VmHWM of a process in KiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def judged(out: Path, design: pd.DataFrame, count: int, kind: str) -> float:
    """Largest distance from the optimum among ten responses, in tolerances."""
    table = pyarrow.parquet.read_table(out).to_pandas()
    judge, gaps = Judge.of(W1.model, design), []
    for k in np.unique(np.linspace(0, count - 1, 10).astype(int)):
        row, response = table.iloc[k], judge.response(block(design, k // BLOCK)[k % BLOCK].astype(kind))
        sd, sigma = row["sd_(Intercept)|g"], row["sigma"]
        found = response.at_estimate([sd**2], sigma**2)
        best = min(response.best([np.array([0.5]), np.array([0.05])]), found)
        gaps.append(max(found - best, abs(row["deviance"] - found)) / float(tolerance(np.asarray(best))))
    return max(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--responses", type=int, default=1_000_000)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--keep", action="store_true", help="do not delete the files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cores, kind = pin(2, 1), "float32" if options.float32 else "float64"
    folder, count = options.folder, options.responses
    folder.mkdir(parents=True, exist_ok=True)
    responses, out = folder / "responses.parquet", folder / "results.parquet"
    design = grouped_design(101, UNBALANCED, balanced_time=False)
    design.to_csv(folder / "design.csv", index=False, float_format="%.17g")
    model = lj.lmm(FORMULA, design)
    got: dict[str, Any] = {"machine": describe(cores, 1), "responses": count, "kind": kind}
    try:
        got["write_seconds"] = write(responses, design, count, kind)
        got["bytes"] = responses.stat().st_size
        got["load"] = os.getloadavg()[0]
        got["disk_bytes_per_second"] = raw(responses)
        got["disk_responses_per_second"] = got["disk_bytes_per_second"] * count / got["bytes"]
        got["chunk"] = min(chunk_size(model), count)
        sample = min(count, 5 * BLOCK)
        got["decoded"] = decoded(responses, sample, min(got["chunk"], sample))
        got["in memory"] = fitted(model, block(design, 0).T)
        forget(responses)
        got["command"] = command(folder, responses, out)
        got["per_second"] = count / got["command"]["seconds"]
        got["result_bytes"] = out.stat().st_size
        got["gap_in_tolerances"] = judged(out, design, count, kind)
    finally:
        if not options.keep:
            for path in (responses, out):
                path.unlink(missing_ok=True)
    for name, value in got.items():
        print(f"{name}: {value}")
    if options.json:
        save(options.json, got)


if __name__ == "__main__":
    main()
