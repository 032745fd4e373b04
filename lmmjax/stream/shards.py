"""A run that is planned once and made shard by shard, by whoever comes: what its folder of parts says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from lmmjax.stream.digests import digest
from lmmjax.stream.files import reading, written_whole
from lmmjax.stream.inputs import parts_of
from lmmjax.stream.lock import locked
from lmmjax.stream.manifest import agree, begin, finished, has_manifest, read_manifest
from lmmjax.stream.parts import count_ends, intact_stamp, join
from lmmjax.stream.portable import absolute
from lmmjax.stream.work import Work, ranges

SHARDS = ("shard", "shards")

FILES = ("design", "responses", "response_weights", "response_offset", "out")
"""Arguments that are paths, kept as absolute ones."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan as it lies on disk.

    Attributes
    ----------
    path, parts : the file of the results, the folder of the parts.
    asked : the arguments of `plan` by name, without what the manifest has.
    manifest : as of `Work`, with "chunk".
    joined : whether there are results and no parts any more.
    """

    path: Path
    parts: Path
    asked: dict[str, Any]
    manifest: dict[str, Any]
    joined: bool = False

    @property
    def n_responses(self) -> int:
        """T."""
        return self.manifest["n_responses"]

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(ranges(self.n_responses, self.manifest["chunk"]))

    def of(self, work: Work) -> Work:
        """The work in the shards of the plan; ValueError if it is no longer what was planned."""
        agree(self.manifest, work.manifest, f"{self.parts} was planned for something else, it")
        return work.cut(self.manifest["chunk"])


def given(**arguments: Any) -> dict[str, Any]:
    """Arguments of `plan` as they are kept, in JSON."""
    return {
        name: absolute(value) if name in FILES and value is not None else value
        for name, value in arguments.items()
    }


def put_plan(path: Path, asked: dict[str, Any], task: dict[str, Any], chunk: int, chosen: bool) -> Planned:
    """Begin a run: its manifest and what was asked for; the same plan again is the one that is there.

    Parameters
    ----------
    task, chunk, chosen : as for `lmmjax.stream.manifest.begin`.

    Raises
    ------
    ValueError : parts of something else are there; another run writes to `path`.
    """
    parts = parts_of(path)
    with locked(path):
        begin(parts, task, chunk, True, chosen)
        asked = asked | {"manifest": digest(read_manifest(parts))}
        with written_whole(_plan_path(parts)) as file:
            file.write(json.dumps(asked, indent=2).encode())
    return planned(path)


def planned(path: Path) -> Planned:
    """The plan of the results `path`; ValueError if there is none, or it is damaged."""
    parts = parts_of(path)
    if not has_manifest(parts) and path.exists():
        return Planned(path, parts, {}, finished(path, {}), True)
    if not has_manifest(parts) or not _plan_path(parts).exists():
        raise ValueError(f"there is no plan in {parts}: begin with lmmjax shards plan … -o {path}")
    with reading(_plan_path(parts), f"delete the folder {parts} and plan again"):
        asked = json.loads(_plan_path(parts).read_bytes())
        if not isinstance(asked, dict) or not {"formula", "design", "responses"} <= set(asked):
            raise ValueError("it is no plan")
    manifest = read_manifest(parts)
    if asked.get("manifest", digest(manifest)) != digest(manifest):
        raise ValueError(
            f"the manifest in {parts} was changed after the plan: delete the folder and plan again"
        )
    return Planned(path, parts, asked, manifest)


def _plan_path(parts: Path) -> Path:
    return parts / "_plan.json"


def states(found: Planned) -> dict[str, list[int]]:
    """Numbers of the shards that are "done", "missing", "damaged" or of another run; all pages are read."""
    run = digest(found.manifest)
    known: dict[str, list[int]] = {"done": [], "missing": [], "damaged": []}
    there = {path.name for path in found.parts.glob("part-*.parquet")}
    for k in range(found.count):
        stamp = intact_stamp(found.parts, k)
        good = stamp is not None and (stamp["run"], stamp["part"]) == (run, k)
        known["done" if good else "damaged" if f"part-{k:06d}.parquet" in there else "missing"].append(k)
    return known


def spelled(numbers: list[int]) -> str:
    """Sorted numbers as schedulers write them: "0-3,7"."""
    pieces: list[list[int]] = []
    for k in numbers:
        if pieces and k == pieces[-1][-1] + 1:
            pieces[-1] = [pieces[-1][0], k]
        else:
            pieces.append([k])
    return ",".join("-".join(map(str, piece)) for piece in pieces)


def end(found: Planned) -> tuple[int, int]:
    """Join the parts; (failed, singular) fits. A run that is joined stays as it is.

    Raises
    ------
    ValueError : shards are missing or damaged, and which; another process joins.
    """
    if not found.joined:
        with locked(found.path):
            known = states(found)
            left = sorted([*known["missing"], *known["damaged"]])
            if left:
                raise ValueError(
                    f"{len(left)} of {found.count} shards are not done: run {spelled(left)}, then join"
                )
            join(found.parts, found.path, found.manifest, found.count)
    return count_ends(found.path)
