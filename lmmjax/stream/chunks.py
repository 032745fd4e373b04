"""The chunks of a streamed batch: how large they are, and which of them are left to fit."""

from __future__ import annotations

import platform
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.arrays.memory import available_memory
from lmmjax.batch import FEW, LANES, lane_count
from lmmjax.fitted import ModelData
from lmmjax.stream.inputs import Inputs
from lmmjax.stream.manifest import agree, begin, check_finished
from lmmjax.stream.parts import is_done
from lmmjax.stream.processes import Processes

COPIES = 8
"""Copies of a chunk alive at once: two chunks, each as read, as floats and as rows of the model; blocks."""

SHARE = 0.25
"""Part of the available memory that these copies may take."""

BLOCKS = 16
"""Most calls of the engine (`lmmjax.batch.lane_count` responses each) in a chunk."""


def ranges(total: int, chunk: int) -> list[tuple[int, int]]:
    """The responses [start, stop) of each chunk: as few chunks as possible, of sizes that differ by 1."""
    count = -(-total // chunk)
    edges = [total * k // count for k in range(count + 1)]
    return list(pairwise(edges))


def chunk_size(data: ModelData, sources: int = 1) -> int:
    """Responses a chunk, from the memory available; `sources` are the matrices that are read."""
    shared = data.maker.prepared.shared
    # a response has its values on the rows, and a few vectors of the engine
    rows = sources * (data.design.n + data.frame.n_dropped)
    bytes_each = COPIES * 8 * (rows + 4 * shared.vector)
    most = max(BLOCKS * lane_count(shared.vector, LANES), 4 * FEW) if shared.together else FEW
    return int(np.clip(SHARE * available_memory() / bytes_each, 1, most))


def chunk_of_all(
    together: Processes, task: dict[str, Any], chunk: int | None, data: ModelData, inputs: Inputs
) -> int:
    """Responses a chunk, for processes that were all given the same task."""
    sources = sum(source is not None for source in (inputs.responses, inputs.weights, inputs.offset))
    offer = {"task": task, "size": chunk or chunk_size(data, sources), "host": platform.node()}
    offers = together.exchange(offer)
    for k, other in enumerate(offers):
        agree(offers[0]["task"], other["task"], f"process {k} streams something else, it")
    if chunk is not None or together.count == 1:
        return offer["size"]
    hosts = [other["host"] for other in offers]
    share = min(other["size"] // hosts.count(other["host"]) for other in offers)
    return max(1, min(share, -(-task["n_responses"] // together.count)))


def chunks_left(
    path: Path, parts: Path, task: dict[str, Any], total: int, size: int, resume: bool, chosen: bool
) -> dict[str, Any]:
    """Chunks to fit as todo = [[chunk, start, stop], ...], and count of all parts; 0 if the result is there.

    Parameters
    ----------
    size, resume, chosen : as for `lmmjax.stream.manifest.begin`.
    """
    if resume and not parts.exists() and path.exists():
        check_finished(path, task)
        return {"count": 0, "todo": []}
    chunks = ranges(total, begin(parts, task, size, resume, chosen))
    todo = [[k, a, b] for k, (a, b) in enumerate(chunks) if not is_done(parts, k, b - a)]
    return {"count": len(chunks), "todo": todo}


def count_responses(todo: list[list[int]]) -> int:
    """Responses in chunks [chunk, start, stop]."""
    return sum(stop - start for _, start, stop in todo)
