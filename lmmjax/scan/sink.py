"""Scans whose results go to Parquet: parts of a range of markers each, resumed after a kill, made by workers.

A part is a function of the manifest and its number, as those of streamed batches (`lmmjax.stream`) are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax._version import __version__
from lmmjax.arrays.compile import compiled_at_once
from lmmjax.arrays.memory import available_memory
from lmmjax.arrays.sparse_columns import pieces
from lmmjax.fitted import Fitted, require_count, require_switch
from lmmjax.scan.keep import Top
from lmmjax.scan.nulls import Nulls
from lmmjax.scan.opened import portable_markers
from lmmjax.scan.pairs import Pairs
from lmmjax.scan.task import Task
from lmmjax.stream.carry import carry_out
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.executors import require_executor
from lmmjax.stream.files import target
from lmmjax.stream.inputs import out_path
from lmmjax.stream.jobs import WORK
from lmmjax.stream.lock import locked
from lmmjax.stream.manifest import fingerprint
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.work import span

ROWS, NUMBERS = 1 << 19, 1 << 24
"""Most rows of a part, and numbers of the markers that it is made from."""

SHARE = 0.05
"""Part of the available memory that the markers of a part may take."""

Block = tuple[np.ndarray, np.ndarray]
"""Places of markers (k,), and their values (N, k)."""


@dataclasses.dataclass(frozen=True)
class Scanned:
    """What a scan with a sink did.

    Attributes
    ----------
    path : the Parquet file of the table, or the folder of its parts.
    n_markers, n_responses : M and T; n_rows : rows of the table.
    n_resumed : markers that were done before the run was resumed.
    """

    path: Path
    n_markers: int
    n_responses: int
    n_rows: int
    n_resumed: int = 0

    def read(self, **options: Any) -> pd.DataFrame:
        """The table, or what `options` of `pandas.read_parquet` (columns=, filters=) say of it."""
        return pd.read_parquet(self.path, **options)


@dataclasses.dataclass(frozen=True, eq=False)
class ScanWork:
    """A scan in shards of markers.

    Attributes
    ----------
    task : the scan; manifest : what a resumed call must share, with "chunk" once it is cut.
    """

    task: Task
    manifest: dict[str, Any]

    @property
    def total(self) -> int:
        """M."""
        return len(self.task.markers)

    def span(self, k: int) -> tuple[int, int]:
        """The markers [start, stop) of shard k."""
        return span(self.total, self.manifest["chunk"], k)

    def describe(self, k: int) -> str:
        """Which markers shard k has, for messages."""
        start, stop = self.span(k)
        return f"markers {start} to {stop - 1}"

    def cut(self, chunk: int) -> ScanWork:
        """The scan in shards of at most so many markers."""
        return dataclasses.replace(self, manifest=self.manifest | {"chunk": chunk})

    def read(self, k: int) -> Block:
        """The markers of shard k that no filter leaves out."""
        return self.task.markers.read(*self.span(k))

    def stamp(self, k: int, values: Block) -> dict[str, Any]:
        """What shard k is made from."""
        places, g = values
        own = {"markers": digest(places, digest_columns(g))}
        return {"run": digest(self.manifest), "part": k, "digests": own}

    def columns(self, k: int, values: Block) -> dict[str, Any]:
        """The table of the markers of shard k, a column each."""
        # a part has the same bytes whatever was fitted before it
        with compiled_at_once():
            pairs = self.task.block(*values)
        rows, width = pairs.rows(self.task.wanted), self.task.beside.width
        table = table_columns(self.task, rows)
        if self.ranked:
            table |= dict(zip(RANKED, (rows["place"], np.repeat(pairs.strength, width)), strict=True))
        return table

    @property
    def ranked(self) -> bool:
        """Whether only all parts together say what is kept."""
        return any(isinstance(one, Top) for one in self.task.keep or ())

    def reduce(self, tables: Iterator[Any]) -> Iterator[Any]:
        """Of the pairs that the parts have, those that are kept; the pairs of all parts are in memory."""
        import pyarrow as pa

        whole, width = pa.concat_tables(tables), self.task.beside.width
        place, strength = (whole[name].to_numpy()[::width] for name in RANKED)
        at = pd.factorize(whole["response"].to_numpy())[0][::width]
        names = [name for name in ("p_wald", "p_lrt", "p_score", "p_joint") if name in whole.column_names]
        pairs = Pairs(place, at, strength, [{name: whole[name].to_numpy()[::width] for name in names}])
        kept = np.zeros(len(pairs), bool)
        if len(pairs):
            kept = self.task.chosen(pairs)
        yield whole.drop_columns(list(RANKED)).filter(pa.array(np.repeat(kept, width)))


MARKERS = "_markers.npy"
"""What markers that are in memory are written to for workers."""

RANKED = ("_place", "_strength")
"""Columns of the parts by which `Top` chooses; the results do not have them."""


def table_columns(task: Task, rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Columns of a part, texts as Arrow has them."""
    rows = dict(rows)
    place, at, number = (rows.pop(name) for name in ("place", "at", "term"))
    front = {"marker": _texts(task.markers.names, place), "response": _texts(task.labels, at)}
    if task.beside.width > 1:
        front["term"] = _texts(pd.Index(task.beside.terms), number)
    return front | rows


