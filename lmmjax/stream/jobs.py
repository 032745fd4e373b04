"""A run as the workers of others take it up: a file beside the parts, of which they know name and digest.

Anything with `read`, `stamp` and `columns` of a number, as `work.Work` has them, can be the work.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import threading
from pathlib import Path
from typing import Any, Protocol

from lmmjax.stream.files import written_whole
from lmmjax.stream.manifest import agree_stamps, has_manifest
from lmmjax.stream.parts import intact_stamp, part_path, write_part


class Shards(Protocol):
    """Work that is cut into shards, each a function of its number."""

    def read(self, k: int) -> Any:
        """The values that shard k is made from."""
        ...

    def stamp(self, k: int, values: Any) -> dict[str, Any]:
        """What shard k is made from: "run", "part" and the "digests" of its values by name."""
        ...

    def columns(self, k: int, values: Any) -> dict[str, Any]:
        """The results of shard k, a column each."""
        ...

    def remarks(self, values: Any, columns: dict[str, Any]) -> list[Any]:
        """What is to be said of the results of a shard beside them, in JSON."""
        ...

    def describe(self, k: int) -> str:
        """What shard k is of, for messages: "responses 0 to 99"."""
        ...


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is sent: the folder of parts, and the digest of the work that lies in it."""

    parts: str
    digest: str


WORK = "_work.pickle"


def put_job(parts: Path, work: Shards) -> Job:
    """Write the work beside its parts, whole or not at all."""
    content = pickle.dumps(work)
    with written_whole(parts / WORK) as file:
        file.write(content)
    return Job(str(parts.absolute()), hashlib.sha256(content).hexdigest())


_one_at_a_time = threading.Lock()
_last: dict[Job, Shards] = {}


def make(job: Job, k: int) -> bool:
    """Make part k, in a worker; whether it was not there yet. A process makes one part at a time.

    Raises
    ------
    ValueError : the folder is not there, or the work in it is not what was put; the part is there, made from
        other values.
    """
    with _one_at_a_time:
        if job not in _last:
            _last.clear()
            _last[job] = _work(job)
        return make_part(_last[job], Path(job.parts), k)


def _work(job: Job) -> Shards:
    path = Path(job.parts) / WORK
    if not path.exists():
        raise ValueError(f"{path} is not there: out must be in a folder that all workers share")
    content = path.read_bytes()
    # what is unpickled is what the caller pickled: nobody else's file
    if hashlib.sha256(content).hexdigest() != job.digest:
        raise ValueError(f"{path} is not of this run: another one has begun in its place")
    return pickle.loads(content)


def make_part(work: Shards, parts: Path, k: int, force: bool = False) -> bool:
    """Make part k unless it is there and whole; whether it was made. With `force` it is made in any case.

    Raises
    ------
    ValueError : the part is there, and was made from other values or of another run.
    """
    if not has_manifest(parts):
        raise ValueError(f"{parts} is not there: out must be in a folder that all workers share")
    values = work.read(k)
    stamp = work.stamp(k, values)
    there = None if force else intact_stamp(parts, k)
    if there is not None:
        what = f"{part_path(parts, k)} ({work.describe(k)}) cannot be resumed, it"
        agree_stamps(there, stamp, what)
        return False
    columns = work.columns(k, values)
    write_part(parts, k, columns, remarked(work, stamp, values, columns))
    return True


def remarked(work: Shards, stamp: dict[str, Any], values: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """A stamp, with what is to be said of the results, if anything."""
    remarks = work.remarks(values, columns)
    return stamp | {"remarks": remarks} if remarks else stamp
