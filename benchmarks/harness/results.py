"""The JSON of a workload, and where it is kept: `results/<kind of machine>/<id>.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.workload import Record, Workload

SCHEMA = 2
RESULTS = Path(__file__).parents[1] / "results"


def document(
    workload: Workload, machine: Mapping[str, Any], records: list[Record], *, small: bool
) -> dict[str, Any]:
    """Everything measured of one workload, with what it is and where it ran."""
    return {
        "schema": SCHEMA,
        "id": workload.id,
        "title": workload.title,
        "goal": workload.goal,
        **workload.about,
        "small": small,
        "machine": dict(machine),
        "records": records,
    }


def path(workload: Workload, kind: str) -> Path:
    """The file of a workload's results on a kind of machine."""
    return RESULTS / kind / f"{workload.id}.json"


def save(file: Path, content: Any) -> None:
    """Write plain data; NaN becomes null. Who is stopped meanwhile leaves the file as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    part.replace(file)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
