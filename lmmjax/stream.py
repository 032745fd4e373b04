"""Batches larger than memory: responses read in chunks, results written to Parquet, resumed after a kill.

A chunk's results go to `OUT.parts/part-000000.parquet` under a temporary name and are renamed when they
are on disk, so that a part which exists is complete. At the end the parts are joined to OUT.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax._version import __version__
from lmmjax.batch import FEW
from lmmjax.lanes import lane_count
from lmmjax.sources import Source, open_source, pyarrow

if TYPE_CHECKING:
    from lmmjax.batchfit import BatchFit
    from lmmjax.model import Model

COPIES = 8
"""Copies of a chunk alive at once: two chunks, each as read, as floats and as rows of the model; blocks."""

SHARE = 0.25
"""Part of the available memory that these copies may take."""

BLOCKS = 16
"""Most calls of the engine (`lmmjax.batch.lane_count` responses each) in a chunk."""

KEY = b"lmmjax"
"""Where the metadata of OUT keep the manifest."""


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What `stream_batch` did.

    Attributes
    ----------
    path : the Parquet file of results.
    n_responses : T; `n_fitted` of them in this call, the others before it was resumed.
    n_failed, n_singular : responses that could not be fitted; fits on the boundary.
    """

    path: Path
    n_responses: int
    n_fitted: int
    n_failed: int
    n_singular: int


