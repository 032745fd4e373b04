"""The tables, one a workload, and the JSON record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.peers import LMMJAX
from benchmarks.runner import Row
from benchmarks.spec import Workload

SCHEMA = 1
WITHHELD = "withheld"


def show(
    console: Console, workload: Workload, rows: list[Row], *, small: bool, responses: int | None = None
) -> None:
    """Print the rows of one workload, saying when it was not run at its own size."""
    size = " (reduced size: checks the harness, measures nothing)" if small else ""
    size = f" (run with {responses:,} responses)" if responses else size
    table = Table(title=f"{workload.name}  {workload.title}{size}", caption=f"goal: {workload.goal}")
    single = workload.kind == "single"
    times = (
        ("process", "over imports", "process, cached", "over imports, cached", "warm per fit", "× lmer")
        if single
        else ("cold", "cached", "warm", "per fit", "× lmer")
    )
    table.add_column("package")
    table.add_column("call")
    for column in (*times, "gap", "gate", "peak MiB"):
        table.add_column(column, justify="right")
    table.add_column("note")
    for row in rows:
        printed = _times(row, single)
        if row.package == LMMJAX.name and row.passed is not True:
            printed = [WITHHELD if row.gap is not None else ""] * len(printed)
        gate = {True: "pass", False: f"FAIL {row.failed}/{row.judged}", None: ""}[row.passed]
        peak = "" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
        table.add_row(row.package, row.method, *printed, _gap(row.gap), gate, peak, escape(row.note))
    console.print(table)


def _times(row: Row, single: bool) -> list[str]:
    ratio = (
        "" if row.speedup is None else f"{row.speedup:,.1f}" if row.speedup < 100 else f"{row.speedup:,.0f}"
    )
    if single:
        values = (row.fresh, row.over_imports, row.fresh_cached, row.over_imports_cached, row.per_fit)
    else:
        values = (row.cold, row.cached, row.warm, row.per_fit)
    return [*map(duration, values), ratio]


def duration(seconds: float | None) -> str:
    """Three significant digits with a unit: `232 ns`, `4.31 ms`, `1.20 h`."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size * (2 if unit in ("h", "min") else 1):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _gap(gap: float | None) -> str:
    return "" if gap is None else "failed" if math.isnan(gap) else f"{gap:.1e}"


def record(
    machine: dict[str, object], results: list[tuple[Workload, list[Row]]], *, small: bool
) -> dict[str, Any]:
    """Everything that was printed, and more, as plain data."""
    return {
        "schema": SCHEMA,
        "small": small,
        "machine": machine,
        "workloads": [
            {
                "name": w.name,
                "title": w.title,
                "varied": w.varied,
                "goal": w.goal,
                "formula": w.model.formula,
                "reml": w.model.reml,
                "rows": [row.public() for row in rows],
            }
            for w, rows in results
        ],
    }


def save(path: Path, content: dict[str, Any]) -> None:
    """Write the record; NaN becomes null."""
    path.write_text(json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
