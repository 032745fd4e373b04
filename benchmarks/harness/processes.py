"""Every measurement is a process of its own, on the same cores and with the same thread counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
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
ROOT = str(Path(__file__).parents[2])
"""Where lmmjax and these benchmarks are, for the PYTHONPATH of processes."""


class PeerError(RuntimeError):
    """A peer is not installed, or its program failed."""


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
            status, errors = _finish([*command, f"out={out}"], {**os.environ, **(environment or {})}, timeout)
        except FileNotFoundError:
            return Outcome(0.0, error=f"{command[0]} not found")
        except subprocess.TimeoutExpired:
            return Outcome(timeout, error=f"no result within {timeout:.0f} s")
        seconds = time.perf_counter() - start
        if status != 0 or not out.exists():
            return Outcome(seconds, error=_complaint(errors, status))
        result = json.loads(out.read_text())
    if "missing" in result:
        return Outcome(seconds, error=f"not installed: {result['missing']}")
    return Outcome(seconds, result)


def numbers(command: Sequence[str], *arguments: object) -> list[float]:
    """What a peer's program prints, numbers only."""
    if shutil.which(command[0]) is None:
        raise PeerError(f"not installed: no {Path(command[0]).name}")
    done = subprocess.run([*command, *map(str, arguments)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise PeerError(_complaint(done.stderr, done.returncode))
    return [float(value) for value in done.stdout.split()]


def wall(command: Sequence[str]) -> float:
    """Wall time of one process that must succeed and whose output is discarded."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def median(values: Sequence[float]) -> float:
    """Median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def _finish(command: Sequence[str], environment: Mapping[str, str], timeout: float) -> tuple[int, str]:
    """Exit status and errors of a process, which is ended with all that it started if it takes too long."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            errors = child.communicate(timeout=timeout)[1]
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    return child.returncode, errors


def _complaint(errors: str, status: int) -> str:
    """The last line of what a process said; R's is that it halted."""
    lines = [line for line in errors.splitlines() if line.strip() and line != "Execution halted"]
    return lines[-1].strip() if lines else f"exit status {status}"