def stream_batch(
    model: Model,
    source: Any,
    out: str | Path,
    *,
    reml: bool = True,
    chunk: int | None = None,
    resume: bool = False,
    index: str | None = None,
    layer: str | None = None,
    rows: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Streamed:
    """Fit `model` to every response of `source` and write the results to the Parquet file `out`.

    Two chunks are in memory at a time: the one being fitted and the one being read. The result has a row a
    response: response, `estimate:NAME se:NAME t:NAME p:NAME` for each fixed effect (normal p-values), the
    standard deviations and correlations as `sd_(Intercept)|g`, `cor_x.(Intercept)|g` and `sigma`, deviance,
    status, is_singular and n_iter. Responses that cannot be fitted have their status and missing numbers.

    Parameters
    ----------
    source, index, layer, rows : as for `lmmjax.sources.open_source`; what is
        read has the rows that `Model.fit_batch` asks for.
    chunk : most responses a chunk; by default what fits a quarter of the memory available.
    resume : continue what a killed call with the same arguments left in `OUT.parts`.
    progress : called as progress(done, total) at the start and after each chunk.

    Raises
    ------
    ValueError : the source is not one, its rows do not match, or what is resumed was something else.
    """
    path = Path(out)
    if path.is_dir() or (isinstance(source, str | Path) and Path(source).resolve() == path.resolve()):
        raise ValueError(
            f"{path} is {'a folder' if path.is_dir() else 'the input'}: name another file as out"
        )
    source = open_source(source, index=index, layer=layer, rows=rows)
    _check_rows(model, source)
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    task = _manifest(model, source, reml)
    parts = path.with_name(path.name + ".parts")
    if resume and not parts.exists() and path.exists():
        _agree(_finished(path), task, None, path)
        return _report(path, 0, progress)
    chunk = _begin(parts, task, chunk or chunk_size(model), resume, chunk is not None)
    todo = [
        (k, a, b) for k, (a, b) in enumerate(ranges(source.n_responses, chunk)) if not _done(parts, k, b - a)
    ]
    fitted = sum(b - a for _, a, b in todo)
    done = source.n_responses - fitted
    if progress is not None:
        progress(done, source.n_responses)
    for (k, start, stop), values in _read_ahead(source, todo):
        with warnings.catch_warnings():
            # one warning counts the failures of all chunks
            warnings.filterwarnings("ignore", message=".*could not be fitted")
            fits = model.fit_batch(values, reml)
        _write(part_path(parts, k), result_columns(fits, source.names[start:stop]))
        del fits, values
        done += stop - start
        if progress is not None:
            progress(done, source.n_responses)
    _join(parts, path, len(ranges(source.n_responses, chunk)))
    return _report(path, fitted)


def ranges(total: int, chunk: int) -> list[tuple[int, int]]:
    """The responses [start, stop) of each chunk: as few chunks as possible, of sizes that differ by 1."""
    count = -(-total // chunk)
    edges = [total * k // count for k in range(count + 1)]
    return list(pairwise(edges))


def chunk_size(model: Model) -> int:
    """Responses a chunk, from the memory available."""
    shared = model.maker.prepared.shared
    # a response has its values on the rows, and a few vectors of the engine
    bytes_each = COPIES * 8 * (model.design.n + model.frame.n_dropped + 4 * shared.vector)
    most = FEW if shared.sequential else BLOCKS * lane_count(shared.vector)
    return int(np.clip(SHARE * available_memory() / bytes_each, 1, most))


def available_memory() -> int:
    """Bytes that can be had without swapping: of the machine, and of the control group that limits it."""
    found = [4 << 30]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(limit - used, 0))
    return min(found)


def result_columns(fits: BatchFit, names: pd.Index) -> dict[str, Any]:
    """The results of some responses, a column each: fixed effects, variance components, how the fit ended."""
    numbers = pd.api.types.is_integer_dtype(names.dtype)
    columns: dict[str, Any] = {"response": np.asarray(names) if numbers else [str(name) for name in names]}
    tables = {"estimate": fits.params, "se": fits.bse, "t": fits.tvalues, "p": fits.pvalues}
    for k, term in enumerate(fits.model.frame.x_names):
        columns |= {f"{what}:{term}": table.to_numpy()[:, k] for what, table in tables.items()}
    columns |= {str(name): values.to_numpy() for name, values in fits.sdcor.items()}
    return columns | {
        "deviance": fits.deviance,
        "status": fits.status.to_numpy(),
        "is_singular": fits.is_singular.to_numpy(),
        "n_iter": np.asarray(fits.estimate.n_iter, dtype=np.int32),
    }


def part_path(parts: Path, k: int) -> Path:
    """The file of chunk k."""
    return parts / f"part-{k:06d}.parquet"


def _check_rows(model: Model, source: Source) -> None:
    n, dropped = model.design.n, model.frame.n_dropped
    if source.n_rows not in (n, n + dropped):
        without = f" ({n} without those that have missing values)" if dropped else ""
        raise ValueError(
            f"responses have {source.n_rows} rows; the data of the design have {n + dropped}{without}: one "
            "row a row of the design is needed, one column a response"
        )


def _read_ahead(source: Source, todo: list[tuple[int, int, int]]) -> Iterator[tuple[Any, np.ndarray]]:
    """(chunk, values) of each, the next being read by a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(source.read, *item[1:]) for item in todo[:1]]
        for k, item in enumerate(todo):
            values = coming.pop().result()
            coming += [pool.submit(source.read, *after[1:]) for after in todo[k + 1 : k + 2]]
            yield item, values
            del values


# --- what is resumed -------------------------------------------------------------------------------------


def _manifest(model: Model, source: Source, reml: bool) -> dict[str, Any]:
    """What a resumed call must share with the one that was killed."""
    labels = hashlib.sha256()
    for name in source.names:
        labels.update(f"{name}\0".encode())
    first = np.ascontiguousarray(source.read(0, 1))
    return {
        "formula": model.formula,
        "method": "REML" if reml else "ML",
        "n_responses": source.n_responses,
        "n_rows": source.n_rows,
        "names of the responses": labels.hexdigest(),
        "values of the first response": hashlib.sha256(first.tobytes()).hexdigest(),
        "design": fingerprint(model),
        "version of lmmjax": __version__,
    }


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


def _begin(parts: Path, task: dict[str, Any], chunk: int, resume: bool, chosen: bool) -> int:
    """Make the folder of parts, or check that it is of this task; the responses a chunk."""
    manifest = parts / "manifest.json"
    if manifest.exists():
        if not resume:
            raise ValueError(
                f"{parts} holds parts of a run that did not end: resume it, or delete the folder"
            )
        found = json.loads(manifest.read_text("utf-8"))
        _agree(found, task, chunk if chosen else None, parts)
        return found["chunk"]
    parts.mkdir(exist_ok=True)
    temporary = parts / "manifest.tmp"
    temporary.write_text(json.dumps(task | {"chunk": chunk}, indent=2), "utf-8")
    temporary.replace(manifest)
    return chunk


def _agree(found: dict[str, Any], task: dict[str, Any], chunk: int | None, where: Path) -> None:
    wanted = task if chunk is None else task | {"chunk": chunk}
    for name, value in wanted.items():
        if found.get(name) != value:
            digest = isinstance(value, str) and len(value) == 64
            what = "" if digest else f": {found.get(name)!r} there, {value!r} here"
            raise ValueError(f"{where} cannot be resumed, it differs in the {name}{what}")


def _finished(path: Path) -> dict[str, Any]:
    """The manifest in the metadata of finished results."""
    metadata = pyarrow("parquet").read_schema(path).metadata or {}
    if KEY not in metadata:
        raise ValueError(f"{path} exists and is no result of a batch: nothing to resume")
    return json.loads(metadata[KEY])


# --- files -----------------------------------------------------------------------------------------------


def _write(path: Path, columns: dict[str, Any]) -> None:
    """Write a part such that it exists only when it is complete."""
    import pyarrow as pa

    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        pyarrow("parquet").write_table(pa.table(columns), file, use_dictionary=["status"])
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _done(parts: Path, k: int, count: int) -> bool:
    """Whether chunk k is written, with all of its `count` responses."""
    path = part_path(parts, k)
    return path.exists() and pyarrow("parquet").read_metadata(path).num_rows == count


def _join(parts: Path, path: Path, count: int) -> None:
    """OUT from its parts, one part in memory at a time; the parts go when OUT is complete."""
    parquet = pyarrow("parquet")
    temporary = parts / "joined.tmp"
    manifest = (parts / "manifest.json").read_bytes()
    schema = parquet.read_schema(part_path(parts, 0)).with_metadata({KEY: manifest})
    with temporary.open("wb") as file:
        with parquet.ParquetWriter(file, schema, use_dictionary=["status"]) as writer:
            for k in range(count):
                writer.write_table(
                    parquet.read_table(part_path(parts, k)).replace_schema_metadata({KEY: manifest})
                )
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


def _report(path: Path, fitted: int, progress: Callable[[int, int], None] | None = None) -> Streamed:
    """Count how the fits of finished results ended, and warn of failures."""
    file = pyarrow("parquet").ParquetFile(path)
    total, failed, singular = file.metadata.num_rows, 0, 0
    for k in range(file.metadata.num_row_groups):
        group = file.read_row_group(k, columns=["status", "is_singular"]).to_pydict()
        failed += sum(status != "converged" for status in group["status"])
        singular += sum(group["is_singular"])
    if progress is not None:
        progress(total, total)
    if failed:
        warnings.warn(
            f"{failed} of {total} responses could not be fitted; see the column status of {path}",
            stacklevel=3,
        )
    return Streamed(path, total, fitted, failed, singular)
