"""How many processors there are, and products that leave the others to other threads."""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

One = TypeVar("One")
Two = TypeVar("Two")

USUAL = 4
"""Processors up to which nothing has to be done for threads of BLAS and of batches to get along."""

ALONE = 1 << 18
"""Multiplications up to which OpenBLAS computes a product in the thread that asks for it."""


CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says how much of its processors a container has."""


def cores() -> int:
    """Processors that this process may use: by affinity, and by the quota of its container."""
    present = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        present = min(present, len(os.sched_getaffinity(0)))
    return max(1, min(present, quota(CGROUP) or present))


@functools.lru_cache(maxsize=4)
def quota(folder: Path) -> int | None:
    """Processors' worth of time that a container may use, rounded up; None without a limit.

    `folder` is that of control groups, of either version.
    """
    try:
        text = (folder / "cpu.max").read_text()
    except OSError:
        try:
            old = folder / "cpu"
            text = " ".join((old / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    share, period, *_ = [*text.split(), "", ""]
    if not (share.isdecimal() and period.isdecimal() and int(period) > 0):
        return None
    return max(1, -(-int(share) // int(period)))


def mapped(function: Callable[[One], Two], items: Iterable[One]) -> list[Two]:
    """What a function of NumPy says of some items, which threads share; each has a BLAS of one thread.

    One item is left to BLAS and its threads.
    """
    every = list(items)
    count = min(cores(), len(every))
    if count < 2:
        return [function(item) for item in every]
    # imported here: a single fit has no use for it
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        # a checkout that is not installed
        return [function(item) for item in every]

    # a thread begins with NumPy's warnings as they are by default
    contexts = [contextvars.copy_context() for _ in every]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda context, item: context.run(function, item), contexts, every))


def matmul_alone(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = ab (p, T) for a (p, n) and b (n, T), one of many such products of as many threads.

    Larger products wait for threads of BLAS, which all callers share, so that many cores stand in a queue:
    there they are cut into narrow ones.
    """
    width = ALONE // max(a.size, 1)
    if cores() <= USUAL or width < 1 or width >= b.shape[1]:
        np.matmul(a, b, out=out)
        return
    for first in range(0, b.shape[1], width):
        part = slice(first, first + width)
        np.matmul(a, b[:, part], out=out[:, part])
