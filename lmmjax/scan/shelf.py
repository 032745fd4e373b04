"""Kernels without a chromosome as files beside the parts: who needs one first decomposes it, for all shards.

A file is written whole under its name or not at all, so that shards need no lock: two that need the same
kernel at the same time both make it. Its name has a digest of what the kernel is made from. One that is
damaged, or of other levels, is made anew; without room for it a scan goes on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.formula import Kernel
from lmmjax.formula.relationships.files import read_kernel, write_kernel
from lmmjax.stream.files import written_whole

FILES = "*_without-*.npz*"
"""Kernels, and what a writer that was killed has left."""


def shelf_path(folder: Path, chromosome: str, of: str) -> Path:
    """The file of the kernel without a chromosome; `of` is a digest of what it is made from."""
    return folder / f"_without-{quote(chromosome, safe='')}.{of[:24]}.npz"


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
    try:
        with written_whole(path) as file:
            write_kernel(file, kernel.levels, pd.Index(kernel.ids.astype(str), dtype=object), kernel.name)
    except OSError as error:
        # the kernel is in memory; one text for all chromosomes, which is shown once
        warnings.warn(
            f"kernels without a chromosome are not kept in {path.parent} for other shards, which make them "
            f"again: {error.strerror or error}",
            stacklevel=stack_level(),
        )
