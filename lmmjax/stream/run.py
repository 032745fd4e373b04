"""Responses read in chunks, fitted, their results written; resumed after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from lmmjax.arrays.caller import stack_level
from lmmjax.fitted import (
    ModelData,
    require_count,
    require_switch,
)
from lmmjax.postestimation.hypotheses.estimability import require_estimable
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method
from lmmjax.stream.chunks import chunk_of_all, plan
from lmmjax.stream.digests import combine
from lmmjax.stream.inputs import named_contrasts, named_hypotheses, open_inputs, out_path
from lmmjax.stream.lock import locked
from lmmjax.stream.manifest import agree, has_manifest, manifest
from lmmjax.stream.parts import Result, count_ends, join, part_path, stamp_of, write_behind
from lmmjax.stream.processes import Processes, processes
from lmmjax.stream.work import Values, Work

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
    tests: Any = None,
    ddf: str = "satterthwaite",
    chunk: int | None = None,
    resume: bool = False,
    index: str | None = None,
    layer: str | None = None,
    rows: bool = False,
    also: Iterable[Any] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Streamed:
    """Fit a model to every response of `source` and write the results to the Parquet file `out`.

    Two chunks are in memory at a time: the one being fitted and the one being read. The result has a row a
    response: response, `estimate:NAME se:NAME df:NAME t:NAME p:NAME` for each fixed effect and each
    contrast, `F:NAME num_df:NAME den_df:NAME p:NAME` for each test, the standard deviations and
    correlations as `sd_(Intercept)|g`, `cor_x.(Intercept)|g` and `sigma`, deviance, status, is_singular,
    n_iter, n_optima and reason. Responses that cannot be fitted have their status, the reason and missing
    numbers.

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
    tests : hypotheses as texts, each with one or several equations that are tested together: "a = b; c = 0".
        Its text is its name.
    ddf : degrees of freedom, as for `BatchFit.t_tests`.
    chunk : most responses a chunk; by default what fits a quarter of the memory available.
    resume : continue what a killed call with the same arguments left in `OUT.parts`. By digests that is
        checked to be of the same model, design and options, and of the values that are in the sources now,
        which are read again.
    also : other files that are being read, which `out` may not replace either.
    progress : called as progress(done, total) at the start and after each chunk, without the chunks of other
        processes.

    Raises
    ------
    ValueError : a source is not one or damaged, its rows do not match, a contrast or test is wrong, `out` is
        a source or a device, another run writes to it, or what is resumed was something else or is damaged.
    OSError : a file cannot be written; names it.
    lmmjax.stream.ProcessError : another process failed.
    """
    for name, value in {"reml": reml, "resume": resume, "rows": rows}.items():
        require_switch(name, value)
    ddf = ddf_method(ddf)
    chunk = None if chunk is None else require_count("chunk", chunk)
    with processes() as together, contextlib.ExitStack() as held:
        path, parts = out_path(out, (*also, source, weights, offset))
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
        )
        size = chunk_of_all(together, task, chunk, data, inputs)
        planned = None
        if together.index == 0:
            held.enter_context(locked(path))
            planned = plan(path, parts, task, size, resume, chunk is not None)
        planned = together.exchange(planned)[0]
        whole = task | {"chunk": planned["chunk"]}
        work = Work(data, inputs, reml, ddf, wanted, hypotheses, whole)
        mine = planned["todo"][together.index :: together.count]
        if mine and not has_manifest(parts):
            raise ValueError(f"{parts} is not there: out must be in a folder that all processes share")
        _check_done(work, together, path, parts, planned)
        done = resumed = inputs.n_responses - _count(work, planned["todo"])
        total = done + _count(work, mine)
        report = progress or (lambda done, total: None)
        report(done, total)
        with closing(write_behind(parts, _results(work, mine))) as written:
            for k in written:
                done += _count(work, [k])
                report(done, total)
                together.check()
        together.exchange("fitted", UNLIMITED)
        ends = None
        if together.index == 0:
            if planned["digests"] is None:
                join(parts, path, work.manifest, planned["count"])
            ends = count_ends(path)
        failed, singular = together.exchange(ends, UNLIMITED)[0]
    if failed and together.index == 0:
        warnings.warn(
            f"{failed} of {inputs.n_responses} responses could not be fitted; see the column status of "
            f"{path}",
            stacklevel=stack_level(),
        )
    return Streamed(path, inputs.n_responses, _count(work, mine), failed, singular, resumed)


def _check_done(work: Work, together: Processes, path: Path, parts: Path, planned: dict[str, Any]) -> None:
    """ValueError unless what is done was made from the values there are now; each process takes a share."""
    mine = planned["done"][together.index :: together.count]
    stamps = []
    for k, values in _read_ahead(work, mine):
        stamps.append(work.stamp(k, values))
        if planned["digests"] is None:
            start, stop = work.span(k)
            there = stamp_of(parts, k) or {}
            what = f"{part_path(parts, k)} (responses {start} to {stop - 1}) cannot be resumed, it"
            agree(there, {name: stamps[-1][name] for name in ("run", "part")}, what)
            agree(there["digests"], stamps[-1]["digests"], what, "values of the ")
    if planned["digests"] is not None:
        found = sorted(chain(*together.exchange(stamps, UNLIMITED)), key=lambda stamp: stamp["part"])
        now = combine(stamp["digests"] for stamp in found)
        agree(planned["digests"], now, f"{path} cannot be resumed, it", "values of the ")


def _count(work: Work, chunks: list[int]) -> int:
    """Responses in some chunks."""
    return sum(stop - start for start, stop in map(work.span, chunks))


def _results(work: Work, todo: list[int]) -> Iterator[Result]:
    """The results of each chunk, while the next one is read."""
    for k, values in _read_ahead(work, todo):
        columns, stamp = work.columns(k, values), work.stamp(k, values)
        del values
        yield k, columns, stamp


def _read_ahead(work: Work, todo: list[int]) -> Iterator[tuple[int, Values]]:
    """(chunk, values) of each, the next being read by a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(work.read, k) for k in todo[:1]]
        for i, k in enumerate(todo):
            values = coming.pop().result()
            coming += [pool.submit(work.read, after) for after in todo[i + 1 : i + 2]]
            yield k, values
            del values
