"""What a space is: the way from an image to a row of numbers, and back to an image."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.stream.files import reading
from lmmjax.stream.packages import needed

SINGLE = (np.float16, np.float32, np.int8, np.uint8, np.int16, np.uint16)
"""Types on disk of which float32 holds every value."""


class Space(ABC):
    """Where the V values of a scan lie.

    Attributes
    ----------
    size : V. kind : what one of them is, such as "voxel".
    names : labels of them: their positions 0, …, V − 1, or names of regions.
    """

    size: int
    kind: str

    @property
    def names(self) -> pd.Index:
        """Labels of the values."""
        return pd.RangeIndex(self.size, name=self.kind)

    @abstractmethod
    def count(self, image: Any, what: str) -> int:
        """How many scans an image has; ValueError, which calls it `what`, if it is not of this space."""

    @abstractmethod
    def values(self, image: Any, k: int) -> np.ndarray:
        """Scan k of an image as (V,) floats, NaN where missing."""

    @abstractmethod
    def image(self, values: np.ndarray, names: Sequence[str]) -> Any:
        """An image of maps (k, V) with names."""

    def dtype(self, image: Any) -> np.dtype:
        """The precision that holds the values of an image: float32, or float64."""
        stored = getattr(image, "dataobj", None)
        known = isinstance(stored, np.ndarray) or type(stored) is nibabel().arrayproxy.ArrayProxy
        scaled = getattr(stored, "slope", 1.0) != 1.0 or getattr(stored, "inter", 0.0) != 0.0
        plain = stored is not None and known and not scaled and np.dtype(stored.dtype).type in SINGLE
        return np.dtype(np.float32 if plain else np.float64)

    def spread(self, values: np.ndarray, names: pd.Index, what: str = "the fits") -> np.ndarray:
        """Values (…, T) of responses `names` as (…, V), NaN where there is no response.

        ValueError if their labels are not those of the space, and they are not as many.
        """
        if not names.is_unique:
            raise ValueError(f"{what} have two responses that are called {names[names.duplicated()][0]!r}")
        place = self.names.get_indexer(pd.Index(names))
        if len(names) == self.size and (place < 0).any():
            place = np.arange(self.size)
        if (place < 0).any():
            raise ValueError(
                f"{what} have {len(names)} responses, and {names[place < 0][0]!r} is none of the {self.size} "
                f"{self.kind}s of the mask, 0 to {self.size - 1}: pass the mask that they were fitted with"
            )
        out = np.full((*values.shape[:-1], self.size), np.nan)
        out[..., place] = values
        return out


def nibabel() -> Any:
    """The package, or an ImportError that names the extra."""
    return needed("nibabel", "images", "neuro")


def loaded(image: Any) -> Any:
    """The image of a path, anything else as it is; ValueError or FileNotFoundError that names the file."""
    if not isinstance(image, str | Path):
        return image
    path = Path(image)
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    with reading(path, "pass NIfTI, CIFTI, GIFTI or another kind of image that nibabel reads"):
        found = nibabel().load(path)
        if path.suffix.lower() == ".gz" and len(getattr(found, "shape", ())) > 3:
            # volumes are read in turn: a file that stays open is unpacked once
            found = nibabel().load(path, keep_file_open=True)
        return found


@contextlib.contextmanager
def reading_of(image: Any) -> Iterator[None]:
    """Errors of a library about an image as ones that name its file."""
    path = name_of(image)
    with reading(Path(path)) if path else contextlib.nullcontext():
        yield


def name_of(image: Any) -> str:
    """The file of an image, or ""."""
    if isinstance(image, str | Path):
        return str(image)
    named = getattr(image, "get_filename", None)
    return str((named() if callable(named) else None) or "")


def numeric(values: Any, what: str) -> np.ndarray:
    """Values of an image, if they are real numbers; ValueError if they are colours or complex."""
    found = np.asanyarray(values)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{what} holds no numbers but values of type {found.dtype}: pass one value each")
    return found


def inside(mask: np.ndarray, what: str = "the mask") -> np.ndarray:
    """Where a mask is neither zero nor missing; ValueError if that is nowhere."""
    found = (mask != 0) & np.isfinite(mask) if mask.dtype.kind == "f" else mask != 0
    if not found.any():
        raise ValueError(f"{what} is empty: all of it is zero or missing")
    return found
