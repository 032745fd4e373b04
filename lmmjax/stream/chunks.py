"""The chunks of a streamed batch: how large they are, and which of them are left to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.arrays.memory import available_memory
from lmmjax.batch import FEW, LANES, lane_count
from lmmjax.fitted import ModelData
from lmmjax.stream.manifest import begin, finished
from lmmjax.stream.parts import stamp_of
from lmmjax.stream.work import Work, ranges

COPIES = 8
"""Copies of a chunk alive at once: two chunks, each as read, as floats and as rows of the model; blocks."""

SHARE = 0.25
"""Part of the available memory that these copies may take."""

BLOCKS = 16
"""Most calls of the engine (`lmmjax.batch.lane_count` responses each) in a chunk."""


def chunk_size(data: ModelData, sources: int = 1) -> int:
    """Responses a chunk, from the memory available; `sources` are the matrices that are read."""
    shared = data.maker.prepared.shared
    # a response has its values on the rows, and a few vectors of the engine
    rows = sources * (data.design.n + data.frame.n_dropped)
    bytes_each = COPIES * 8 * (rows + 4 * shared.vector)
    most = max(BLOCKS * lane_count(shared.vector, LANES), 4 * FEW) if shared.together else FEW
    return int(np.clip(SHARE * available_memory() / bytes_each, 1, most))


def chunk_of(work: Work) -> int:
    """Responses a chunk of some work, from the memory available."""
    given = (work.inputs.responses, work.inputs.weights, work.inputs.offset)
    return chunk_size(work.data, sum(source is not None for source in given))


def plan(
    path: Path, parts: Path, task: dict[str, Any], total: int, size: int, resume: bool, chosen: bool
) -> dict[str, Any]:
    """What is to be done, in JSON.

    Returns
    -------
    chunk : responses, or markers, a part.
    count : number of parts; done, todo : numbers of those which are written, and of those which are not.
    digests : of all values by name, where the results are joined already, else None.

    Parameters
    ----------
    total : of responses, or markers; size, resume, chosen : as for `lmmjax.stream.manifest.begin`.
    """
    if resume and not parts.exists() and path.exists():
        found = finished(path, task)
        count = len(ranges(total, found["chunk"]))
        return found | {"count": count, "done": list(range(count)), "todo": []}
    chunk = begin(parts, task, size, resume, chosen)
    count = len(ranges(total, chunk))
    done = [k for k in range(count) if stamp_of(parts, k) is not None]
    todo = sorted(set(range(count)) - set(done))
    return {"chunk": chunk, "count": count, "done": done, "todo": todo, "digests": None}
