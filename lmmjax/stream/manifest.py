"""The manifest of a streamed batch: what is fitted, which a resumed call must share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax._version import __version__
from lmmjax.fitted import ModelData
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.sources import Source

KEY = b"lmmjax"
"""Where the metadata of OUT keep the manifest."""


def manifest(data: ModelData, source: Source, reml: bool, **others: Any) -> dict[str, Any]:
    """What a resumed call must share with the one that was killed; `others` are entries of its own."""
    labels, first = _digests(source)
    return {
        "formula": data.formula,
        "method": "REML" if reml else "ML",
        "n_responses": source.n_responses,
        "n_rows": source.n_rows,
        "names of the responses": labels,
        "values of the first response": first,
        "design": fingerprint(data),
        **{name: source_digest(o) if isinstance(o, Source) else o for name, o in others.items()},
        "version of lmmjax": __version__,
    }


def _digests(source: Source) -> tuple[str, str]:
    """Of the names and of the first column."""
    labels = hashlib.sha256()
    for name in source.names:
        labels.update(f"{name}\0".encode())
    first = np.ascontiguousarray(source.read(0, 1))
    return labels.hexdigest(), hashlib.sha256(first.tobytes()).hexdigest()


def source_digest(source: Source) -> str:
    """Digest of shape, names and first column."""
    text = " ".join([str((source.n_rows, source.n_responses)), *_digests(source)])
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(data: ModelData) -> str:
    """Digest of X, Z, groups, weights, offset and the rows kept."""
    design, digest = data.design, hashlib.sha256()
    arrays = [design.x, design.weights, design.offset, data.frame.rows]
    for term in design.terms:
        digest.update(f"{type(term.family).__name__} {term.n_groups}".encode())
        arrays += [term.z, term.codes]
    for array in arrays:
        digest.update(b"none" if array is None else str(np.shape(array)).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def begin(parts: Path, task: dict[str, Any], chunk: int, resume: bool, chosen: bool) -> int:
    """Make the folder of parts, or check that it is of this task; the responses a chunk.

    Parameters
    ----------
    chosen : the user chose `chunk`, so that what is resumed must have the same.
    """
    if has_manifest(parts):
        if not resume:
            raise ValueError(
                f"{parts} holds parts of a run that did not end: resume it, or delete the folder"
            )
        found = json.loads(manifest_path(parts).read_text("utf-8"))
        agree(found, task | {"chunk": chunk} if chosen else task, f"{parts} cannot be resumed, it")
        return found["chunk"]
    parts.mkdir(exist_ok=True)
    temporary = parts / "manifest.tmp"
    temporary.write_text(json.dumps(task | {"chunk": chunk}, indent=2), "utf-8")
    temporary.replace(manifest_path(parts))
    return chunk


def manifest_path(parts: Path) -> Path:
    """The file of the manifest."""
    return parts / "manifest.json"


def has_manifest(parts: Path) -> bool:
    """Whether a run has begun in this folder."""
    return manifest_path(parts).exists()


def agree(found: dict[str, Any], task: dict[str, Any], what: str) -> None:
    """ValueError if an entry of the task was found to be another: "`what` differs in the ..."."""
    for name, value in task.items():
        there = found.get(name)
        if there != value:
            digest = any(isinstance(v, str) and len(v) == 64 for v in (there, value))
            values = "" if digest else f": {there!r} there, {value!r} here"
            raise ValueError(f"{what} differs in the {name}{values}")


def check_finished(path: Path, task: dict[str, Any]) -> None:
    """ValueError unless the results in `path` are those of this task."""
    metadata = pyarrow("parquet").read_schema(path).metadata or {}
    if KEY not in metadata:
        raise ValueError(f"{path} exists and is no result of a batch: nothing to resume")
    agree(json.loads(metadata[KEY]), task, f"{path} cannot be resumed, it")