def _texts(labels: pd.Index, at: np.ndarray) -> Any:
    """Labels at some places: integers as they are, others as text."""
    import pyarrow as pa

    if pd.api.types.is_integer_dtype(labels.dtype):
        return np.asarray(labels)[at]
    own, place = np.unique(at, return_inverse=True)
    return pa.array([str(label) for label in labels[own]], pa.string()).take(pa.array(place.ravel()))


def scan_to(
    task: Task,
    sink: str | Path,
    source: Any,
    *,
    resume: bool = False,
    chunk: int | None = None,
    executor: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scanned:
    """Write the table of a scan to Parquet; see `Fit.scan`.

    Parameters
    ----------
    source : what the markers were given as, which `sink` may not replace.
    """
    require_switch("resume", resume)
    chunk = None if chunk is None else require_count("chunk", chunk)
    if executor is not None:
        require_executor(executor)
    parquet = pyarrow("parquet")
    if not len(task.markers):
        raise ValueError("there are no markers to scan")
    path, parts = place_of(sink, source)
    work = scan_work(task)
    if work.ranked and path == parts:
        raise ValueError(f"keep=Top is of all markers together: name a file as sink, as {path}.parquet")
    with locked(path):
        resumed = carry_out(
            work,
            path,
            parts,
            chunk or shard_size(task),
            chosen=chunk is not None,
            resume=resume,
            portable=lambda own: portable_work(own, source, parts),
            executor=executor,
            progress=progress,
            reduce=work.reduce if work.ranked else None,
        )
        if path == parts:
            # what workers read; joined parts go with their folder
            for name in (WORK, MARKERS):
                (parts / name).unlink(missing_ok=True)
        files = sorted(path.glob("part-*.parquet")) if path == parts else [path]
        rows = sum(parquet.read_metadata(file).num_rows for file in files)
    return Scanned(path, len(task.markers), len(task.labels), rows, resumed)


def place_of(sink: str | Path, source: Any) -> tuple[Path, Path]:
    """(results, folder of the parts): the same where `sink` is a folder, or a name without an ending."""
    path = Path(sink)
    if path.suffix and not path.is_dir():
        if path.suffix.lower() not in (".parquet", ".pq"):
            raise ValueError(f"{path} is no Parquet file: end its name in .parquet, or name a folder as sink")
        return out_path(path, [source])
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: end its name in .parquet, or name a folder as sink")
    if not path.is_dir():
        target(path, [source], "sink")
    return path, path


def shard_size(task: Task) -> int:
    """Markers a shard."""
    n = max(1, task.markers.source.shape[0], len(task.markers.codes))
    most = min(NUMBERS, SHARE * available_memory() / 8) / n
    if task.keep is None:
        most = min(most, ROWS / (len(task.labels) * task.beside.width))
    return int(max(1, most))


def scan_work(task: Task) -> ScanWork:
    """The work of a scan, not yet cut."""
    fits, markers, beside = task.nulls.fits, task.markers, task.beside
    columns = fits.y[:, None] if isinstance(fits, Fitted) else fits.y
    y = [digest_columns(np.asarray(own)) for _, own in pieces(columns)]
    weights = getattr(fits, "weights", None)
    filters = markers.filters
    manifest = {
        "formula": fits.data.formula,
        "method": "REML" if fits.reml else "ML",
        "n_markers": len(markers),
        "n_responses": len(task.labels),
        "names of the markers": digest([str(name) for name in markers.names]),
        "names of the responses": digest([str(name) for name in task.labels]),
        "values of the responses": digest(y),
        "weights of the responses": None if weights is None else digest_columns(weights),
        "individuals": digest(markers.rows, markers.codes),
        "design": fingerprint(fits.data),
        # to five digits, which other machines share
        "variance parameters": digest([f"{value:.4e}" for value in np.ravel(fits.estimate.psi)]),
        "ratio": task.how.ratio,
        "test": task.how.test,
        "interaction": list(beside.names),
        "values of the interaction": digest_columns(beside.values),
        "keep": None if task.keep is None else [repr(one) for one in task.keep],
        "maf": filters.maf,
        "max_missing": filters.max_missing,
        **task.nulls.described(),
        "version of lmmjax": __version__,
    }
    return ScanWork(dataclasses.replace(task, nulls=task.nulls.fresh()), manifest)


def portable_work(work: ScanWork, source: Any, parts: Path) -> ScanWork:
    """The work as it pickles: fits with their rows, markers from a path or a file beside the parts."""
    task = work.task
    markers = dataclasses.replace(
        task.markers, source=portable_markers(task.markers.source, source, parts / MARKERS)
    )
    nulls: Nulls = task.nulls.portable(markers.source)
    return dataclasses.replace(work, task=dataclasses.replace(task, nulls=nulls, markers=markers))
