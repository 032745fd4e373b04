"""Batches larger than memory: responses read in chunks, results written to Parquet, resumed after a kill."""

from __future__ import annotations

import dataclasses
import platform
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lmmjax import stream_parts
from lmmjax.arrays.memory import available_memory
from lmmjax.batch import FEW, LANES, lane_count
from lmmjax.processes import Processes, processes
from lmmjax.stream_inputs import Inputs, check_out, named_contrasts, open_inputs

if TYPE_CHECKING:
    from lmmjax.batchfit import BatchFit
    from lmmjax.model import Model

COPIES = 8
"""Copies of a chunk alive at once: two chunks, each as read, as floats and as rows of the model; blocks."""

SHARE = 0.25
"""Part of the available memory that these copies may take."""

BLOCKS = 16
"""Most calls of the engine (`lmmjax.batch.lanes.lane_count` responses each) in a chunk."""

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
    model: Model,
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
    """Fit `model` to every response of `source` and write the results to the Parquet file `out`.

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
    source, index, layer, rows : as for `lmmjax.sources.open_source`; what is
        read has the rows that `Model.fit_batch` asks for.
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
    lmmjax.processes.ProcessError : another process failed.
    """
    path = Path(out)
    parts = path.with_name(path.name + ".parts")
    with processes() as together:
        check_out(path, source, weights, offset)
        inputs = open_inputs(model, source, weights, offset, index=index, layer=layer, rows=rows)
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        wanted = named_contrasts(contrasts, list(model.frame.x_names))
        task = stream_parts.manifest(
            model,
            inputs.responses,
            reml,
            weights=inputs.weights,
            offset=inputs.offset,
            contrasts=[[name, row.tolist()] for name, row in wanted.items()],
        )
        size = _chunk_of_all(together, task, chunk, model, inputs)
        plan = None
        if together.index == 0:
            plan = _plan(path, parts, task, inputs.n_responses, size, resume, chunk is not None)
        plan = together.exchange(plan)[0]
        mine = plan["todo"][together.index :: together.count]
        if mine and not stream_parts.has_manifest(parts):
            raise ValueError(f"{parts} is not there: out must be in a folder that all processes share")
        done = inputs.n_responses - _count(plan["todo"])
        total, sizes = done + _count(mine), {k: stop - start for k, start, stop in mine}
        report = progress or (lambda done, total: None)
        report(done, total)
        results = _results(model, inputs, wanted, reml, mine)
        with closing(stream_parts.write_behind(parts, results)) as written:
            for k in written:
                done += sizes[k]
                report(done, total)
                together.check()
        together.exchange("fitted", UNLIMITED)
        ends = None
        if together.index == 0:
            if plan["count"]:
                stream_parts.join(parts, path, plan["count"])
            ends = stream_parts.count_ends(path)
        failed, singular = together.exchange(ends, UNLIMITED)[0]
    if failed and together.index == 0:
        warnings.warn(
            f"{failed} of {inputs.n_responses} responses could not be fitted; see the column status of "
            f"{path}",
            stacklevel=2,
        )
    resumed = inputs.n_responses - _count(plan["todo"])
    return Streamed(path, inputs.n_responses, _count(mine), failed, singular, resumed)


