"""Benchmarks of lmmjax beside its peers: what there is, and runs of any of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, results
from benchmarks.harness.isolated import isolated
from benchmarks.harness.processes import pin
from benchmarks.harness.workload import Options, Record, Workload, select, workloads
from benchmarks.peers import PEERS
from benchmarks.workloads import discover

SHARED = ("small", "responses", "peer_python", "rscript", "repeats", "budget", "timeout")


def parser() -> argparse.ArgumentParser:
    """Options of all workloads, then those that a workload declares."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the workloads and the peers")
    run = commands.add_parser("run", help="measure workloads, print their tables, and write JSON")
    add = run.add_argument
    add("names", nargs="+", metavar="NAME", help="workloads, such as W9 or W2-balanced; all for all")
    add("--small", action="store_true", help="reduced sizes: checks that it works, measures nothing")
    add("--save", action="store_true", help="write results/<kind of machine>/<workload>.json")
    add("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    add("--responses", type=int, metavar="N", help="another number of responses, problems or data sets")
    add("--peers", default=",".join(PEERS), help="peers, separated by commas, or none; lme4 stands for R")
    add("--peer-python", default=os.environ.get("LMMJAX_PEER_PYTHON", sys.executable), metavar="PYTHON")
    add("--rscript", default=os.environ.get("LMMJAX_RSCRIPT", "Rscript"))
    add("--cores", type=int, default=2, help="cores for everybody (2)")
    add("--threads", type=int, default=1, help="threads of BLAS and OpenMP, for everybody (1)")
    add("--repeats", type=int, metavar="N", help="warm calls, instead of the workload's own number")
    add("--budget", type=float, default=60.0, help="seconds after which a peer's loop ends (60)")
    add("--timeout", type=float, default=1800.0, help="seconds after which a process is given up (1800)")
    for workload in workloads():
        if workload.extras:
            group = run.add_argument_group(f"{workload.id} only")
            for name, keywords in workload.extras.items():
                group.add_argument(f"--{name}", **keywords)
    return top


def show_all() -> None:
    """The workloads and the peers."""
    width = max(len(w.id) for w in workloads()) + 2
    for w in workloads():
        print(f"{w.id:{width}}{w.title}\n{'':{width}}goal: {w.goal}")
    print(f"\npeers: {', '.join(PEERS)}")


def run(chosen: tuple[Workload, ...], given: argparse.Namespace, peers: tuple[str, ...]) -> bool:
    """Measure, print and write; whether everything could be measured."""
    cores = pin(given.cores, given.threads)
    device = isolated(machine.device, timeout=given.timeout)
    if device["error"]:
        raise SystemExit(f"JAX finds no device: {device['error']}")
    described = machine.describe(cores, given.threads, device["device"])
    print(
        f"{described['cpu']}, {cores} cores and {given.threads} BLAS threads for everybody, "
        f"{described['device']}, {described['system']}"
    )
    documents: list[dict[str, Any]] = []
    complete = True
    for workload in chosen:
        options = Options(
            **{name: getattr(given, name) for name in SHARED},
            peers=peers,
            extra={name: getattr(given, name) for name in workload.extras},
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        records: list[Record] = []
        documents.append(results.document(workload, described, records, small=given.small))
        for record in measured(workload, options):
            records.append(record)
            if given.json:
                results.save(given.json, documents)
        print(shown(workload, records, options), flush=True)
        failed = any(record.get("error") for record in records)
        complete &= not failed
        if given.save and not failed:
            results.save(results.path(workload, str(described["kind"])), documents[-1])
    return complete


def measured(workload: Workload, options: Options) -> Iterator[Record]:
    """The records of a workload; one with an error instead of an exception, so that others go on."""
    try:
        yield from workload.run(options)
    except Exception as error:
        yield {"error": f"{type(error).__name__}: {error}"}


def shown(workload: Workload, records: list[Record], options: Options) -> str:
    """Title, goal, table, and what could not be measured; with the size if it is not the workload's own."""
    size = " (reduced size: checks the harness, measures nothing)" if options.small else ""
    if options.responses:
        size = f" (run with {options.responses:,} {workload.counted})"
    parts = [f"\n## {workload.id}: {workload.title}{size}", f"Goal: {workload.goal}."]
    if good := [r for r in records if not r.get("error")]:
        parts.append(workload.table(good))
    parts += [f"failed: {r}" for r in records if r.get("error")]
    return "\n\n".join(parts)


def main() -> None:
    discover()
    known = parser()
    given = known.parse_args()
    if given.command == "list":
        show_all()
        return
    try:
        chosen = select(given.names)
    except ValueError as error:
        known.error(str(error))
    peers = tuple(p for p in given.peers.split(",") if p and p != "none")
    if unknown := [p for p in peers if p not in PEERS]:
        known.error(f"no peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    if given.responses and (without := [w.id for w in chosen if not w.counted]):
        known.error(f"{', '.join(without)}: the size cannot be changed by --responses")
    if given.save and (given.small or given.responses):
        known.error("--save is for workloads at their own size; --json FILE takes any")
    sys.exit(not run(chosen, given, peers))


if __name__ == "__main__":
    main()
