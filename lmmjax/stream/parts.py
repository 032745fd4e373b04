"""The files of a streamed batch: a part for every chunk, and the result that they are joined to.

A chunk's results go to `OUT.parts/part-000000.parquet`, with a stamp in the metadata of the file that says
what they were made from. A part that exists is complete. At the end the parts are joined to OUT.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lmmjax.stream.digests import combine, digest
from lmmjax.stream.files import reading, written_whole
from lmmjax.stream.manifest import KEY
from lmmjax.stream.packages import pyarrow

DICTIONARIES = ("status", "marker", "response", "term")
"""Columns whose values repeat; those of `response` do in scans."""

Reduce = Callable[[Iterator[Any]], Iterator[Any]]
"""From the tables of the parts in their order to those of the results."""


def written(names: list[str]) -> dict[str, Any]:
    """How Parquet files with columns of some names are written; a damaged page does not pass for results."""
    own = [name for name in DICTIONARIES if name in names and (name != "response" or "marker" in names)]
    return {"use_dictionary": own, "write_page_checksum": True}


def part_path(parts: Path, k: int) -> Path:
    """The file of chunk k."""
    return parts / f"part-{k:06d}.parquet"


def stamp_of(parts: Path, k: int) -> dict[str, Any] | None:
    """What part k was made from, as it was written with it; None if there is no such part.

    Raises
    ------
    ValueError : the part is damaged; names it.
    """
    path = part_path(parts, k)
    if not path.exists():
        return None
    with _reading(path):
        return json.loads((pyarrow("parquet").read_schema(path).metadata or {})[KEY])


def intact_stamp(parts: Path, k: int) -> dict[str, Any] | None:
    """The stamp of part k, of which every page was read; None if there is none, or it is damaged."""
    try:
        stamp = stamp_of(parts, k)
        if stamp is not None:
            with _reading(part_path(parts, k)):
                pyarrow("parquet").read_table(part_path(parts, k), page_checksum_verification=True)
    except (ValueError, FileNotFoundError):
        return None
    return stamp if isinstance(stamp, dict) and {"run", "part", "digests"} <= set(stamp) else None


def write_part(parts: Path, k: int, columns: dict[str, Any], stamp: dict[str, Any]) -> None:
    """Write a part with its stamp, such that it exists only when it is complete."""
    import pyarrow as pa

    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(stamp).encode()})
    with written_whole(part_path(parts, k)) as file:
        pyarrow("parquet").write_table(table, file, **written(table.column_names))


Result = tuple[int, dict[str, Any], dict[str, Any]]
"""Number of a part, its columns and its stamp."""


def write_behind(parts: Path, results: Iterator[Result]) -> Generator[int, None, None]:
    """Write the parts of `results`, each by a thread while the next is made.

    Yields the numbers of those that are on disk. Close it where it is left early: that waits for the one
    being written.
    """
    with ThreadPoolExecutor(1) as pool:
        before = None
        for k, columns, stamp in results:
            begun = k, pool.submit(write_part, parts, k, columns, stamp)
            if before is not None:
                before[1].result()
                yield before[0]
            before = begun
        if before is not None:
            before[1].result()
            yield before[0]


def join(parts: Path, path: Path, manifest: dict[str, Any], count: int, reduce: Reduce | None = None) -> None:
    """OUT from its parts, one part in memory at a time; the parts go when OUT is complete.

    Raises
    ------
    ValueError : a part is missing, damaged or of another run; names it, and the others stay.
    """
    parquet, run = pyarrow("parquet"), digest(manifest)
    digests, remarks = [], []
    for k in range(count):
        stamp = stamp_of(parts, k)
        if stamp is None or (stamp["run"], stamp["part"]) != (run, k):
            what = "is not there" if stamp is None else "is of another run: delete it"
            raise ValueError(f"{part_path(parts, k)} {what}, and resume, which makes it again")
        digests.append(stamp["digests"])
        remarks += stamp.get("remarks", [])
    said = manifest | {"digests": combine(digests)} | ({"remarks": remarks} if remarks else {})
    metadata = {KEY: json.dumps(said).encode()}
    tables = _tables(parts, count)
    with written_whole(path) as file, contextlib.ExitStack() as open_files:
        writer = None
        for table in tables if reduce is None else reduce(tables):
            own = table.replace_schema_metadata(metadata)
            if writer is None:
                opened = parquet.ParquetWriter(file, own.schema, **written(own.column_names))
                writer = open_files.enter_context(opened)
            writer.write_table(own)
    _remove(parts)


def remarks_of(files: list[Path]) -> list[Any]:
    """What was said of results beside them, of their file or of all parts."""
    found = []
    for file in files:
        with _reading(file):
            found += json.loads((pyarrow("parquet").read_schema(file).metadata or {})[KEY]).get("remarks", [])
    return found


def _tables(parts: Path, count: int) -> Iterator[Any]:
    """The table of every part, its pages checked."""
    for k in range(count):
        with _reading(part_path(parts, k)):
            table = pyarrow("parquet").read_table(part_path(parts, k), page_checksum_verification=True)
        yield table


def _reading(part: Path) -> contextlib.AbstractContextManager[None]:
    return reading(part, f"delete {part} and resume, which makes it again")


def _remove(parts: Path) -> None:
    """Delete the parts: renamed as a whole first, since half a folder would be taken for a run to resume."""
    gone = parts.with_name(parts.name + ".gone")
    shutil.rmtree(gone, ignore_errors=True)
    parts.replace(gone)
    shutil.rmtree(gone)


def count_ends(path: Path) -> tuple[int, int]:
    """(failed, singular) fits among finished results; ValueError if they are damaged."""
    failed = singular = 0
    with reading(path, f"delete {path} and run again"):
        file = pyarrow("parquet").ParquetFile(path, page_checksum_verification=True)
        for k in range(file.metadata.num_row_groups):
            # all columns, so that no damage stays unseen
            group = file.read_row_group(k).select(["status", "is_singular"]).to_pydict()
            failed += sum(status != "converged" for status in group["status"])
            singular += sum(group["is_singular"])
    return failed, singular
