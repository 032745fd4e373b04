"""Responses read in chunks, fitted, their results written; resumed after a kill."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lmmjax.arrays.caller import stack_level
from lmmjax.arrays.other_arguments import answered
from lmmjax.fitted import ModelData
from lmmjax.stream.carry import Conduct, carried_out
from lmmjax.stream.chunks import chunk_of
from lmmjax.stream.inputs import out_path
from lmmjax.stream.moderated import moderate_results
from lmmjax.stream.parts import count_ends
from lmmjax.stream.portable import portable
from lmmjax.stream.work import Work, work_of


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What `stream_batch` did.

    Attributes
    ----------
    path : the Parquet file of results.
    n_responses : T; `n_fitted` of them in this call, `n_resumed` before it was resumed.
    n_failed, n_singular : responses that could not be fitted; fits on the boundary.
    """

    path: Path
    n_responses: int
    n_fitted: int
    n_failed: int
    n_singular: int
    n_resumed: int = 0

    def __repr__(self) -> str:
        counts = f"{self.n_failed:,} failed, {self.n_singular:,} singular, {self.n_resumed:,} resumed"
        return f"Streamed({str(self.path)!r},\n  {self.n_responses:,} responses, {counts})"


@answered
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
    moderate: bool = False,
    icc: bool = False,
    also: Iterable[Any] = (),
    progress: Callable[[int, int], None] | None = None,
    executor: Any = None,
) -> Streamed:
    """Fit a model to every response of `source` and write the results to the Parquet file `out`.

    Two chunks are in memory at a time: the one being fitted and the one being read. The result has a row a
    response: response, `estimate:NAME se:NAME df:NAME t:NAME p:NAME` for each fixed effect and each
    contrast, `F:NAME num_df:NAME den_df:NAME p:NAME` for each test, the standard deviations and
    correlations as `sd_(Intercept)|g`, `cor_x.(Intercept)|g` and `sigma`, deviance, status, is_singular,
    n_iter, n_optima and reason. Responses that cannot be fitted have their status, the reason and missing
    numbers.

    A chunk is a shard: a function of the arguments and its number, written whole or not at all. With an
    `executor` shards are made by its workers, each by a call that is told its number; a shard whose worker
    dies is tried again, and what was written before is not made twice.

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
    moderate : t, df, p of t tests and F of F tests are moderated (`BatchFit.moderate`), once all parts are
        there, and s2, df_residual and s2_post are columns. icc : a column icc:GROUP for each grouping factor.
    also : other files that are being read, which `out` may not replace either.
    progress : called as progress(done, total) at the start and after each chunk.
    executor : whatever has `submit` as the executors of `concurrent.futures`: a `dask.distributed.Client`
        (docs/shards.md), a process pool that does not fork, an executor of submitit. `out` must be in a
        folder that all workers share, and so must sources that are paths; what is in memory is first written
        to `OUT.parts`.

    Raises
    ------
    ValueError : a source is not one or damaged, its rows do not match, a contrast or test is wrong, `out` is
        a source or a device, another run writes to it, or what is resumed was something else or is damaged.
    OSError : a file cannot be written; names it.
    lmmjax.stream.ShardError : no worker could make a shard. What was made stays, for `resume`.
    """
    how = Conduct(resume, chunk, executor, progress)
    path, parts = out_path(out, (*also, source, weights, offset))
    options = {"index": index, "layer": layer, "rows": rows}
    asked = work_of(
        data,
        source,
        reml=reml,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        tests=tests,
        ddf=ddf,
        moderate=moderate,
        icc=icc,
        **options,
    )
    given = {"responses": source, "weights": weights, "offset": offset}
    total = asked.total

    def moved(work: Work) -> Work:
        return portable(work, given, options, parts)

    with carried_out(asked, path, parts, how, size=chunk_of, portable=moved) as resumed:
        if moderate:
            # also where a run ended just before
            moderate_results(path)
        failed, singular = count_ends(path)
    if failed:
        warnings.warn(
            f"{failed} of {total} responses could not be fitted; see the column status of {path}",
            stacklevel=stack_level(),
        )
    return Streamed(path, total, total - resumed, failed, singular, resumed)
