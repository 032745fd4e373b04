"""A batch in shards on workers of Dask, beside one process; with a worker killed every ten seconds."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.isolated import isolated
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register

ROWS, GROUPS, SHARDS, EVERY = 400, 50, 40, 10.0


def measure(workers: int, responses: int, kill: bool) -> Record:
    """Seconds of one process (0 workers) or of Dask's; `same` bytes as one process in the same shards."""
    import pandas as pd

    import lmmjax as lj

    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=ROWS), "g": np.repeat(np.arange(GROUPS), ROWS // GROUPS)})
    values = rng.normal(size=(ROWS, responses)) + rng.normal(size=(GROUPS, responses))[data["g"]]
    model, chunk = lj.lmm("~ x + (1 | g)", data), -(-responses // SHARDS)
    with tempfile.TemporaryDirectory() as folder:
        one, out = Path(folder) / "one.parquet", Path(folder) / "out.parquet"
        np.save(Path(folder) / "y.npy", values)
        begin = time.perf_counter()
        model.stream_batch(Path(folder) / "y.npy", one, chunk=chunk)
        alone = time.perf_counter() - begin
        if not workers:
            return {"workers": 0, "responses": responses, "seconds": alone, "killed": 0, "same": True}
        from dask.distributed import Client, LocalCluster

        options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(n_workers=workers, **options) as cluster, Client(cluster) as client:
            killed, ended = [], threading.Event()

            def killer() -> None:
                while kill and not ended.wait(EVERY):
                    pids = [worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()]
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(pids[0])

            thread = threading.Thread(target=killer)
            thread.start()
            begin = time.perf_counter()
            try:
                model.stream_batch(Path(folder) / "y.npy", out, chunk=chunk, executor=client)
            finally:
                ended.set()
                thread.join()
            seconds = time.perf_counter() - begin
        same = out.read_bytes() == one.read_bytes()
    # of all workers together, beside one process, over the shards
    overhead = (workers * seconds - alone) / SHARDS
    return {
        "workers": workers,
        "responses": responses,
        "seconds": seconds,
        "alone": alone,
        "overhead": overhead,
        "killed": len(killed),
        "same": same,
    }


def run(options: Options) -> Iterator[Record]:
    responses = 2_000 if options.small else 400_000
    for workers, kill in ((0, False), (1, False), (2, False), (4, False), (2, True)):
        options.say(f"shards: {workers} workers{', killed' if kill else ''}")
        more = {"workers": workers, "kill": kill, "responses": responses}
        yield {"kill": kill} | isolated(measure, timeout=options.timeout, **more)


def table(records: list[Record]) -> str:
    """A row a number of workers."""
    columns = ("workers", "responses:", "seconds:", "overhead a shard:", "killed:", "same bytes", "error")

    def cells(got: Record) -> list[str]:
        if got["error"]:
            return [str(got.get("workers", "")), "", "", "", "", "", got["error"]]
        who = str(got["workers"]) if got["workers"] else "one process"
        more = duration(max(got["overhead"], 0.0)) if "overhead" in got else ""
        done = [count(got["responses"]), duration(got["seconds"]), more, count(got["killed"])]
        return [who, *done, "yes" if got["same"] else "NO", ""]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="shards",
        title="A batch in 40 shards on workers of Dask, some of them killed",
        goal="the bytes of one process, with 1, 2 and 4 workers and with one killed every ten seconds",
        run=run,
        table=table,
    )
)
