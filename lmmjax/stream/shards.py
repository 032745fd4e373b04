"""A run that is planned once and made shard by shard, by whoever comes: what its folder of parts says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmmjax.stream.carry import AnyCut
from lmmjax.stream.digests import digest, digest_file
from lmmjax.stream.files import reading, written_whole
from lmmjax.stream.inputs import parts_of
from lmmjax.stream.lock import locked
from lmmjax.stream.manifest import agree, begin, finished, has_manifest, read_manifest
from lmmjax.stream.parts import Reduce, intact_stamp, join
from lmmjax.stream.portable import absolute
from lmmjax.stream.stores import split_path
from lmmjax.stream.work import ranges

SHARDS = ("shard", "shards")

FILES = (
    "design",
    "data",
    "responses",
    "response_weights",
    "response_offset",
    "markers",
    "chromosomes",
    "out",
)
"""Arguments that are paths, kept as absolute ones."""

PLAN = "_plan.json"


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan as it lies on disk.

    Attributes
    ----------
    path, parts : the file of the results, the folder of the parts; the same where parts are the results.
    asked : the arguments of the plan by name, without what the manifest has.
    manifest : as of `lmmjax.stream.carry.Cut`, with "chunk".
    joined : whether there are results and no parts any more.
    """

    path: Path
    parts: Path
    asked: dict[str, Any]
    manifest: dict[str, Any]
    joined: bool = False

    @property
    def unit(self) -> str:
        """What shards are ranges of: "responses", of a scan "markers"."""
        return "markers" if "n_markers" in self.manifest else "responses"

    @property
    def total(self) -> int:
        """How many of these there are."""
        return self.manifest[f"n_{self.unit}"]

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(ranges(self.total, self.manifest["chunk"]))

    def require_files(self) -> None:
        """ValueError for a file that was changed since the plan."""
        for path, before in self.asked.get("files", {}).items():
            if digest_file(Path(path)) != before:
                raise ValueError(
                    f"{path} was changed after the plan: restore it, or delete the folder {self.parts} and "
                    "plan again"
                )

    def of(self, work: AnyCut) -> AnyCut:
        """The work in the shards of the plan; ValueError if it is no longer what was planned."""
        agree(self.manifest, work.manifest, f"{self.parts} was planned for something else, it")
        return work.cut(self.manifest["chunk"])


def given(read: tuple[str, ...], **arguments: Any) -> dict[str, Any]:
    """Arguments of a plan as they are kept, in JSON; `read` are those that are files which shards read."""
    own = {
        name: absolute(value) if name in FILES and value is not None else value
        for name, value in arguments.items()
    }
    paths = [split_path(str(own[name]))[0] for name in read if own.get(name) is not None]
    return own | {"files": {str(path): digest_file(path) for path in paths if path.is_file()}}


def put_plan(
    path: Path,
    parts: Path,
    asked: dict[str, Any],
    task: dict[str, Any],
    chunk: int,
    chosen: bool,
    beside: Callable[[Path], None] | None = None,
) -> Planned:
    """Begin a run: its manifest and what was asked for; the same plan again is the one that is there.

    Parameters
    ----------
    path, parts : as of `Planned`.
    task, chunk, chosen : as for `lmmjax.stream.manifest.begin`.
    beside : writes what else shards read to the folder of parts, unless it is there.

    Raises
    ------
    ValueError : parts of something else are there; another run writes to `path`.
    """
    with locked(path):
        begin(parts, task, chunk, True, chosen)
        if (parts / PLAN).exists():
            before = planned(path)
            # of files that have moved nothing is known
            dataclasses.replace(before, asked={"files": _shared(before.asked, asked)}).require_files()
        if beside is not None:
            beside(parts)
        asked = asked | {"manifest": digest(read_manifest(parts))}
        with written_whole(parts / PLAN) as file:
            file.write(json.dumps(asked, indent=2).encode())
    return planned(path)


def _shared(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """The digests of the files of a plan that another has, too."""
    return {path: own for path, own in before.get("files", {}).items() if path in now.get("files", {})}


def planned(path: Path) -> Planned:
    """The plan of the results `path`; ValueError if there is none, or it is damaged."""
    parts = path if path.is_dir() else parts_of(path)
    if not has_manifest(parts) and path.is_file():
        return Planned(path, parts, {}, finished(path, {}), True)
    if not has_manifest(parts) or not (parts / PLAN).exists():
        raise ValueError(f"there is no plan in {parts}: begin with lmmjax shards plan … -o {path}")
    with reading(parts / PLAN, f"delete the folder {parts} and plan again"):
        asked = json.loads((parts / PLAN).read_bytes())
        if not isinstance(asked, dict) or not {"formula", "manifest"} <= set(asked):
            raise ValueError("it is no plan")
    manifest = read_manifest(parts)
    if asked["manifest"] != digest(manifest):
        raise ValueError(
            f"the manifest in {parts} was changed after the plan: delete the folder and plan again"
        )
    return Planned(path, parts, asked, manifest)


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


def end(found: Planned, reduce: Reduce | None = None) -> None:
    """Join the parts; a run that is joined, and one whose parts are the results, stay as they are.

    Parameters
    ----------
    reduce : as for `lmmjax.stream.parts.join`.

    Raises
    ------
    ValueError : shards are missing or damaged, and which; another process joins.
    """
    if found.joined:
        return
    with locked(found.path):
        known = states(found)
        left = sorted([*known["missing"], *known["damaged"]])
        if left:
            raise ValueError(
                f"{len(left)} of {found.count} shards are not done: run {spelled(left)}, then join"
            )
        if found.path != found.parts:
            join(found.parts, found.path, found.manifest, found.count, reduce)
