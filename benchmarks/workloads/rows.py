"""One model of more rows than memory should hold: from Parquet and by simulated chunks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

FORMULA = "y ~ x + t + (1 | g)"
CHUNK = 1_000_000


def piece(k: int, size: int, groups: int) -> Any:
    """Chunk k, of groups of its own: the rows are sorted by group."""
    import pandas as pd

    rng = np.random.default_rng(k)
    g = np.sort(rng.integers(0, groups, size)) + k * groups
    x, t = rng.normal(size=size), rng.uniform(0, 10, size)
    b = np.random.default_rng(10_000 + k).normal(size=groups)
    return pd.DataFrame(
        {"g": g, "x": x, "t": t, "y": 1 + 0.2 * x - 0.1 * t + b[g - k * groups] + rng.normal(size=size)}
    )


def measure(rows: int, groups: int, parquet: bool) -> Record:
    """Seconds to condense and to fit; the gap of the criterion of the first chunk beside that in memory."""
    import lmmjax as lj

    pieces, size = max(1, rows // CHUNK), min(rows, CHUNK)

    def chunks() -> Iterator[Any]:
        return (piece(k, size, groups // pieces) for k in range(pieces))

    with tempfile.TemporaryDirectory() as folder:
        source: Any = chunks
        if parquet:
            source = Path(folder)
            for k, frame in enumerate(chunks()):
                frame.to_parquet(source / f"{k:04d}.parquet")
        begin = time.perf_counter()
        model = lj.lmm(FORMULA, source)
        read = time.perf_counter()
        fit = model.fit()
        end = time.perf_counter()
        first = source / "0000.parquet" if parquet else lambda: iter([piece(0, size, groups // pieces)])
        part = lj.lmm(FORMULA, first).fit().deviance
        # in memory last: the peak is of all of it, and one chunk is small beside the rest
        gap = abs(part - lj.lmm(FORMULA, piece(0, size, groups // pieces)).fit().deviance)
    return {
        "rows": rows,
        "groups": groups,
        "parquet": parquet,
        "condense": read - begin,
        "fit": end - read,
        "condensed": model.data.design.n,
        "gap": gap,
        "converged": bool(fit.converged),
    }


def run(options: Options) -> Iterator[Record]:
    scale = 100 if options.small else 1
    for rows, groups, parquet in ((10_000_000, 500_000, True), (100_000_000, 1_000_000, False)):
        options.say(f"rows: {rows // scale:,}")
        yield isolated(
            measure, timeout=options.timeout, rows=rows // scale, groups=groups // scale, parquet=parquet
        )


def table(records: list[Record]) -> str:
    """A row a number of rows."""
    columns = ("rows:", "groups:", "from", "condensed to:", "condense:", "fit:", "gap:", "peak MiB:")

    def cells(got: Record) -> list[str]:
        where = "Parquet" if got["parquet"] else "simulated chunks"
        times = [duration(got["condense"]), duration(got["fit"])]
        sizes = [count(got["rows"]), count(got["groups"]), where, count(got["condensed"])]
        return [*sizes, *times, f"{got['gap']:.0e}", count(got["peak_mib"])]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="rows",
        title="One model of rows that are read by the chunk; gap of the criterion on one chunk",
        goal="10 million rows under 2 GB; a criterion equal to that in memory",
        run=run,
        table=table,
    )
)
