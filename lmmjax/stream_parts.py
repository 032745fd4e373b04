"""The files of a streamed batch: the manifest of what is fitted, a part for every chunk, the result.

A chunk's results go to `OUT.parts/part-000000.parquet` under a temporary name and are renamed when they
are on disk, so that a part which exists is complete. At the end the parts are joined to OUT.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmjax._version import __version__
from lmmjax.sources import Source, pyarrow

if TYPE_CHECKING:
    from lmmjax.model import Model

KEY = b"lmmjax"
"""Where the metadata of OUT keep the manifest."""


# --- what is resumed -------------------------------------------------------------------------------------


def manifest(model: Model, source: Source, reml: bool, **others: Any) -> dict[str, Any]:
    """What a resumed call must share with the one that was killed; `others` are entries of its own."""
    labels, first = _digests(source)
    return {
        "formula": model.formula,
        "method": "REML" if reml else "ML",
        "n_responses": source.n_responses,
        "n_rows": source.n_rows,
        "names of the responses": labels,
        "values of the first response": first,
        "design": fingerprint(model),
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


def fingerprint(model: Model) -> str:
    """Digest of X, Z, groups, weights, offset and the rows kept."""
    design, digest = model.design, hashlib.sha256()
    arrays = [design.x, design.weights, design.offset, model.frame.rows]
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
        found = json.loads(_manifest_path(parts).read_text("utf-8"))
        agree(found, task | {"chunk": chunk} if chosen else task, f"{parts} cannot be resumed, it")
        return found["chunk"]
    parts.mkdir(exist_ok=True)
    temporary = parts / "manifest.tmp"
    temporary.write_text(json.dumps(task | {"chunk": chunk}, indent=2), "utf-8")
    temporary.replace(_manifest_path(parts))
    return chunk


def _manifest_path(parts: Path) -> Path:
    return parts / "manifest.json"


def has_manifest(parts: Path) -> bool:
    """Whether a run has begun in this folder."""
    return _manifest_path(parts).exists()


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


# --- parts -----------------------------------------------------------------------------------------------


def part_path(parts: Path, k: int) -> Path:
    """The file of chunk k."""
    return parts / f"part-{k:06d}.parquet"


def is_done(parts: Path, k: int, count: int) -> bool:
    """Whether chunk k is written, with all of its `count` responses."""
    path = part_path(parts, k)
    return path.exists() and pyarrow("parquet").read_metadata(path).num_rows == count


def write_part(parts: Path, k: int, columns: dict[str, Any]) -> None:
    """Write a part such that it exists only when it is complete."""
    import pyarrow as pa

    path = part_path(parts, k)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        pyarrow("parquet").write_table(pa.table(columns), file, use_dictionary=["status"])
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_behind(parts: Path, results: Iterator[tuple[int, dict[str, Any]]]) -> Generator[int, None, None]:
    """Write the (chunk, columns) of `results`, each by a thread while the next is made.

    Yields the chunks that are on disk. Close it where it is left early: that waits for the one being written.
    """
    with ThreadPoolExecutor(1) as pool:
        before = None
        for k, columns in results:
            begun = k, pool.submit(write_part, parts, k, columns)
            if before is not None:
                before[1].result()
                yield before[0]
            before = begun
        if before is not None:
            before[1].result()
            yield before[0]


def join(parts: Path, path: Path, count: int) -> None:
    """OUT from its parts, one part in memory at a time; the parts go when OUT is complete."""
    parquet = pyarrow("parquet")
    temporary = parts / "joined.tmp"
    metadata = {KEY: _manifest_path(parts).read_bytes()}
    schema = parquet.read_schema(part_path(parts, 0)).with_metadata(metadata)
    with temporary.open("wb") as file:
        with parquet.ParquetWriter(file, schema, use_dictionary=["status"]) as writer:
            for k in range(count):
                writer.write_table(parquet.read_table(part_path(parts, k)).replace_schema_metadata(metadata))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _remove(parts)


def _remove(parts: Path) -> None:
    """Delete the parts: renamed as a whole first, since half a folder would be taken for a run to resume."""
    gone = parts.with_name(parts.name + ".gone")
    shutil.rmtree(gone, ignore_errors=True)
    parts.replace(gone)
    shutil.rmtree(gone)


def count_ends(path: Path) -> tuple[int, int]:
    """(failed, singular) fits among finished results."""
    file, failed, singular = pyarrow("parquet").ParquetFile(path), 0, 0
    for k in range(file.metadata.num_row_groups):
        group = file.read_row_group(k, columns=["status", "is_singular"]).to_pydict()
        failed += sum(status != "converged" for status in group["status"])
        singular += sum(group["is_singular"])
    return failed, singular
