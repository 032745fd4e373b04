"""A batch and a scan in shards on workers of Dask, beside one process; some workers are killed."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

ROWS, GROUPS, SHARDS, EVERY = 400, 50, 40, 10.0
PEOPLE, TRAITS = 1_000, 20

Job = Callable[..., Any]
"""Writes results to a file, with the options of a run."""


def batch(size: int, folder: Path) -> Job:
    """`size` responses, (1 | g)."""
    import pandas as pd

    import lmmjax as lj

    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=ROWS), "g": np.repeat(np.arange(GROUPS), ROWS // GROUPS)})
    values = rng.normal(size=(ROWS, size)) + rng.normal(size=(GROUPS, size))[data["g"]]
    model = lj.lmm("~ x + (1 | g)", data)
    np.save(folder / "y.npy", values)
    return lambda out, **how: model.stream_batch(folder / "y.npy", out, chunk=-(-size // SHARDS), **how)


def scan(size: int, folder: Path) -> Job:
    """`size` markers against 20 traits, with a kernel."""
    import pandas as pd

    import lmmjax as lj

    rng, ids = np.random.default_rng(2), np.arange(PEOPLE)
    markers = rng.binomial(2, 0.3, (PEOPLE, size)).astype(np.int8)
    np.save(folder / "g.npy", markers)
    kernel = lj.Kernel.from_markers(markers[:, :2_000].astype(float), ids)
    traits = rng.normal(size=(PEOPLE, TRAITS))
    data = pd.DataFrame({"id": ids, "x": rng.normal(size=PEOPLE)})
    fits = lj.lmm("~ x + (1 | id)", data, kernels={"id": kernel}).fit_batch(traits)
    asked = {"ids": ids, "test": "wald", "chunk": -(-size // SHARDS)}
    return lambda out, **how: fits.scan(folder / "g.npy", sink=out, **asked, **how)


JOBS = {"batch": (batch, 400_000, 2_000), "scan": (scan, 100_000, 2_000)}
"""Each with its size, and its size when it is small."""


def measure(job: str, workers: int, size: int, kill: bool) -> Record:
    """Seconds of one process (0 workers) or of Dask's; `same` bytes as one process in the same shards."""
    with tempfile.TemporaryDirectory() as folder:
        one, out = Path(folder) / "one.parquet", Path(folder) / "out.parquet"
        done = JOBS[job][0](size, Path(folder))
        begin = time.perf_counter()
        done(one)
        alone = time.perf_counter() - begin
        if not workers:
            return {"seconds": alone, "killed": 0, "same": True}
        from dask.distributed import Client, LocalCluster

        options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
            killed, ended = [], threading.Event()

            def killer() -> None:
                while kill and not ended.wait(EVERY):
                    there: Any = client.run(lambda: {"pid": os.getpid()})
                    pids = [worker["pid"] for worker in there.values()]
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(pids[0])

            thread = threading.Thread(target=killer)
            thread.start()
            begin = time.perf_counter()
            try:
                done(out, executor=client)
            finally:
                ended.set()
                thread.join()
            seconds = time.perf_counter() - begin
        same = out.read_bytes() == one.read_bytes()
    return {"seconds": seconds, "alone": alone, "killed": len(killed), "same": same}


def run(options: Options) -> Iterator[Record]:
    """Workers find the programs of the one process in the store, as on any machine that was used before."""
    with tempfile.TemporaryDirectory() as store:
        for job, (_, large, small) in JOBS.items():
            for workers, kill in ((0, False), (1, False), (2, False), (4, False), (2, True)):
                options.say(f"shards: {job}, {workers} workers{', killed' if kill else ''}")
                size = small if options.small else large
                asked = {"job": job, "workers": workers, "kill": kill, "size": size}
                own = {"environment": {"LMMJAX_CACHE": store}, "timeout": options.timeout}
                yield asked | isolated(measure, **own, **asked)


def table(records: list[Record]) -> str:
    """A row a number of workers."""
    columns = ("", "of:", "workers", "seconds:", "overhead a shard:", "killed:", "same bytes", "error")

    def cells(got: Record) -> list[str]:
        # results of the first version are of a batch
        what = [got.get("job", "batch"), count(got.get("size", got.get("responses")))]
        who = f"{got['workers']}{', killed' if got['kill'] else ''}" if got["workers"] else "one process"
        if got["error"]:
            return [*what, who, "", "", "", "", got["error"]]
        # one process uses all processors, too
        more = duration(max(got["seconds"] - got["alone"], 0.0) / SHARDS) if "alone" in got else ""
        return [
            *what,
            who,
            duration(got["seconds"]),
            more,
            count(got["killed"]),
            "yes" if got["same"] else "NO",
            "",
        ]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="shards",
        title="A batch and a scan, each in 40 shards, on workers of Dask, some of them killed",
        goal="the bytes of one process, with 1, 2 and 4 workers and with one killed every ten seconds",
        run=run,
        table=table,
    )
)
