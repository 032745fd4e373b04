"""A scan cut into shards of markers: what makes a part, and the digest of what it was made from.

A part is a function of the manifest and its number, as those of streamed batches (`lmmjax.stream`) are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax._version import __version__
from lmmjax.arrays.compile import compiled_at_once
from lmmjax.arrays.memory import available_memory
from lmmjax.arrays.sparse_columns import pieces
from lmmjax.fitted import Fitted, FittedMany
from lmmjax.scan.beside import Beside
from lmmjax.scan.evaluate import How
from lmmjax.scan.keep import Keep, Top, chosen
from lmmjax.scan.nulls import responses
from lmmjax.scan.opened import portable_markers
from lmmjax.scan.pairs import Pairs
from lmmjax.scan.task import Task
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.manifest import fingerprint
from lmmjax.stream.parts import Reduce
from lmmjax.stream.work import span

ROWS, NUMBERS = 1 << 19, 1 << 24
"""Most rows of a part, and numbers of the markers that it is made from."""

SHARE = 0.05
"""Part of the available memory that the markers of a part may take."""

MARKERS = "_markers.npy"
"""What markers that are in memory are written to for workers."""

RANKED = ("_place", "_strength")
"""Columns of the parts by which `Top` chooses; the results do not have them."""

Block = tuple[np.ndarray, np.ndarray]
"""Places of markers (k,), and their values (N, k)."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScanWork:
    """A scan in shards of markers.

    Attributes
    ----------
    task : the scan; manifest : what a resumed call must share, with "chunk" once it is cut.
    """

    task: Task
    manifest: dict[str, Any]

    def knowing(self, known: Mapping[str, np.ndarray]) -> ScanWork:
        """The same, told what `Nulls.known` gave."""
        task = dataclasses.replace(self.task, nulls=self.task.nulls.knowing(known))
        return dataclasses.replace(self, task=task)

    def kept_in(self, folder: Path) -> ScanWork:
        """The same, which keeps kernels without a chromosome, once decomposed, in the folder of the parts."""
        return dataclasses.replace(
            self, task=dataclasses.replace(self.task, nulls=self.task.nulls.kept_in(folder))
        )

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
        own = {"markers": digest(places, digest_columns(g)), **self.task.nulls.digests()}
        return {"run": digest(self.manifest), "part": k, "digests": own}

    def columns(self, k: int, values: Block) -> dict[str, Any]:
        """The table of the markers of shard k, a column each."""
        # a part has the same bytes whatever was fitted before it
        with compiled_at_once():
            pairs = self.task.block(*values)
        rows, width = pairs.rows(self.task.wanted), self.task.beside.width
        table = table_columns(rows, self.task.markers.names, self.task.labels, self.task.beside.terms)
        if self.ranked:
            table |= dict(zip(RANKED, (rows["place"], np.repeat(pairs.strength, width)), strict=True))
        return table

    @property
    def ranked(self) -> bool:
        """Whether only all parts together say what is kept."""
        return is_ranked(self.task.keep or ())

    @property
    def reduce(self) -> Reduce | None:
        """What is left to choose when all parts are there."""
        task = self.task
        return chooser(task.keep or (), task.how.test, task.beside.width) if self.ranked else None

    def remarks(self, values: Block, columns: dict[str, Any]) -> list[Any]:
        """The markers without a result for any response, and why."""
        places, g = values
        if self.task.keep is not None or not self.task.nulls.any_fit or not len(places):
            return []
        void = np.isnan(columns["t"].reshape(len(places), -1)).all(axis=1)
        why = self.task.markers.reasons(places[void], g[:, void])
        return [
            list(pair) for pair in zip(labels_of(self.task.markers.names[places[void]]), why, strict=True)
        ]


def is_ranked(keep: tuple[Keep, ...]) -> bool:
    """Whether only all parts together say what is kept."""
    return any(isinstance(one, Top) for one in keep)


