"""A run from its plan to its parts and its results: made here or by workers, resumed after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from lmmjax.fitted import require_count, require_switch
from lmmjax.stream.chunks import plan
from lmmjax.stream.digests import combine
from lmmjax.stream.executors import completed, require_executor
from lmmjax.stream.jobs import Shards, make, put_job, remarked
from lmmjax.stream.lock import locked
from lmmjax.stream.manifest import agree, agree_stamps
from lmmjax.stream.parts import Reduce, Result, join, part_path, stamp_of, write_behind


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a run is carried out.

    Attributes
    ----------
    resume : whether what a killed run left is continued; chunk : most responses, or markers, a part, or None.
    executor : whose workers make the parts, or None; progress : called with how many are done and in all.

    Raises
    ------
    ValueError : one of them is not what it should be.
    """

    resume: bool = False
    chunk: int | None = None
    executor: Any = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        require_switch("resume", self.resume)
        if self.chunk is not None:
            object.__setattr__(self, "chunk", require_count("chunk", self.chunk))
        if self.executor is not None:
            require_executor(self.executor)


class Cut(Shards, Protocol):
    """Work on so many responses, or markers, of which a shard has a range."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What a resumed call must share, with "chunk" once the work is cut."""
        ...

    @property
    def total(self) -> int:
        """How many responses, or markers, there are."""
        ...

    def span(self, k: int) -> tuple[int, int]:
        """Those [start, stop) of shard k."""
        ...

    def cut(self, chunk: int) -> Self:
        """The work in shards of at most so many."""
        ...


AnyCut = TypeVar("AnyCut", bound=Cut)


@contextlib.contextmanager
def carried_out(
    asked: AnyCut,
    path: Path,
    parts: Path,
    how: Conduct,
    *,
    size: Callable[[AnyCut], int],
    portable: Callable[[AnyCut], Shards],
    reduce: Reduce | None = None,
) -> Iterator[int]:
    """Make all parts, and join them to `path` unless that is their folder; `path` is locked until the end.

    Yields how many of the total were done before.

    Parameters
    ----------
    size : the chunk by default; portable : makes work that pickles, for the workers of an executor.
    reduce : as for `join`.

    Raises
    ------
    ValueError : what is resumed was something else, or is damaged; another run writes to `path`.
    ShardError : no worker could make a shard.
    """
    with locked(path):
        chunk, chosen = how.chunk or size(asked), how.chunk is not None
        planned = plan(path, parts, asked.manifest, asked.total, chunk, how.resume, chosen)
        work, todo = asked.cut(planned["chunk"]), planned["todo"]
        _check_done(work, path, parts, planned)
        total = work.total
        done = resumed = total - _count(work, todo)
        report = how.progress or (lambda done, total: None)
        report(done, total)
        if how.executor is None:
            made = write_behind(parts, _results(work, todo))
        else:
            made = _made(how.executor, work, parts, todo, portable)
        with contextlib.closing(made) as written:
            for k in written:
                done += _count(work, [k])
                report(done, total)
        if planned["digests"] is None and path != parts:
            join(parts, path, work.manifest, planned["count"], reduce)
        yield resumed


def _made(
    executor: Any, work: AnyCut, parts: Path, todo: list[int], portable: Callable[[AnyCut], Shards]
) -> Generator[int, None, None]:
    """Parts that the workers of an executor make, as they are there."""
    if todo:
        job = put_job(parts, portable(work))
        yield from completed(executor, make, (job,), todo)


def _check_done(work: Cut, path: Path, parts: Path, planned: dict[str, Any]) -> None:
    """ValueError unless what is done was made from the values there are now."""
    stamps = []
    for k, values in _read_ahead(work, planned["done"]):
        stamps.append(work.stamp(k, values))
        if planned["digests"] is None:
            what = f"{part_path(parts, k)} ({work.describe(k)}) cannot be resumed, it"
            agree_stamps(stamp_of(parts, k) or {}, stamps[-1], what)
    if planned["digests"] is not None:
        now = combine(stamp["digests"] for stamp in stamps)
        agree(planned["digests"], now, f"{path} cannot be resumed, it", "values of the ")


def _count(work: Cut, chunks: list[int]) -> int:
    """Responses, or markers, in some chunks."""
    return sum(stop - start for start, stop in map(work.span, chunks))


def _results(work: Cut, todo: list[int]) -> Iterator[Result]:
    """The results of each chunk, while the next one is read."""
    for k, values in _read_ahead(work, todo):
        columns, stamp = work.columns(k, values), work.stamp(k, values)
        stamp = remarked(work, stamp, values, columns)
        del values
        yield k, columns, stamp


def _read_ahead(work: Cut, todo: list[int]) -> Iterator[tuple[int, Any]]:
    """(chunk, values) of each, the next being read by a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(work.read, k) for k in todo[:1]]
        for i, k in enumerate(todo):
            values = coming.pop().result()
            coming += [pool.submit(work.read, after) for after in todo[i + 1 : i + 2]]
            yield k, values
            del values
