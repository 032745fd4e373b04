"""The manifest of a streamed batch: what is fitted, which a resumed call must share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmmjax._version import __version__
from lmmjax.fitted import ModelData
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.files import reading, written_whole
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
    return digest([str(name) for name in source.names]), digest_columns(source.read(0, 1))


def source_digest(source: Source) -> str:
    """Digest of shape, names and first column."""
    return digest(source.n_rows, source.n_responses, *_digests(source))


def fingerprint(data: ModelData) -> str:
    """Digest of the design with its families, of what is reported in which units, rows kept, and names."""
    frame = data.frame
    names = [frame.x_names, [(term.text, term.group, term.names) for term in frame.random]]
    return digest(data.design, data.components, data.backend, frame.rows, names)


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
        found = read_manifest(parts)
        agree(found, task | {"chunk": chunk} if chosen else task, f"{parts} cannot be resumed, it")
        return found["chunk"]
    _require_empty(parts)
    parts.mkdir(exist_ok=True)
    with written_whole(manifest_path(parts)) as file:
        file.write(json.dumps(task | {"chunk": chunk}, indent=2).encode())
    return chunk


def read_manifest(parts: Path) -> dict[str, Any]:
    """The manifest of a run; ValueError, with what to delete, if it is damaged."""
    path = manifest_path(parts)
    with reading(path, f"delete the folder {parts} and run again"):
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or not isinstance(found.get("chunk"), int) or found["chunk"] < 1:
            raise ValueError("it is no manifest")
    return found


def _require_empty(parts: Path) -> None:
    """ValueError if the folder has something, but no manifest that says of which run."""
    if parts.exists() and not parts.is_dir():
        raise ValueError(f"{parts} is no folder, and parts of the results belong there: rename or delete it")
    there = (
        [path.name for path in parts.iterdir() if not path.name.endswith(".tmp")] if parts.exists() else []
    )
    if there:
        raise ValueError(
            f"{parts} has {len(there)} files, such as {min(there)}, but no {manifest_path(parts).name} that "
            "says of which run: delete the folder, or name another file as out"
        )


def manifest_path(parts: Path) -> Path:
    """The file of the manifest; readers of folders of Parquet files pass over names that begin so."""
    return parts / "_manifest.json"


def has_manifest(parts: Path) -> bool:
    """Whether a run has begun in this folder."""
    return manifest_path(parts).exists()


def agree(found: dict[str, Any], task: dict[str, Any], what: str, of: str = "") -> None:
    """ValueError if an entry of the task was found to be another: "`what` differs in the `of`NAME"."""
    for name, value in task.items():
        there = found.get(name)
        if there != value:
            digest = any(isinstance(v, str) and len(v) == 64 for v in (there, value))
            values = "" if digest else f": {there!r} there, {value!r} here"
            raise ValueError(f"{what} differs in the {of}{name}{values}")


def agree_stamps(there: dict[str, Any], now: dict[str, Any], what: str) -> None:
    """ValueError if a part was made from something else than it would be now."""
    agree(there, {name: now[name] for name in ("run", "part")}, what)
    agree(there.get("digests", {}), now["digests"], what, "values of the ")


def finished(path: Path, task: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the results in `path`, with "digests"; ValueError unless they are of this task."""
    with reading(path, f"delete {path} and run again"):
        metadata = pyarrow("parquet").read_schema(path).metadata or {}
        found = json.loads(metadata.get(KEY, b"{}"))
    if not isinstance(found, dict) or "digests" not in found or "chunk" not in found:
        raise ValueError(f"{path} exists and is no result of a batch: nothing to resume")
    agree(found, task, f"{path} cannot be resumed, it")
    return found
