"""`python -m benchmarks list` and `python -m benchmarks run W9 W1 …`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import benchmarks.workloads  # noqa: F401  (registers them)
from benchmarks import machine, spec, table
from benchmarks.peers import PEERS
from benchmarks.processes import pin
from benchmarks.runner import Settings, measure

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command("list")
def list_workloads() -> None:
    """Show the workloads and the peers."""
    shown = Table()
    for column in ("workload", "what", "varied", "goal"):
        shown.add_column(column)
    for w in spec.workloads():
        shown.add_row(w.name, w.title, w.varied, w.goal)
    Console().print(shown)
    Console().print(f"peers: {', '.join(PEERS)}")


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(help="Workloads, such as W9 or W2-balanced; `all` for all.")],
    peers: Annotated[str, typer.Option(help="Peers, separated by commas; `none` for none.")] = ",".join(
        PEERS
    ),
    json: Annotated[Path | None, typer.Option(help="Write everything measured to this file.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A reduced size, to check the harness.")] = False,
    responses: Annotated[int | None, typer.Option(help="Another number of responses, for scaling.")] = None,
    peer_python: Annotated[
        str, typer.Option(envvar="LMMJAX_PEER_PYTHON", help="The Python that has the peers.")
    ] = sys.executable,
    rscript: Annotated[
        str, typer.Option(envvar="LMMJAX_RSCRIPT", help="The Rscript that has lme4.")
    ] = "Rscript",
    cores: Annotated[int, typer.Option(help="Cores for everybody.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads of BLAS and OpenMP, for everybody.")] = 1,
    repeats: Annotated[int, typer.Option(help="Warm calls and fresh processes; medians are shown.")] = 5,
    budget: Annotated[float, typer.Option(help="Seconds after which a peer's loop ends.")] = 60.0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a process is given up.")] = 1800.0,
) -> None:
    """Measure workloads, print their tables, and write JSON."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "200")))
    try:
        chosen = spec.workloads() if names == ["all"] else spec.select(names)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    asked = tuple(p for p in peers.split(",") if p and p != "none")
    unknown = [p for p in asked if p not in PEERS]
    if unknown:
        raise typer.BadParameter(f"no peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    used = pin(cores, threads)
    settings = Settings(asked, peer_python, rscript, small, responses, repeats, budget, timeout)
    described = machine.describe(used, threads)
    console.print(
        f"{described['cpu']}, {used} cores and {threads} BLAS threads for everybody, {described['system']}"
    )
    results = []
    for workload in chosen:
        rows = measure(workload, settings, say=lambda text: console.print(f"[dim]{text}[/dim]"))
        table.show(console, workload, rows, small=small, responses=responses)
        results.append((workload, rows))
        if json is not None:
            table.save(json, table.record(described, results, small=small))


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
