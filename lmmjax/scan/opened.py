"""Markers of any kind, read a range at a time: arrays, files, functions of a slice; here and in workers."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula import Genotypes, genotypes
from lmmjax.stream.portable import absolute, spooled
from lmmjax.stream.sources import Source, open_source
from lmmjax.stream.tables import kind_of

OWN_KINDS = (".bed", ".pgen", ".npy")
"""Files that `lmmjax.formula.relationships.genotypes` reads."""


def opened(markers: Any, ids: Any = None, names: Any = None) -> Genotypes:
    """Markers with the labels that they have; nothing but these is read.

    Parameters
    ----------
    markers : what `lmmjax.formula.relationships.genotypes` takes; a path or a `Source` as
        `lmmjax.stream.open_source` has them; a function of (start, stop) that returns the markers
        in that range, individuals × markers.
    ids, names : labels of individuals and of markers; a function needs names, which say how many there are.

    Raises
    ------
    ValueError : a function without names, or what `genotypes` and `open_source` refuse.
    """
    if isinstance(markers, Source):
        return genotypes(of_source(markers), ids)
    if isinstance(markers, str | Path) and kind_of(Path(str(markers).partition("::")[0])) not in OWN_KINDS:
        return genotypes(of_source(open_source(markers)), ids)
    if callable(markers) and not hasattr(markers, "shape"):
        return genotypes(of_function(markers, names), ids)
    return genotypes(markers, ids)


def of_source(source: Source) -> Genotypes:
    """The columns of a source."""
    names = None if isinstance(source.names, pd.RangeIndex) else source.names
    return Genotypes((source.n_rows, source.n_responses), source.index, names, source.read)


def of_function(function: Callable[[int, int], Any], names: Any) -> Genotypes:
    """The markers that a function returns."""
    if names is None:
        raise ValueError("markers are a function of (start, stop): pass names=, a name for each marker")
    labels = pd.Index(names)
    read = Returned(function)
    first = read(0, min(1, len(labels)))
    return Genotypes((len(first), len(labels)), None, labels, read)


@dataclasses.dataclass(frozen=True)
class Returned:
    """What a function of a slice returns, (n, stop − start)."""

    function: Callable[[int, int], Any]

    def __call__(self, start: int, stop: int) -> np.ndarray:
        found = np.asarray(self.function(start, stop), dtype=float)
        if found.ndim != 2 or found.shape[1] != stop - start:
            raise ValueError(
                f"markers({start}, {stop}) returned shape {found.shape}: return individuals × markers, "
                f"(n, {stop - start})"
            )
        return found


@dataclasses.dataclass(frozen=True)
class PathMarkers:
    """Markers of a file, opened at the first call."""

    path: str

    @cached_property
    def _read(self) -> Callable[[int, int], np.ndarray]:
        return opened(self.path).read

    def __call__(self, start: int, stop: int) -> np.ndarray:
        return self._read(start, stop)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def portable_markers(found: Genotypes, given: Any, path: Path) -> Genotypes:
    """The markers as other processes read them: of the file that they are in, or of `path`, written here.

    Parameters
    ----------
    given : what they were opened from.
    """
    if isinstance(given, str | Path):
        return dataclasses.replace(found, read=PathMarkers(absolute(given)))
    if isinstance(found.read, Returned):
        try:
            pickle.dumps(found.read)
        except Exception:  # a function of a closure: what it returns is written
            pass
        else:
            return found
    names = pd.RangeIndex(found.shape[1]) if found.names is None else found.names
    own = spooled(Source(names, found.shape[0], found.read), path).read
    return dataclasses.replace(found, read=own, there=None)
