"""The machine and the versions a table was made with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("lmmjax", "jax", "jaxlib", "numpy", "scipy", "pandas", "formulaic")
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def describe(cores: int, threads: int, device: str) -> dict[str, object]:
    """Date, kind, processor, memory, Python and package versions; `device` is JAX's, as `device` tells it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kind": kind(cores, device),
        "device": device,
        "system": platform.platform(terse=True),
        "cpu": _cpu(),
        "cores_used": cores,
        "blas_threads": threads,
        "cores_present": os.cpu_count(),
        "memory_gib": _memory(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def device() -> dict[str, str]:
    """What JAX computes on, `cpu: cpu` or `gpu: NVIDIA …`; JAX then holds it until the process ends."""
    import jax

    first = jax.devices()[0]
    return {"device": f"{first.platform}: {first.device_kind}"}


def kind(cores: int, device: str) -> str:
    """The folder of results: `two-cores`, or the name of the GPU such as `nvidia-h100-80gb-hbm3`."""
    platform_, _, name = device.partition(": ")
    if platform_ not in ("cpu", ""):
        return re.sub(r"[^a-z0-9]+", "-", (name or platform_).lower()).strip("-")
    word = WORDS[cores - 1] if cores <= len(WORDS) else str(cores)
    return f"{word}-core{'s' if cores > 1 else ''}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
