"""Many cores, simulated: how the memory, the threads and the results of a batch depend on their number.

Times are those of the cores that there are: with more threads than cores they only say what that costs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness.isolated import isolated
from benchmarks.harness.simulate import UNBALANCED, grouped_design, grouped_responses
from benchmarks.harness.text import count, duration, markdown, small_number
from benchmarks.harness.timing import timed
from benchmarks.harness.workload import Options, Record, Workload, register

FORMULA = "~ t + x1 + x2 + (1 | g)"
COUNTS = (1, 2, 8, 64)


def measure(cores: int, responses: int, repeats: int) -> Record:
    """W1 as on a machine with so many cores."""
    os.cpu_count = lambda: cores  # type: ignore[assignment]
    os.sched_getaffinity = lambda _: set(range(cores))  # type: ignore[assignment, misc]
    import lmmjax as lj

    design = grouped_design(101, UNBALANCED, balanced_time=False)
    y = np.ascontiguousarray(grouped_responses(102, design, responses, slopes=False).T)
    model = lj.lmm(FORMULA, design)
    before, most, done = _status("VmRSS"), [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[:] = max(most[0], _status("VmRSS")), max(most[1], _status("Threads"))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = timed(lambda: model.fit_batch(y), repeats)
    done.set()
    watcher.join()
    criterion = np.asarray(found.result.estimate.deviance)
    return {
        "cores": cores,
        "extra_mib": (most[0] - before) / 1024,
        "threads": most[1],
        "sum": float(np.sum(criterion)),
    } | found.seconds


def _status(name: str) -> float:
    """A number of this process as Linux tells it."""
    text = Path("/proc/self/status").read_text()
    return float(text.partition(f"{name}:")[2].split()[0])


def run(options: Options) -> Iterator[Record]:
    for cores in COUNTS:
        options.say(f"cores: {cores}")
        size, repeats = options.size(20_000, 1_000), options.repeats or 3
        yield isolated(measure, timeout=options.timeout, cores=cores, responses=size, repeats=repeats)


def table(records: list[Record]) -> str:
    """A row a number of cores; the criteria are summed over responses, relative to those of one core."""
    columns = ("cores:", "threads of the process:", "beside Y, MiB:", "warm:", "Δ criterion:")
    first = records[0].get("sum", np.nan)

    def cells(got: Record) -> list[str]:
        apart = small_number(abs(got["sum"] - first) / abs(first))
        sizes = [count(got[name]) for name in ("cores", "threads", "extra_mib")]
        return [*sizes, duration(got["warm"]), apart]

    return markdown(columns, [cells(got) for got in records if not got["error"]])


register(
    Workload(
        id="cores",
        title="W1 with one to 64 cores, simulated: memory, threads, results",
        goal="memory within twice that of one core; a thread a core and no more of BLAS",
        run=run,
        table=table,
        counted="responses",
    )
)
