"""Every measurement is a process of its own, on the same cores and with the same thread counts."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True)
class Outcome:
    """What a script left: its wall time and its JSON, or why there is none."""

    seconds: float
    result: dict[str, Any] | None = None
    error: str = ""


def pin(cores: int, threads: int) -> int:
    """Keep this process and its children on at most `cores` of the cores it may use; how many that is.

    `threads` is the size of the BLAS and OpenMP pools. XLA's own pool takes the cores there are.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        os.sched_setaffinity(0, allowed)
        cores = len(allowed)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    return cores


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float) -> Outcome:
    """Run a script that takes `out=FILE` last, and read the JSON it wrote there."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [*command, f"out={out}"],
                env={**os.environ, **(environment or {})},
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            return Outcome(0.0, error=f"{command[0]} not found")
        except subprocess.TimeoutExpired:
            return Outcome(timeout, error=f"no result within {timeout:.0f} s")
        seconds = time.perf_counter() - start
        if done.returncode != 0 or not out.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return Outcome(seconds, error=lines[-1] if lines else f"exit status {done.returncode}")
        result = json.loads(out.read_text())
    if "missing" in result:
        return Outcome(seconds, error=f"not installed: {result['missing']}")
    return Outcome(seconds, result)


def wall(command: Sequence[str]) -> float:
    """Wall time of one process that must succeed and whose output is discarded."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def compilation_cache(folder: Path) -> dict[str, str]:
    """The variables that make JAX keep every compiled program in `folder`."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def median(values: Sequence[float]) -> float:
    """Median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")
