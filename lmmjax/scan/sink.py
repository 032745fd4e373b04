"""Scans whose results go to Parquet: in parts, resumed after a kill, made by workers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.other_arguments import answered
from lmmjax.design import EstimabilityWarning
from lmmjax.scan.own import OWN, OwnWork, portable_own
from lmmjax.scan.shelf import FILES
from lmmjax.scan.work import MARKERS, ScanWork, portable_work, shard_size
from lmmjax.stream.carry import AnyCut, Conduct, carried_out
from lmmjax.stream.files import target
from lmmjax.stream.inputs import out_path
from lmmjax.stream.jobs import WORK, Shards
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.parts import Reduce, remarks_of

SHOWN = 6
"""Markers that a warning names."""


@answered
@dataclasses.dataclass(frozen=True)
class Scanned:
    """What a scan with a sink did.

    Attributes
    ----------
    path : the Parquet file of the table, or the folder of its parts.
    n_markers, n_responses : M and T; n_rows : rows of the table.
    n_resumed : markers that were done before the run was resumed; of `own=`, values of these.
    without : why markers have no result for any response, by their names; of scans that keep all pairs.
    """

    path: Path
    n_markers: int
    n_responses: int
    n_rows: int
    n_resumed: int = 0
    without: pd.Series = dataclasses.field(default_factory=lambda: reasons_of([]), compare=False)

    def __repr__(self) -> str:
        counts = f"{self.n_rows:,} rows, {self.n_resumed:,} resumed, {len(self.without):,} without a result"
        pairs = f"{self.n_markers:,} markers × {self.n_responses:,} responses"
        return f"Scanned({str(self.path)!r},\n  {pairs}, {counts})"

    def read(self, **options: Any) -> pd.DataFrame:
        """The table, or what `options` of `pandas.read_parquet` (columns=, filters=) say of it."""
        return pd.read_parquet(self.path, **options)


def reasons_of(remarks: list[Any]) -> pd.Series:
    """Why markers have no results, by their names, as parts say it."""
    names, why = zip(*remarks, strict=True) if remarks else ((), ())
    return pd.Series(list(why), index=pd.Index(list(names), name="marker"), name="reason", dtype=object)


def scan_to(work: ScanWork, sink: str | Path, source: Any, how: Conduct) -> Scanned:
    """Write the table of a scan to Parquet; see `Fit.scan`.

    Parameters
    ----------
    source : what the markers were given as, which `sink` may not replace.
    """
    path, parts = place_of(sink, [source])
    require_place(work.ranked, path, parts)
    task = work.task

    def moved(work: ScanWork) -> ScanWork:
        return portable_work(work, source, parts)

    rows, without, resumed = _written(work, path, parts, how, shard_size, moved, work.reduce)
    warn_of_markers(without, len(task.markers))
    return Scanned(path, len(task.markers), len(task.labels), rows, resumed, without)


def own_to(work: OwnWork, sink: str | Path, how: Conduct) -> Scanned:
    """Write the table of covariates of their own to Parquet; see `Fit.scan`."""
    path, parts = place_of(sink, work.own.files)

    def moved(work: OwnWork) -> OwnWork:
        return portable_own(work, parts)

    rows, without, resumed = _written(work, path, parts, how, OwnWork.size, moved)
    return Scanned(path, len(work.own.names), len(work.labels), rows, resumed, without)


def _written(
    work: AnyCut,
    path: Path,
    parts: Path,
    how: Conduct,
    size: Callable[[AnyCut], int],
    portable: Callable[[AnyCut], Shards],
    reduce: Reduce | None = None,
) -> tuple[int, pd.Series, int]:
    """Rows of the table, markers without results, and how much was done before."""
    parquet = pyarrow("parquet")
    with carried_out(work, path, parts, how, size=size, portable=portable, reduce=reduce) as resumed:
        if path == parts:
            # what workers read; joined parts go with their folder
            more = [file.name for kind in (OWN.format("*"), FILES) for file in parts.glob(kind)]
            for name in (WORK, MARKERS, *more):
                (parts / name).unlink(missing_ok=True)
        files = files_of(path)
        return (
            sum(parquet.read_metadata(file).num_rows for file in files),
            reasons_of(remarks_of(files)),
            resumed,
        )


def files_of(path: Path) -> list[Path]:
    """The files of a table: of its parts, if it is a folder."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]


def place_of(sink: str | Path, sources: list[Any]) -> tuple[Path, Path]:
    """(results, folder of the parts): the same where `sink` is a folder, or a name without an ending."""
    path = Path(sink)
    if path.suffix and not path.is_dir():
        if path.suffix.lower() not in (".parquet", ".pq"):
            raise ValueError(f"{path} is no Parquet file: end its name in .parquet, or name a folder as sink")
        return out_path(path, sources)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: end its name in .parquet, or name a folder as sink")
    if not path.is_dir():
        target(path, sources, "sink")
    return path, path


def require_place(ranked: bool, path: Path, parts: Path) -> None:
    """ValueError where parts are the results, and only all together say what is kept."""
    if ranked and path == parts:
        raise ValueError(f"keep=Top is of all markers together: name a file as sink, as {path}.parquet")


def warn_of_markers(without: pd.Series, total: int) -> None:
    """An `EstimabilityWarning` that names the markers without a result for any response, if any."""
    if len(without):
        shown = [f"{name} ({why})" for name, why in without.iloc[:SHOWN].items()]
        warnings.warn(
            f"{len(without)} of {total} markers have no results: {', '.join(shown)}"
            + (", ..." if len(without) > SHOWN else ""),
            EstimabilityWarning,
            stacklevel=stack_level(),
        )
