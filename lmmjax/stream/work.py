"""The work of a run, cut into chunks: what makes a part, and the digest of what it was made from.

A part is a function of the manifest and its number: whoever makes it, and however often, it is the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lmmjax.arrays.compile import compiled_at_once
from lmmjax.fitted import FittedMany, ModelData, fit_many, require_switch
from lmmjax.postestimation.hypotheses.batch_moderated import moderated_ddf
from lmmjax.postestimation.hypotheses.estimability import require_estimable
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method
from lmmjax.postestimation.parameters import functions
from lmmjax.stream.columns import Hypotheses, result_columns
from lmmjax.stream.digests import digest, digest_columns
from lmmjax.stream.inputs import Inputs, named_contrasts, named_hypotheses, open_inputs
from lmmjax.stream.manifest import manifest
from lmmjax.stream.moderated import unmoderated_columns

Values = list[np.ndarray | None]
"""Responses, weights and offsets of a chunk, each (n, k)."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A run.

    Attributes
    ----------
    data, inputs, reml : the model, its sources, the criterion.
    ddf, contrasts, hypotheses : a key of `fixed_tests.METHODS`; weights (p,) by name; what is tested by F.
    moderate, icc : whether columns for moderated tests, and of shares of the variance, are added.
    manifest : `lmmjax.stream.manifest.manifest`; with "chunk", the most responses of a part, once it is cut.
    """

    data: ModelData
    inputs: Inputs
    reml: bool
    ddf: str
    contrasts: dict[str, np.ndarray]
    hypotheses: Hypotheses
    manifest: dict[str, Any]
    moderate: bool = False
    icc: bool = False

    @property
    def total(self) -> int:
        """T."""
        return self.inputs.n_responses

    def span(self, k: int) -> tuple[int, int]:
        """The responses [start, stop) of chunk k."""
        return span(self.inputs.n_responses, self.manifest["chunk"], k)

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return -(-self.inputs.n_responses // self.manifest["chunk"])

    def describe(self, k: int) -> str:
        """Which responses chunk k has, for messages."""
        start, stop = self.span(k)
        return f"responses {start} to {stop - 1}"

    def cut(self, chunk: int) -> Work:
        """The work in chunks of at most so many responses."""
        return dataclasses.replace(self, manifest=self.manifest | {"chunk": chunk})

    def read(self, k: int) -> Values:
        """The values of chunk k."""
        return self.inputs.read(*self.span(k))

    def stamp(self, k: int, values: Values) -> dict[str, Any]:
        """What part k is made from: the run, its number, and digests of the values that were read."""
        names = ("responses", "weights", "offset")
        digests = {n: digest_columns(v) for n, v in zip(names, values, strict=True) if v is not None}
        return {"run": digest(self.manifest), "part": k, "digests": digests}

    def remarks(self, values: Values, columns: dict[str, Any]) -> list[Any]:
        """None: every response has a column `reason`."""
        return []

    def columns(self, k: int, values: Values) -> dict[str, Any]:
        """The results of chunk k, a column each."""
        start, stop = self.span(k)
        responses, weights, offset = values
        assert responses is not None
        names = self.inputs.responses.names[start:stop]
        # a part has the same bytes whatever was fitted before it
        with compiled_at_once():
            fits = _fit(self.data, self.reml, responses, weights, offset)
            columns = result_columns(fits, names, self.ddf, self.contrasts, self.hypotheses)
            if self.moderate:
                columns |= unmoderated_columns(fits, self.ddf, self.contrasts, self.hypotheses)
            if self.icc:
                function, own, groups = functions.icc(fits, True)
                shares = functions.at_estimate(fits, function, own)
                columns |= {f"icc:{name}": shares[:, k] for k, name in enumerate(groups)}
            return columns


def work_of(
    data: ModelData,
    source: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Any = None,
    tests: Any = None,
    ddf: str = "satterthwaite",
    index: str | None = None,
    layer: str | None = None,
    rows: bool = False,
    moderate: bool = False,
    icc: bool = False,
) -> Work:
    """What `stream_batch` is asked for, checked and opened; not yet cut into chunks.

    Raises
    ------
    ValueError : a source is not one or damaged, its rows do not match, a contrast or test is wrong.
    """
    for name, value in {"reml": reml, "rows": rows, "moderate": moderate, "icc": icc}.items():
        require_switch(name, value)
    ddf = moderated_ddf(data, ddf) if moderate else ddf_method(ddf)
    if icc and not data.frame.random:
        raise ValueError("icc=True needs a random effect, (1 | group): there is none in the formula")
    inputs = open_inputs(data, source, weights, offset, index=index, layer=layer, rows=rows)
    wanted = named_contrasts(contrasts, data.x_names)
    hypotheses = named_hypotheses(tests, data.x_names)
    require_estimable(data, wanted)
    for name, (l, _) in hypotheses.items():
        require_estimable(data, {f"{name} ({k})": row for k, row in enumerate(l, 1)})
    task = manifest(
        data,
        inputs.responses,
        reml,
        weights=inputs.weights,
        offset=inputs.offset,
        contrasts=[[name, row.tolist()] for name, row in wanted.items()],
        tests=[[name, l.tolist(), rhs.tolist()] for name, (l, rhs) in hypotheses.items()],
        ddf=ddf,
        moderate=moderate,
        icc=icc,
    )
    if moderate and inputs.n_responses < 2:
        raise ValueError("moderate=True needs several responses, whose residual variances have a prior")
    return Work(data, inputs, reml, ddf, wanted, hypotheses, task, moderate, icc)


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
