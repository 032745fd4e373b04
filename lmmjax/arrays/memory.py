"""How much memory there is."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path


def require_memory(what: str, *shape: int, remedy: str = "ask for less at a time") -> None:
    """ValueError, with the size in GiB, unless an array (shape) of float64 fits the available memory."""
    size, available = 8 * math.prod(int(n) for n in shape), available_memory()
    if size > available:
        raise ValueError(
            f"{what} would take {size / 2**30:,.3g} GiB of memory, {available / 2**30:,.3g} GiB are free: "
            f"{remedy}"
        )


def available_memory() -> int:
    """Bytes that can be had without swapping: of the machine, and of the control group that limits it."""
    found = [4 << 30]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(limit - used, 0))
    return min(found)
