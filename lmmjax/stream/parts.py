"""The files of a streamed batch: a part for every chunk, and the result that they are joined to.

A chunk's results go to `OUT.parts/part-000000.parquet` under a temporary name and are renamed when they
are on disk, so that a part which exists is complete. At the end the parts are joined to OUT.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lmmjax.stream.manifest import KEY, manifest_path
from lmmjax.stream.packages import pyarrow


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
    metadata = {KEY: manifest_path(parts).read_bytes()}
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
