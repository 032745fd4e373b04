"""How time and memory of a batch grow with responses, groups and random effects.

    python -m benchmarks.scaling [--small] [--axis responses groups effects] [--json FILE]

`y ~ t + x1 + x2 + (… | g)` by REML, groups of 6, 8 and 10 rows, or of 8 with the same covariates in every
group ("repeated"). Every cell is a process of its own: the first call compiles, of the later ones the fastest
counts, and the peak is of the whole process, responses included. Some responses of every cell are judged as
in the other benchmarks; no time is shown if one is off. `benchmarks.million` measures a million responses.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.processes import pin, run
from benchmarks.table import duration, save


@dataclass(frozen=True)
class Cell:
    """T responses on G groups with q random effects; `checked` of them are judged."""

    axis: str
    responses: int
    groups: int
    q: int = 1
    repeated: bool = False
    checked: int = 5
    repeats: int = 7

    @property
    def term(self) -> str:
        return "(" + " + ".join(["1", "t", "x1", "x2"][: self.q]) + " | g)"

    def measure(self) -> dict[str, Any]:
        """Of `benchmarks.measured.scaling`, with the load of the machine before."""
        options = {k: str(v).lower() for k, v in asdict(self).items()}
        command = [sys.executable, "-m", "benchmarks.measured", "what=scaling", "data=."]
        load = os.getloadavg()[0]
        outcome = run([*command, *(f"{k}={v}" for k, v in options.items())], timeout=1800.0)
        return (
            asdict(self) | {"term": self.term, "load": load, "error": outcome.error} | (outcome.result or {})
        )


def cells(*, small: bool) -> list[Cell]:
    """The table; `small` leaves out all but the least of each kind."""
    by_responses = [Cell("responses", 10**k, 100) for k in range(6)]
    by_groups = [
        Cell("groups", 100, 10**k, q, checked=2 if k < 5 else 1) for q in (1, 2) for k in range(1, 6)
    ]
    by_effects = [
        Cell("effects", 2_000, 100, q, repeated) for repeated in (False, True) for q in (1, 2, 3, 4)
    ]
    everything = [by_responses, by_groups, by_effects]
    return [cell for group in everything for cell in (group[:2] if small else group)]


def line(got: dict[str, Any]) -> str:
    """A row of the Markdown table."""
    head = [f"{got['responses']:,}", f"{got['groups']:,}", f"`{got['term']}`".replace("|", "\\|")]
    head[2] += ", repeated" if got["repeated"] else ""
    if got["error"] or not (got["gap_in_tolerances"] <= 1 and got["converged"] == 1):
        return "| " + " | ".join([*head, got["error"] or "off the optimum", *[""] * 6]) + " |"
    numbers = [
        f"{got['rows']:,}",
        duration(got["first"]),
        duration(got["warm"]),
        duration(got["warm"] / got["responses"]),
        f"{got['iterations']:.1f}",
        f"{got['data_mib']:,.0f}",
        f"{got['peak_fit_mib']:,.0f}",
    ]
    return "| " + " | ".join(head + numbers) + " |"


HEAD = """
| responses | groups | random | rows | first | warm | per fit | iterations | responses, MiB | peak, MiB |
|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="two cells of a kind")
    parser.add_argument("--axis", nargs="*", default=["responses", "groups", "effects"])
    parser.add_argument("--json")
    options = parser.parse_args()
    cores = pin(2, 1)
    results, axis = [], ""
    for cell in cells(small=options.small):
        if cell.axis not in options.axis:
            continue
        if cell.axis != axis:
            axis = cell.axis
            print(HEAD)
        results.append(cell.measure())
        print(line(results[-1]), flush=True)
        if options.json:
            save(Path(options.json), {"machine": describe(cores, 1), "cells": results})


if __name__ == "__main__":
    main()
