"""Tables of committed results in the documentation: `python -m benchmarks.page` writes them anew.

A page marks the place with `<!-- results: ID -->` and `<!-- end of results -->`; `growth axis=groups` takes
the records of which `axis` is "groups". What stands between is the workload's own table of
`results/two-cores/ID.json`; `devices` is the GPU beside two cores.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness.results import RESULTS
from benchmarks.harness.text import count, duration, markdown, small_number
from benchmarks.harness.workload import workloads
from benchmarks.workloads import discover

ROOT = RESULTS.parents[1]
MARKED = re.compile(
    r"(<!-- results: (?P<id>\S+)(?: (?P<key>\w+)=(?P<value>[\w ]+?))? -->\n).*?(?=<!-- end of results -->)",
    re.DOTALL,
)
GPU = "nvidia-h100-80gb-hbm3"


def stored(kind: str, name: str) -> dict[str, Any]:
    """The document of a workload on a kind of machine."""
    return json.loads((RESULTS / kind / f"{name}.json").read_text())


def devices() -> str:
    """Pieces on a GPU and on two cores, and how far they are apart."""
    near = {r["piece"]: r for r in stored("two-cores", "device")["records"]}
    rows = []
    for far in stored(GPU, "device")["records"]:
        if "first" not in far:
            continue
        apart = [max(d.get(n, 0.0) for d in far["differences"].values()) for n in ("criterion", "beta")]
        times = (far["first"], far["warm"], near[far["piece"]]["warm"])
        shown = [*map(duration, times), *map(small_number, apart)]
        rows.append([f"`{far['piece']}`", count(far["responses"] or None), *shown])
    columns = ("", "responses:", "H100, first:", "H100, warm:", "two cores, warm:", "Δ criterion:", "Δ β̂/se:")
    return markdown(columns, rows)


def table(name: str, key: str | None = None, value: str | None = None) -> str:
    """The table of a workload's stored results."""
    if name == "devices":
        return devices()
    records = [r for r in stored("two-cores", name)["records"] if key is None or str(r[key]) == value]
    return next(w for w in workloads() if w.id == name).table(records)


def renewed(text: str) -> str:
    """A page with the tables of the results as they are stored."""
    discover()
    return MARKED.sub(lambda m: f"{m[1]}\n{table(m['id'], m['key'], m['value'])}\n\n", text)


def pages() -> list[Path]:
    """The pages that have such places."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [file for file in files if MARKED.search(file.read_text())]


if __name__ == "__main__":
    for file in pages():
        file.write_text(renewed(file.read_text()))
