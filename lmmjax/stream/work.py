"""The work of a run, cut into chunks: what makes a part, and the digest of what it was made from.

A part is a function of the manifest and its number: whoever makes it, and however often, it is the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.arrays.compile import compiled_at_once
from lmmjax.fitted import FittedMany, ModelData, fit_many
from lmmjax.stream.columns import Hypotheses, result_columns
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.inputs import Inputs

Values = list[np.ndarray | None]
"""Responses, weights and offsets of a chunk, each (n, k)."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A run.

    Attributes
    ----------
    data, inputs, reml : the model, its sources, the criterion.
    ddf, contrasts, hypotheses : a key of `fixed_tests.METHODS`; weights (p,) by name; what is tested by F.
    manifest : `lmmjax.stream.manifest.manifest` with "chunk", the most responses of a part.
    """

    data: ModelData
    inputs: Inputs
    reml: bool
    ddf: str
    contrasts: dict[str, np.ndarray]
    hypotheses: Hypotheses
    manifest: dict[str, Any]

    def span(self, k: int) -> tuple[int, int]:
        """The responses [start, stop) of chunk k."""
        return span(self.inputs.n_responses, self.manifest["chunk"], k)

    def read(self, k: int) -> Values:
        """The values of chunk k."""
        return self.inputs.read(*self.span(k))

    def stamp(self, k: int, values: Values) -> dict[str, Any]:
        """What part k is made from: the run, its number, and digests of the values that were read."""
        names = ("responses", "weights", "offset")
        digests = {n: digest_columns(v) for n, v in zip(names, values, strict=True) if v is not None}
        return {"run": digest(self.manifest), "part": k, "digests": digests}

    def columns(self, k: int, values: Values) -> dict[str, Any]:
        """The results of chunk k, a column each."""
        start, stop = self.span(k)
        responses, weights, offset = values
        assert responses is not None
        names = self.inputs.responses.names[start:stop]
        # a part has the same bytes whatever was fitted before it
        with compiled_at_once():
            fits = _fit(self.data, self.reml, responses, weights, offset)
            return result_columns(fits, names, self.ddf, self.contrasts, self.hypotheses)


def ranges(total: int, chunk: int) -> list[tuple[int, int]]:
    """The responses [start, stop) of each chunk: as few chunks as possible, of sizes that differ by 1."""
    return [span(total, chunk, k) for k in range(-(-total // chunk))]


def span(total: int, chunk: int, k: int) -> tuple[int, int]:
    """Those of chunk k."""
    count = -(-total // chunk)
    return total * k // count, total * (k + 1) // count


def _fit(
    data: ModelData, reml: bool, values: np.ndarray, weights: np.ndarray | None, offset: np.ndarray | None
) -> FittedMany:
    if weights is not None:
        values, weights = _excused(values, weights)
    return fit_many(data, values, reml, weights=weights, offset=offset)


def _excused(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights of which `fit_many` refuses none: responses with bad weights are infinite instead.

    Their status is that of an infinite response. The weight of a missing value may be missing.
    """
    weights = np.where(np.isnan(values), 0.0, weights)
    good = (np.isfinite(weights) & (weights >= 0)).all(axis=0)
    return np.where(good, values, np.inf), np.where(good, weights, 1.0)
