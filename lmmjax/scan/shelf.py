"""Kernels without a chromosome as files beside the parts: who needs one first decomposes it, for all shards.

A file is written whole under its name or not at all, so that shards need no lock: two that need the same
kernel at the same time both make it. One that is damaged, or of other levels, is made anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from lmmjax.formula import Kernel
from lmmjax.formula.relationships.files import read_kernel, write_kernel

FILES = "_without-*.npz"


def shelf_path(folder: Path, chromosome: str) -> Path:
    """The file of the kernel without a chromosome."""
    return folder / FILES.replace("*", quote(chromosome, safe=""))


def kept_kernel(path: Path, ids: pd.Index) -> Kernel | None:
    """The kernel of the levels `ids` (G,) that `keep_kernel` wrote, with its decompositions, or None."""
    try:
        levels, found, name = read_kernel(path)
    except (OSError, ValueError):
        return None
    same = len(found) == len(ids) and found.astype(str).equals(ids.astype(str))
    return Kernel.of_levels(levels, ids, name) if same else None


def keep_kernel(path: Path, kernel: Kernel) -> None:
    """Write a kernel with its decompositions; labels that do not go into a file are written as text."""
    own = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        write_kernel(own, kernel.levels, pd.Index(kernel.ids.astype(str), dtype=object), kernel.name)
        os.replace(own, path)
    finally:
        own.unlink(missing_ok=True)
