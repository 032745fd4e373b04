"""The command `lmmjax fit`: a model of a table, its summary and tests printed, its results in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from lmmjax import Fit, Model
from lmmjax.cli.common import (
    FAILED,
    AllowPython,
    Contrasts,
    Ddf,
    JsonFile,
    MaximumLikelihood,
    Weights,
    check_words,
    one_line_errors,
    read_table,
    table_target,
    waiting,
    write_json,
    write_table,
)
from lmmjax.cli.levels import Kernels, References, model_of
from lmmjax.cli.report import report
from lmmjax.formula.matching import is_default
from lmmjax.postestimation.hypotheses.estimability import require_estimable
from lmmjax.postestimation.means.linear import marginal_means
from lmmjax.postestimation.means.tables import printed_notes
from lmmjax.postestimation.predictions.predict import INTERVALS, Request, check, new_rows
from lmmjax.stream.files import target
from lmmjax.stream.inputs import named_contrasts

EXAMPLES = """Examples

lmmjax fit 'Reaction ~ Days + (Days | Subject)' sleepstudy.csv --ddf kenward-roger --json fit.json

lmmjax fit 'score ~ Machine + (Machine | Worker)' machines.csv --anova --emmeans Machine

lmmjax fit 'y ~ dose + (1 | clinic)' trial.csv --predict out.csv --new patients.csv --new-levels population"""

COLUMNS = ("fit", "se", "lower", "upper")


def fit(
    formula: Annotated[str, typer.Argument(help="As in lme4: 'y ~ x + (x | group)'.")],
    data: Annotated[
        Path, typer.Argument(help="CSV, TSV or Parquet file with a header; text may be compressed.")
    ],
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    ref: References = None,
    kernel: Kernels = None,
    ddf: Ddf = "satterthwaite",
    anova: Annotated[
        bool, typer.Option("--anova", help="Also print F tests of the fixed terms, of type III.")
    ] = False,
    contrast: Contrasts = None,
    emmeans: Annotated[
        list[str] | None,
        typer.Option(
            help="Also print marginal means and their differences: 'a', 'a * b', 'a | b'. Repeatable.",
            metavar="FACTORS",
        ),
    ] = None,
    ranef: Annotated[
        Path | None,
        typer.Option(help="Write the random effects of all groups to this file.", metavar="FILE"),
    ] = None,
    predict: Annotated[
        Path | None,
        typer.Option(
            help="Write the data with predictions and limits, on the scale of FORMULA's response.",
            metavar="FILE",
        ),
    ] = None,
    new: Annotated[
        Path | None, typer.Option(help="Predict the rows of this file, not those of DATA.", metavar="FILE")
    ] = None,
    interval: Annotated[
        str, typer.Option(help="Limits of predictions: prediction (new responses), confidence (means), none.")
    ] = "prediction",
    new_levels: Annotated[
        str, typer.Option(help="Groups that DATA has not: error, or population, whose effect is 0.")
    ] = "error",
    json_file: JsonFile = None,
    allow_python: AllowPython = False,
) -> None:
    """Fit a model to a table and print its summary.

    Formula, options and all files are checked before the fit begins.
    Files that are written end in .csv, .tsv, .parquet or .json.
    """
    with one_line_errors():
        check_words(formula, ddf)
        inputs = [data, *([] if new is None else [new])]
        json_file = None if json_file is None else target(json_file, inputs, "--json")
        ranef, predict = table_target(ranef, inputs, "--ranef"), table_target(predict, inputs, "--predict")
        _require_different(json_file, ranef, predict)
        if new is not None and predict is None:
            raise ValueError("--new has the rows to predict: name a file for them, --predict FILE")
        request = None if predict is None else _request(interval, new_levels, ddf)
        with waiting("reading and fitting"):
            table = read_table(data)
            model = model_of(formula, table, weights, ref, kernel, allow_python)
            if ranef is not None and not model.data.frame.random:
                raise ValueError(f"the model has no random effects to write: leave out --ranef {ranef}")
            rows = table if new is None else read_table(new)
            wanted = named_contrasts(contrast, model.data.x_names)
            _check(model, wanted, emmeans or [], rows, request)
            result = model.fit(reml=not ml)
        with waiting("tests"):
            said = str(result.summary(ddf))
        typer.echo(said)
        with waiting("tests"):
            tests = _tests(result, ddf, anova, wanted, emmeans or [])
        for title, found in tests.items():
            typer.echo(_shown(title, found))
        with waiting("writing"):
            if ranef is not None:
                write_table(ranef, _plain_table(result.ranef()))
            if predict is not None and request is not None:
                write_table(predict, _predictions(result, rows, request))
            if json_file is not None:
                write_json(json_file, report(result, ddf, tests))
    if not result.converged:
        raise typer.Exit(FAILED)


def _request(interval: str, new_levels: str, ddf: str) -> Request:
    if interval not in (*INTERVALS, "none"):
        raise ValueError(f"unknown --interval {interval!r}; choose one of: {', '.join(INTERVALS)}, none")
    limits = None if interval == "none" else interval
    return Request(new_levels=new_levels, interval=limits, ddf=ddf)


def _require_different(*files: Path | None) -> None:
    found = [file.resolve() for file in files if file is not None]
    if len(set(found)) < len(found):
        twice = next(file for file in found if found.count(file) > 1)
        raise ValueError(f"{twice} is to be written twice: name different files")


def _check(
    model: Model, contrasts: dict[str, Any], emmeans: list[str], rows: pd.DataFrame, request: Request | None
) -> None:
    """ValueError for what the fit could not answer."""
    model.data.response()
    require_estimable(model.data, contrasts)
    for specs in emmeans:
        marginal_means(model.data, specs, None, None, "equal", None)
    if request is not None:
        if taken := [name for name in COLUMNS if name in rows.columns]:
            raise ValueError(
                f"the rows to predict have a column {taken[0]!r}, as predictions have: rename it"
            )
        check(model.data, rows, request)
        new_rows(model.data, rows, request)


def _tests(
    result: Fit, ddf: str, anova: bool, contrasts: dict[str, Any], emmeans: list[str]
) -> dict[str, pd.DataFrame]:
    """Tables by their titles."""
    tables: dict[str, pd.DataFrame] = {}
    if anova:
        tables["Analysis of variance, type III"] = result.anova(ddf=ddf)
    if contrasts:
        tables["Contrasts"] = result.contrast(contrasts, ddf=ddf)
    for specs in emmeans:
        means = result.emmeans(specs, ddf=ddf)
        tables[f"Marginal means of {specs}"] = means.table
        if len(means.table) > 1:
            tables[f"Differences of {specs}, p-values and limits adjusted"] = means.pairs().table
    return tables


def _shown(title: str, table: pd.DataFrame) -> str:
    """A table below its title, with what its attributes say."""
    named = not table.index.equals(pd.RangeIndex(len(table)))
    notes = printed_notes(table.attrs) if "level" in table.attrs else []
    return "\n".join([f"\n{title}:", table.to_string(index=named), *notes])


def _predictions(result: Fit, rows: pd.DataFrame, request: Request) -> pd.DataFrame:
    """The rows with their predictions."""
    options = {"new_levels": request.new_levels, "interval": request.interval, "ddf": request.ddf}
    found = result.predict(rows, **options)
    found = found.rename("fit").to_frame() if isinstance(found, pd.Series) else pd.DataFrame(found)
    if not is_default(rows.index):
        rows = rows.assign(row=rows.index)
    return _plain_table(rows.assign(**{str(name): found[name].to_numpy() for name in found}))


def _plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """A frame of pandas, its columns of labels as text where they are of several types."""
    plain = pd.DataFrame(table)
    mixed = [name for name in plain if plain[name].dtype == object]
    return plain.assign(**{str(name): plain[name].map(str, na_action="ignore") for name in mixed})
