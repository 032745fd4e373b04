"""The null fits that markers are scanned beside: one model for all of them, or one for each chromosome."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, FittedMany
from lmmjax.formula import Genotypes
from lmmjax.scan.engines import Part, parts_of
from lmmjax.stream.portable import PortableModel


class Nulls:
    """One null fit a response.

    Parameters
    ----------
    fits : of all responses; ddf : degrees of freedom as `Fit.scan` takes them.
    """

    def __init__(self, fits: Fitted | FittedMany, ddf: str | None):
        self.fits, self.ddf = fits, ddf

    @cached_property
    def parts(self) -> list[Part]:
        """The engines of all responses."""
        return parts_of(self.fits, self.ddf)

    @property
    def any_fit(self) -> bool:
        """Whether a response has a fit."""
        return bool(np.isfinite(self.fits.estimate.deviance).any())

    @property
    def first(self) -> list[Part]:
        """Engines of some markers."""
        return self.parts

    def of(self, places: np.ndarray) -> Iterator[tuple[Any, list[Part]]]:
        """Yields which of the markers at places (k,) have which engines."""
        yield slice(None), self.parts

    def portable(self, source: Genotypes) -> Nulls:
        """The same as it pickles, with nothing of what was worked out; `source` are the markers likewise."""
        return Nulls(portable_fits(self.fits), self.ddf)

    def fresh(self) -> Nulls:
        """The same with nothing of what was worked out, so that results do not depend on what was."""
        return Nulls(dataclasses.replace(self.fits, cache={}), self.ddf)

    def known(self) -> dict[str, np.ndarray]:
        """What is worked out once for all shards, by name."""
        return {}

    def knowing(self, known: Mapping[str, np.ndarray]) -> Nulls:
        """The same, told what `known` gave."""
        return self

    def kept_in(self, folder: Path) -> Nulls:
        """The same, which keeps in a folder what takes long and only some shards need."""
        return self

    def described(self) -> dict[str, Any]:
        """Entries of the manifest."""
        return {"ddf": self.ddf}

    def digests(self) -> dict[str, str]:
        """Of what the fits are made from beside what the manifest says, by name."""
        return {}


def portable_fits(fits: Fitted | FittedMany) -> Any:
    """The fits with a model that pickles as its rows."""
    return dataclasses.replace(fits, data=PortableModel(fits.data), cache={})


def responses(fits: Fitted | FittedMany) -> pd.Index:
    """Labels (T,)."""
    if isinstance(fits, FittedMany):
        return fits.names
    return pd.Index([fits.response if fits.response is not None else fits.data.frame.response or "y"])
