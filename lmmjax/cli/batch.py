"""The command `lmmjax batch`: responses from a file, results to a Parquet file."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from lmmjax.cli.batch_options import (
    BatchFormula,
    Chunk,
    Design,
    Icc,
    Index,
    Moderate,
    Out,
    ResponseOffset,
    Responses,
    ResponseWeights,
    Rows,
    Tests,
    out_parquet,
    read_design,
)
from lmmjax.cli.batch_results import long_table, with_q, write_maps
from lmmjax.cli.common import (
    AllowPython,
    Contrasts,
    Ddf,
    Force,
    MaximumLikelihood,
    Weights,
    check_words,
    counting,
    one_line_errors,
    seconds,
    waiting,
    write_table,
)
from lmmjax.cli.levels import Kernels, References, model_of
from lmmjax.fitted import require_known
from lmmjax.results.batch.images import image_responses
from lmmjax.stream.inputs import named_contrasts, named_hypotheses
from lmmjax.stream.packages import pyarrow

EXAMPLES = """Examples

lmmjax batch '~ Sex + age + (1 | donor)' samples.csv genes.tsv -o genes.parquet --top 'Sex[T.Female]'

lmmjax batch '~ dose + (1 | plate)' wells.csv y.csv -o out.csv --rows --ddf kr --test 'dose = 1'

lmmjax batch '~ time + (time | id)' visits.csv voxels.npy -o out.parquet --resume

lmmjax batch '~ age + (1 | id)' scans.csv path -o out.parquet --mask brain.nii.gz --maps maps"""

FOREMOST = 10
"""Responses that `--top` shows."""


def batch(
    formula: BatchFormula,
    design: Design,
    responses: Responses,
    out: Out,
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    ref: References = None,
    kernel: Kernels = None,
    response_weights: ResponseWeights = None,
    response_offset: ResponseOffset = None,
    ddf: Ddf = "satterthwaite",
    contrast: Contrasts = None,
    test: Tests = None,
    top: Annotated[
        str | None,
        typer.Option(
            help=f"At the end print the {FOREMOST} responses with the smallest p of this coefficient, "
            "contrast or test.",
            metavar="TERM",
        ),
    ] = None,
    moderate: Moderate = False,
    icc: Icc = False,
    long: Annotated[
        bool, typer.Option("--long/--wide", help="A row a response and term, or a row a response.")
    ] = False,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="RESPONSES are images (a file, or a column of DESIGN with their paths): fit inside of this "
            "one.",
            metavar="FILE",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(help="Also write the results as images into this folder.", metavar="FOLDER"),
    ] = None,
    index: Index = None,
    rows: Rows = False,
    chunk: Chunk = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was killed.")] = False,
    force: Force = False,
    allow_python: AllowPython = False,
) -> None:
    """Fit a model to every response of a file and write a row of results for each.

    Formula, options and all files are checked before the first fit.
    The exit code is 0 if all responses were read, whatever the status of
    their fits: the last line counts those that could not be fitted.
    """
    begin = time.perf_counter()
    with one_line_errors(), warnings.catch_warnings():
        # the last line counts them
        warnings.filterwarnings("ignore", message=".*could not be fitted")
        check_words(formula, ddf)
        parquet = out_parquet(out, [design, responses, response_weights, response_offset], resume, force)
        with waiting("reading the design"):
            table, index = read_design(design, responses, index, rows)
            model = model_of(formula, table, weights, ref, kernel, allow_python)
            source = image_responses(model.data, responses, None if mask is None else str(mask))
            if maps is not None:
                if not hasattr(source, "to_img"):
                    raise ValueError("--maps is for responses that are images")
                maps.mkdir(parents=True, exist_ok=True)
            names = model.data.x_names
            tested = [*names, *named_contrasts(contrast, names), *named_hypotheses(test, names)]
            if top is not None:
                top = " ".join(top.split())
                require_known("coefficient, contrast or test of --top", [top], tested)
        with counting() as show:
            options: dict[str, Any] = {
                "reml": not ml,
                "weights": response_weights,
                "offset": response_offset,
                "contrasts": contrast,
                "tests": test,
                "ddf": ddf,
                "index": index,
                "rows": rows,
            }
            options |= {"moderate": moderate, "icc": icc}
            options |= {"chunk": chunk, "resume": resume, "also": [design], "progress": show}
            result = model.stream_batch(source, parquet, **options)
        with waiting("writing"):
            with_q(parquet)
            foremost = None if top is None else _foremost(parquet, top)
            if maps is not None:
                write_maps(maps, source, pd.read_parquet(parquet))
            if parquet != out or long:
                wide = pd.read_parquet(parquet)
                write_table(out, long_table(wide) if long else wide)
            if parquet != out:
                parquet.unlink()
    if foremost is not None:
        typer.echo(f"{top}, smallest p first; q by Benjamini and Hochberg over all responses:\n")
        typer.echo(foremost.to_string(index=False) + "\n")
    typer.echo(
        f"{result.n_fitted:,} responses fitted in {seconds(time.perf_counter() - begin)}"
        + (f" ({result.n_resumed:,} were done before)" if result.n_resumed else "")
        + f": {result.n_singular:,} on the boundary, {result.n_failed:,} could not be fitted. "
        f"Results: {out}"
    )


def _foremost(path: Path, name: str) -> pd.DataFrame:
    """The responses with the smallest p of a coefficient, contrast or test."""
    there = pyarrow("parquet").read_schema(path).names
    wanted = [column for column in there if column.partition(":")[2] == name]
    table = pd.read_parquet(path, columns=["response", *wanted])
    table.columns = ["response", *(column.partition(":")[0] for column in wanted)]
    return table.sort_values("p", kind="stable").head(FOREMOST).dropna(subset="p")