def ranges(total: int, chunk: int) -> list[tuple[int, int]]:
    """The responses [start, stop) of each chunk: as few chunks as possible, of sizes that differ by 1."""
    count = -(-total // chunk)
    edges = [total * k // count for k in range(count + 1)]
    return list(pairwise(edges))


def chunk_size(model: Model, sources: int = 1) -> int:
    """Responses a chunk, from the memory available; `sources` are the matrices that are read."""
    shared = model.maker.prepared.shared
    # a response has its values on the rows, and a few vectors of the engine
    rows = sources * (model.design.n + model.frame.n_dropped)
    bytes_each = COPIES * 8 * (rows + 4 * shared.vector)
    most = max(BLOCKS * lane_count(shared.vector, LANES), 4 * FEW) if shared.together else FEW
    return int(np.clip(SHARE * available_memory() / bytes_each, 1, most))


def result_columns(
    fits: BatchFit, names: pd.Index, contrasts: dict[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """The results of some responses, a column each: fixed effects, contrasts, variance components, status."""
    numbers = pd.api.types.is_integer_dtype(names.dtype)
    columns: dict[str, Any] = {"response": np.asarray(names) if numbers else [str(name) for name in names]}
    tables = {
        "estimate": fits.params,
        "se": fits.bse,
        "df": fits.df(),
        "t": fits.tvalues,
        "p": fits.pvalues,
    }
    for k, term in enumerate(fits.model.frame.x_names):
        columns |= {f"{what}:{term}": table.to_numpy()[:, k] for what, table in tables.items()}
    for name, row in (contrasts or {}).items():
        table = fits.contrast(row)
        columns |= {f"{what}:{name}": table[what].to_numpy() for what in tables}
    columns |= {str(name): values.to_numpy() for name, values in fits.sdcor.items()}
    return columns | {
        "deviance": fits.deviance,
        "status": fits.status.to_numpy(),
        "is_singular": fits.is_singular.to_numpy(),
        "n_iter": np.asarray(fits.estimate.n_iter, dtype=np.int32),
    }


# --- what is to be done ----------------------------------------------------------------------------------


def _chunk_of_all(
    together: Processes, task: dict[str, Any], chunk: int | None, model: Model, inputs: Inputs
) -> int:
    """Responses a chunk, for processes that were all given the same task."""
    sources = sum(source is not None for source in (inputs.responses, inputs.weights, inputs.offset))
    offer = {"task": task, "size": chunk or chunk_size(model, sources), "host": platform.node()}
    offers = together.exchange(offer)
    for k, other in enumerate(offers):
        stream_parts.agree(offers[0]["task"], other["task"], f"process {k} streams something else, it")
    if chunk is not None or together.count == 1:
        return offer["size"]
    hosts = [other["host"] for other in offers]
    share = min(other["size"] // hosts.count(other["host"]) for other in offers)
    return max(1, min(share, -(-task["n_responses"] // together.count)))


def _plan(
    path: Path, parts: Path, task: dict[str, Any], total: int, size: int, resume: bool, chosen: bool
) -> dict[str, Any]:
    """The chunks to fit, as [chunk, start, stop], and how many parts make the result; 0 if it is there."""
    if resume and not parts.exists() and path.exists():
        stream_parts.check_finished(path, task)
        return {"count": 0, "todo": []}
    chunks = ranges(total, stream_parts.begin(parts, task, size, resume, chosen))
    done = [stream_parts.is_done(parts, k, b - a) for k, (a, b) in enumerate(chunks)]
    todo = [[k, a, b] for k, (a, b) in enumerate(chunks) if not done[k]]
    return {"count": len(chunks), "todo": todo}


# --- fitting ---------------------------------------------------------------------------------------------


def _results(
    model: Model, inputs: Inputs, contrasts: dict[str, np.ndarray], reml: bool, todo: list[list[int]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(chunk, columns of its results) of each chunk [chunk, start, stop], while the next one is read."""
    for (k, start, stop), values in _read_ahead(inputs, todo):
        fits = _fit(model, reml, *values)
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
    model: Model, reml: bool, values: np.ndarray, weights: np.ndarray | None, offset: np.ndarray | None
) -> BatchFit:
    if weights is not None:
        values, weights = _excused(values, weights)
    with warnings.catch_warnings():
        # one warning counts the failures of all chunks
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        return model.fit_batch(values, reml, weights=weights, offset=offset)


def _excused(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights of which `fit_batch` refuses none: responses with bad weights are infinite instead.

    Their status is that of an infinite response. The weight of a missing value may be missing.
    """
    weights = np.where(np.isnan(values), 0.0, weights)
    good = (np.isfinite(weights) & (weights >= 0)).all(axis=0)
    return np.where(good, values, np.inf), np.where(good, weights, 1.0)


def _count(todo: list[list[int]]) -> int:
    """Responses in chunks [chunk, start, stop]."""
    return sum(stop - start for _, start, stop in todo)