def chooser(keep: tuple[Keep, ...], test: str | None, width: int) -> Reduce:
    """Of the pairs that parts have, those that are kept; the pairs of all parts are in memory.

    Parameters
    ----------
    test : of the scan; width : rows of a pair.
    """

    def reduce(tables: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        whole = pa.concat_tables(tables)
        place, strength = (whole[name].to_numpy()[::width] for name in RANKED)
        at = pd.factorize(whole["response"].to_numpy())[0][::width]
        names = [name for name in ("p_wald", "p_lrt", "p_score", "p_joint") if name in whole.column_names]
        pairs = Pairs(place, at, strength, [{name: whole[name].to_numpy()[::width] for name in names}])
        kept = np.zeros(len(pairs), bool)
        if len(pairs):
            kept = chosen(pairs, keep, test)
        yield whole.drop_columns(list(RANKED)).filter(pa.array(np.repeat(kept, width)))

    return reduce


def table_columns(
    rows: dict[str, np.ndarray], markers: pd.Index, labels: pd.Index, terms: list[str]
) -> dict[str, Any]:
    """Columns of a part from rows as `Pairs.rows` gives them, texts as Arrow has them."""
    rows = dict(rows)
    place, at, number = (rows.pop(name) for name in ("place", "at", "term"))
    front = {"marker": _texts(markers, place), "response": _texts(labels, at)}
    if len(terms) > 1:
        front["term"] = _texts(pd.Index(terms), number)
    return front | rows


def _texts(labels: pd.Index, at: np.ndarray) -> Any:
    """Labels at some places: integers as they are, others as text."""
    import pyarrow as pa

    if pd.api.types.is_integer_dtype(labels.dtype):
        return np.asarray(labels)[at]
    own, place = np.unique(at, return_inverse=True)
    return pa.array(labels_of(labels[own]), pa.string()).take(pa.array(place.ravel()))


def labels_of(labels: pd.Index) -> list[Any]:
    """Labels as tables have them."""
    return labels.tolist() if pd.api.types.is_integer_dtype(labels.dtype) else [str(one) for one in labels]


def shard_size(work: ScanWork) -> int:
    """Markers a shard."""
    task = work.task
    n = max(1, task.markers.source.shape[0], len(task.markers.codes))
    most = min(NUMBERS, SHARE * available_memory() / 8) / n
    if task.keep is None:
        most = min(most, ROWS / (len(task.labels) * task.beside.width))
    return int(max(1, most))


def of_fits(fits: Fitted | FittedMany, how: How, beside: Beside) -> dict[str, Any]:
    """Entries of a manifest about the fits, and about what they are scanned for."""
    columns = fits.y[:, None] if isinstance(fits, Fitted) else fits.y
    y = [digest_columns(np.asarray(own)) for _, own in pieces(columns)]
    weights, labels = getattr(fits, "weights", None), responses(fits)
    return {
        "formula": fits.data.formula,
        "method": "REML" if fits.reml else "ML",
        "n_responses": len(labels),
        "names of the responses": digest([str(name) for name in labels]),
        "values of the responses": digest(y),
        "weights of the responses": None if weights is None else digest_columns(weights),
        "design": fingerprint(fits.data),
        # to five digits, which other machines share
        "variance parameters": digest([f"{value:.4e}" for value in np.ravel(fits.estimate.psi)]),
        "ratio": how.ratio,
        "test": how.test,
        "interaction": list(beside.names),
        "values of the interaction": digest_columns(beside.values),
        "version of lmmjax": __version__,
    }


def scan_work(task: Task) -> ScanWork:
    """The work of a scan, not yet cut; ValueError if there are no markers."""
    markers = task.markers
    if not len(markers):
        raise ValueError("there are no markers to scan")
    filters = markers.filters
    manifest = {
        **of_fits(task.nulls.fits, task.how, task.beside),
        "n_markers": len(markers),
        "names of the markers": digest([str(name) for name in markers.names]),
        "values of the first marker": digest_columns(markers.source.read(0, 1)),
        "individuals": digest(markers.rows, markers.codes),
        "keep": None if task.keep is None else [repr(one) for one in task.keep],
        "maf": filters.maf,
        "max_missing": filters.max_missing,
        **task.nulls.described(),
    }
    return ScanWork(dataclasses.replace(task, nulls=task.nulls.fresh()), manifest)


def portable_work(work: ScanWork, source: Any, parts: Path) -> ScanWork:
    """The work as it pickles: fits with their rows, markers from a path or a file beside the parts."""
    task = work.task
    markers = dataclasses.replace(
        task.markers, source=portable_markers(task.markers.source, source, parts / MARKERS)
    )
    nulls = task.nulls.portable(markers.source).kept_in(parts)
    return dataclasses.replace(work, task=dataclasses.replace(task, nulls=nulls, markers=markers))
