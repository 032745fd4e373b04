"""Sources and models that other processes can open: paths as they are, what is in memory from files.

Nothing large is pickled: a worker reads the columns of its shard from a disk that all share.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.core import ProblemMaker
from lmmjax.design import Design
from lmmjax.fitted import ModelData
from lmmjax.formula import ModelFrame
from lmmjax.stream.files import written_whole
from lmmjax.stream.inputs import Inputs, options_beside
from lmmjax.stream.sources import Source, open_source
from lmmjax.stream.work import Work

SPOOLED = 1 << 26
"""Bytes of the columns that are written at a time."""


def portable(work: Work, given: dict[str, Any], options: dict[str, Any], parts: Path) -> Work:
    """The work with sources that pickle; what is no path is written to `parts` first.

    Parameters
    ----------
    given : what the sources were opened from, by the names of `Inputs`; options : how the responses were, as
        for `open_source`.
    """
    sources = {}
    for name, obj in given.items():
        source = getattr(work.inputs, name)
        if source is not None and isinstance(obj, str | Path):
            own = options if name == "responses" else options_beside(obj, options["index"], options["rows"])
            read = PathColumns(absolute(obj), source.place, own)
            sources[name] = dataclasses.replace(source, read=read)
        elif source is not None:
            sources[name] = spooled(source, parts / f"_{name}.npy")
    return dataclasses.replace(work, data=PortableModel(work.data), inputs=Inputs(**sources))


def absolute(path: str | Path) -> str:
    """A path, or "PATH::ARRAY", that holds in any working folder; links stay."""
    file, sep, inside = str(path).partition("::")
    return f"{Path(file).absolute()}{sep}{inside}"


def spooled(source: Source, path: Path) -> Source:
    """The source from a file (n, T) of float64, column after column, which is written here."""
    n, total = source.n_rows, source.n_responses
    step = max(1, SPOOLED // (8 * max(n, 1)))
    header = {"descr": "<f8", "fortran_order": True, "shape": (n, total)}
    with written_whole(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, total, step):
            columns = source.read(start, min(start + step, total))
            file.write(np.ascontiguousarray(columns.T, dtype="<f8").data)
    return dataclasses.replace(source, read=MappedColumns(str(path.absolute())), place=None)


@dataclasses.dataclass(frozen=True)
class MappedColumns:
    """Columns of a .npy file."""

    path: str

    def __call__(self, start: int, stop: int) -> np.ndarray:
        return np.array(np.load(self.path, mmap_mode="r")[:, start:stop])


@dataclasses.dataclass(frozen=True)
class PathColumns:
    """Columns of what is found at a path, opened at the first call; rows in the order `place`, if any."""

    path: str
    place: np.ndarray | None
    options: dict[str, Any]

    @cached_property
    def _source(self) -> Source:
        return open_source(self.path, **self.options)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        values = self._source.read(start, stop)
        return values if self.place is None else values[self.place]

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class PortableModel(ModelData):
    """A model that pickles as its rows: its products are formed anew, and expressions stay behind."""

    def __init__(self, data: ModelData):
        super().__init__(data.frame, data.design, data.maker, data.cache)

    def __reduce__(self) -> tuple[Any, ...]:
        frame = dataclasses.replace(self.frame, source=None, base=None, columns=None, _recipe=None)
        return _model, (frame, self.design, self.backend)


def _model(frame: ModelFrame, design: Design, backend: str | None) -> ModelData:
    return ModelData(frame, design, ProblemMaker(design, backend))
