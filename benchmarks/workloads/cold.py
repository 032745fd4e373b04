"""The first use of a kind of model: fresh processes, that compile everything and that find programs stored.

Seconds are over the imports of jax, pandas and formulaic; the import of lmmjax is told apart. A store begins
empty, is filled by the cold process, and read by those after it. Modules have their bytecode, as pip leaves
them.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness.cold_pieces import PIECES
from benchmarks.harness.isolated import isolated
from benchmarks.harness.processes import median, wall
from benchmarks.harness.text import count, duration, markdown
from benchmarks.harness.workload import Options, Record, Workload, register
from benchmarks.peers.exchange import peak_mib

PACKAGES = (
    *("lmmjax", "jax", "jaxlib", "numpy", "scipy", "pandas", "formulaic", "narwhals", "optax"),
    *("arviz", "blackjax", "xarray", "matplotlib"),
)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def first(name: str) -> Record:
    """Seconds of a first use in this process, and of a second."""
    import formulaic  # noqa: F401
    import jax  # noqa: F401
    import pandas as pd  # noqa: F401

    begin, cpu = time.perf_counter(), _cpu()
    import lmmjax as lj
    from lmmjax.arrays.compile import compiled_at_once, counts

    imported, cpu_imported = time.perf_counter() - begin, _cpu() - cpu
    piece = next(p for p in PIECES if p.name == name)
    call = piece.prepare(lj)
    begin, cpu = time.perf_counter(), _cpu()
    call()
    out = {"wall": time.perf_counter() - begin, "cpu": _cpu() - cpu}
    out |= {name: counts[name] for name in ("compiled", "loaded", "traced", "read")} | {"peak": peak_mib()}
    begin = time.perf_counter()
    call()
    out["second"] = time.perf_counter() - begin
    with compiled_at_once():
        call()
        begin = time.perf_counter()
        call()
    return out | {"warm": time.perf_counter() - begin, "import": imported, "import_cpu": cpu_imported}


def _with_bytecode(folder: str) -> dict[str, str]:
    """Variables by which processes find the bytecode of what they import, compiled here as pip would."""
    found = (importlib.util.find_spec(name) for name in PACKAGES)
    places = [os.path.dirname(spec.origin) for spec in found if spec and spec.origin]
    keep = {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", *places],
        env=os.environ | keep,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return keep


def run(options: Options) -> Iterator[Record]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _run(options, _with_bytecode(folder))


def _run(options: Options, bytecode: dict[str, str]) -> Iterator[Record]:
    again = 1 if options.small else options.repeats or 3
    for piece in PIECES:
        if options.small and piece.goals[0] > 1.5:
            continue
        if (wanted := options.extra.get("only")) and wanted not in piece.name:
            continue
        options.say(f"cold: {piece.name}")
        colds, stored = [], []
        for _ in range(1 if piece.goals[0] > 3 else again):
            with tempfile.TemporaryDirectory() as folder:
                keep = bytecode | {"LMMJAX_CACHE": folder}
                colds.append(isolated(first, timeout=options.timeout, environment=keep, name=piece.name))
                stored = [
                    isolated(first, timeout=options.timeout, environment=keep, name=piece.name)
                    for _ in range(again)
                ]
                size = sum(path.stat().st_size for path in Path(folder).rglob("*.program"))
        record: Record = {"piece": piece.name, "goals": piece.goals, "stored_mib": size / 2**20}
        if failed := [r["error"] for r in (*colds, *stored) if r["error"]]:
            yield record | {"error": failed[0]}
            continue
        for key, runs in (("cold", colds), ("stored", stored)):
            record[key] = {k: median([r[k] for r in runs]) for k in runs[0] if k != "error"}
        if piece.r and options.r and shutil.which(options.r):
            theirs = [wall([options.r, "-e", piece.r]) for _ in range(again)]
            record["lme4"] = {"process": median(theirs)}
        yield record


def table(records: list[Record]) -> str:
    """A row a piece; goals in brackets; lmmjax's own import apart; lme4's is a whole process."""
    columns = (
        "first use",
        "cold:",
        "CPU:",
        "traced:",
        "compiled:",
        "peak MiB:",
        "stored:",
        "CPU:",
        "second:",
        "warm:",
        "import:",
        "lme4, process:",
    )

    def cells(got: Record) -> list[str]:
        cold, stored = got["cold"], got["stored"]
        goals = [f" ({goal:g})" for goal in got["goals"]]
        ours = [
            duration(cold["wall"]) + goals[0],
            duration(cold["cpu"]),
            count(cold["traced"]),
            count(cold["compiled"]),
            count(cold["peak"]),
        ]
        ours += [duration(stored["wall"]) + goals[1], duration(stored["cpu"])]
        ours += [duration(cold["second"]), duration(cold["warm"]), duration(stored["import"])]
        return [got["piece"], *ours, duration(got.get("lme4", {}).get("process"))]

    return markdown(columns, map(cells, records))


register(
    Workload(
        id="cold",
        title="The first use of seventeen kinds of models: fresh processes, with and without stored programs",
        goal="in brackets, seconds over the imports on two cores; lme4's fresh process",
        run=run,
        table=table,
        extras={"only": {"metavar": "TEXT", "help": "pieces whose name has this text"}},
    )
)
