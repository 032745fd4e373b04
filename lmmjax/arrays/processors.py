"""How many processors there are, and products that leave the others to other threads."""

from __future__ import annotations

import os

import numpy as np

USUAL = 4
"""Processors up to which nothing has to be done for threads of BLAS and of batches to get along."""

ALONE = 1 << 18
"""Multiplications up to which OpenBLAS computes a product in the thread that asks for it."""


def cores() -> int:
    """Processors that this process may use."""
    present = os.cpu_count() or 1
    return min(present, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else present


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
