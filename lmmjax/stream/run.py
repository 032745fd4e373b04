"""Responses read in chunks, fitted, their results written; resumed after a kill."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.fitted import FittedMany, ModelData, fit_many
from lmmjax.stream.chunks import chunk_of_all, chunks_left, count_responses
from lmmjax.stream.columns import result_columns
from lmmjax.stream.inputs import Inputs, check_out, named_contrasts, open_inputs
from lmmjax.stream.manifest import has_manifest, manifest
from lmmjax.stream.parts import count_ends, join, write_behind
from lmmjax.stream.processes import processes

UNLIMITED = float("inf")


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What `stream_batch` did.

    Attributes
    ----------
    path : the Parquet file of results.
    n_responses : T; `n_fitted` of them by this process in this call, `n_resumed` before it was resumed.
    n_failed, n_singular : responses that could not be fitted; fits on the boundary.
    """

    path: Path
    n_responses: int
    n_fitted: int
    n_failed: int
    n_singular: int
    n_resumed: int = 0


def stream_batch(
    data: ModelData,
    source: Any,
    out: str | Path,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Any = None,
    chunk: int | None = None,
    resume: bool = False,
    index: str | None = None,
    layer: str | None = None,
    rows: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Streamed:
    """Fit a model to every response of `source` and write the results to the Parquet file `out`.

    Two chunks are in memory at a time: the one being fitted and the one being read. The result has a row a
    response: response, `estimate:NAME se:NAME df:NAME t:NAME p:NAME` for each fixed effect and each
    contrast (Satterthwaite's df), the standard deviations and correlations as `sd_(Intercept)|g`,
    `cor_x.(Intercept)|g` and `sigma`, deviance, status, is_singular and n_iter. Responses that cannot be
    fitted have their status and missing numbers.

    Where `jax.distributed.initialize` was called, all processes must make this call; each fits every
    `process_count`-th chunk. Sources and `out` must be on file systems that all processes share. A run that
    was killed may be resumed by any number of processes.

    Parameters
    ----------
    source, index, layer, rows : as for `lmmjax.stream.open_source`; what is read has the rows that
        `Model.fit_batch` asks for.
    weights, offset : sources with a weight, or a known part of the mean, for every value of the responses, as
        for `Model.fit_batch`; in the same order, and by the same names if both have names. `index` and `rows`
        hold for those which are Parquet files. A response with a negative or missing weight cannot be fitted.
    contrasts : as for `BatchFit.contrast`; a text may name its contrast, as "NAME = Sex[T.Female] - Days".
    chunk : most responses a chunk; by default what fits a quarter of the memory available.
    resume : continue what a killed call with the same arguments left in `OUT.parts`.
    progress : called as progress(done, total) at the start and after each chunk, without the chunks of other
        processes.

    Raises
    ------
    ValueError : a source is not one, its rows do not match, a contrast is wrong, or what is resumed was
        something else.
    lmmjax.stream.ProcessError : another process failed.
    """
    path = Path(out)
    parts = path.with_name(path.name + ".parts")
    with processes() as together:
        check_out(path, source, weights, offset)
        inputs = open_inputs(data, source, weights, offset, index=index, layer=layer, rows=rows)
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        wanted = named_contrasts(contrasts, data.x_names)
        task = manifest(
            data,
            inputs.responses,
            reml,
            weights=inputs.weights,
            offset=inputs.offset,
            contrasts=[[name, row.tolist()] for name, row in wanted.items()],
        )
        size = chunk_of_all(together, task, chunk, data, inputs)
        plan = None
        if together.index == 0:
            plan = chunks_left(path, parts, task, inputs.n_responses, size, resume, chunk is not None)
        plan = together.exchange(plan)[0]
        mine = plan["todo"][together.index :: together.count]
        if mine and not has_manifest(parts):
            raise ValueError(f"{parts} is not there: out must be in a folder that all processes share")
        done = resumed = inputs.n_responses - count_responses(plan["todo"])
        total, sizes = done + count_responses(mine), {k: stop - start for k, start, stop in mine}
        report = progress or (lambda done, total: None)
        report(done, total)
        results = _results(data, inputs, wanted, reml, mine)
        with closing(write_behind(parts, results)) as written:
            for k in written:
                done += sizes[k]
                report(done, total)
                together.check()
        together.exchange("fitted", UNLIMITED)
        ends = None
        if together.index == 0:
            if plan["count"]:
                join(parts, path, plan["count"])
            ends = count_ends(path)
        failed, singular = together.exchange(ends, UNLIMITED)[0]
    if failed and together.index == 0:
        warnings.warn(
            f"{failed} of {inputs.n_responses} responses could not be fitted; see the column status of "
            f"{path}",
            stacklevel=2,
        )
    return Streamed(path, inputs.n_responses, count_responses(mine), failed, singular, resumed)


def _results(
    data: ModelData, inputs: Inputs, contrasts: dict[str, np.ndarray], reml: bool, todo: list[list[int]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(chunk, columns of its results) of each chunk [chunk, start, stop], while the next one is read."""
    for (k, start, stop), values in _read_ahead(inputs, todo):
        fits = _fit(data, reml, *values)
        del values
        columns = result_columns(fits, inputs.responses.names[start:stop], contrasts)
        del fits
        yield k, columns


def _read_ahead(inputs: Inputs, todo: list[list[int]]) -> Iterator[tuple[list[int], list[Any]]]:
    """(chunk, values) of each, the next being read by a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(inputs.read, *item[1:]) for item in todo[:1]]
        for k, item in enumerate(todo):
            values = coming.pop().result()
            coming += [pool.submit(inputs.read, *after[1:]) for after in todo[k + 1 : k + 2]]
            yield item, values
            del values


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
