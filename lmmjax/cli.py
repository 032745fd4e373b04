"""The command line: `lmmjax fit`, `lmmjax batch` (in `cli_batch`) and `lmmjax demo`."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import lmmjax
from lmmjax import BatchFit, Fit
from lmmjax.cli_batch import batch

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Linear mixed models."
)

BAD_INPUT, NOT_CONVERGED = 2, 1

CHUNK = 2048
"""Most responses of the demonstration that are fitted between two moves of the progress bar."""


def main() -> None:
    """Entry point of the command `lmmjax`."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lmmjax {lmmjax.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # an application may change JAX's global configuration; without a home directory it does without
    with contextlib.suppress(OSError, RuntimeError):
        lmmjax.enable_compilation_cache()


@app.command()
def fit(
    formula: Annotated[str, typer.Argument(help="As in lme4: 'y ~ x + (x | group)'.")],
    data: Annotated[Path, typer.Argument(help="CSV file with a header line; may be compressed.")],
    ml: Annotated[bool, typer.Option("--ml", help="Maximum likelihood instead of REML.")] = False,
    weights: Annotated[
        str | None, typer.Option(help="Column of prior weights w: Var(ε) = σ²/w.", metavar="COL")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.", metavar="FILE")
    ] = None,
) -> None:
    """Fit a model to a CSV file and print its summary.

    The exit code is 0 if the fit converged, 1 if it did not, 2 if the formula or the data are wrong.
    """
    with _one_line_errors():
        result = lmmjax.lmm(formula, _read(data), weights=weights).fit(reml=not ml)
        typer.echo(str(result.summary()))
        if json_file is not None:
            json_file.write_text(json.dumps(report(result), indent=2, allow_nan=False) + "\n", "utf-8")
    if not result.converged:
        raise typer.Exit(NOT_CONVERGED)


app.command()(batch)


@app.command()
def demo(
    responses: Annotated[int, typer.Option(help="Responses to simulate and fit.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
) -> None:
    """Fit sleepstudy, then many responses simulated on its design, and say what happened."""
    console = Console(highlight=False)
    with _one_line_errors():
        one = _demo_one(console)
        _demo_many(console, one, responses, seed)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from None


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Bad input ends with its message and exit code 2."""
    try:
        yield
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, ImportError) as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    typer.echo(f"lmmjax: {message}", err=True)
    raise typer.Exit(BAD_INPUT)


def report(result: Fit) -> dict[str, Any]:
    """What `--json` writes; numbers that do not exist, such as standard errors on a boundary, are null."""
    frame = result.model.frame
    fixed = result.coef_table()
    return {
        "lmmjax": lmmjax.__version__,
        "formula": result.model.formula,
        "method": "REML" if result.reml else "ML",
        "nobs": result.nobs,
        "dropped_rows": frame.n_dropped,
        "dropped_columns": list(frame.aliased),
        "groups": {term.group: len(term.levels) for term in frame.random},
        "fixed_effects": {str(name): _plain(row.to_dict()) for name, row in fixed.iterrows()},
        "variance_components": [_plain(row) for row in result.varcorr().to_dict("records")],
        "criterion": _plain(
            {name: getattr(result, name) for name in ("deviance", "llf", "aic", "bic", "aicc")}
        ),
        "convergence": _plain(
            {
                "converged": result.converged,
                "singular": result.is_singular,
                "status": result.status,
                "grad_norm": result.grad_norm,
                "n_iter": result.n_iter,
            }
        ),
    }


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """Python's own numbers, and None for what is missing or infinite."""

    def plain(value: Any) -> Any:
        if isinstance(value, float | np.floating):
            return float(value) if math.isfinite(value) else None
        return value.item() if isinstance(value, np.generic) else value

    return {str(name): plain(value) for name, value in row.items()}


# --- the demonstration -----------------------------------------------------------------------------------


def _demo_one(console: Console) -> Fit:
    from lmmjax.datasets import SOURCES, load

    data = load("sleepstudy")
    console.rule("One model")
    console.print(f"Data: {SOURCES['sleepstudy'].about}.\n")
    model = lmmjax.lmm("Reaction ~ Days + (Days | Subject)", data)
    begin = time.perf_counter()
    result = model.fit()
    first = time.perf_counter() - begin
    typer.echo(str(result.summary()))
    begin = time.perf_counter()
    model.fit()
    again = time.perf_counter() - begin
    console.print(
        f"\nThe first fit took {_seconds(first)}, compilation included; the next {_seconds(again)}.\n"
    )
    return result


def _demo_many(console: Console, truth: Fit, responses: int, seed: int) -> None:
    import jax

    console.rule("Many responses")
    console.print(
        f"Now {responses:,} new responses, simulated from this fit on the same subjects and days. "
        "The model is fitted by REML to every one of them, each to its own optimum.\n"
    )
    model = truth.model
    simulated = truth.simulate(jax.random.key(seed), responses)
    edges = np.linspace(0, responses, math.ceil(responses / CHUNK) + 1).astype(int)
    chunks = [simulated.iloc[:, a:b] for a, b in pairwise(edges)]
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bar, console=console) as progress:

        def fit_all(what: str) -> tuple[list[BatchFit], float]:
            task = progress.add_task(what, total=responses)
            begin, batches = time.perf_counter(), []
            for chunk in chunks:
                batches.append(model.fit_batch(chunk))
                progress.advance(task, chunk.shape[1])
            return batches, time.perf_counter() - begin

        _, first = fit_all("compiling and fitting")
        batches, again = fit_all("fitting again")
    console.print(
        f"{responses:,} fits took {_seconds(first)} with compilation, and {_seconds(again)} when done again: "
        f"{_seconds(again / responses)} per fit."
    )
    converged = sum(int(b.converged.sum()) for b in batches)
    singular = sum(int(b.is_singular.sum()) for b in batches)
    console.print(
        f"{converged:,} of them converged: gradient and Newton decrement are below tolerance. "
        f"{singular:,} lie on the boundary (a variance estimated as 0, or a correlation as ±1).\n"
    )
    alone = model.fit_response(simulated[0].to_numpy())
    difference = abs(alone.deviance - float(batches[0].deviance[0]))
    console.print(
        f"The first response fitted by itself has the same REML criterion, {alone.deviance:.4f} "
        f"(difference {difference:.0e}).\n"
    )
    console.print("How the estimates agree with the truth that the responses were simulated from:\n")
    console.print(_recovery(truth, batches))
    groups = len(model.frame.random[0].levels)
    console.print(
        "\nCoverage is the share of the intervals estimate ± 1.96 standard errors that hold the truth; "
        f"with {groups} groups the normal quantile is a little too small for 95 %."
    )


def _recovery(truth: Fit, batches: list[BatchFit]) -> Table:
    """Truth, mean and spread of the estimates, and coverage of the 95 % Wald intervals."""
    estimates = np.concatenate([b.estimate.beta for b in batches])
    errors = np.concatenate([b.bse.to_numpy() for b in batches])
    psi = np.concatenate([b.estimate.psi for b in batches])
    true_beta, true_psi = truth.params.to_numpy(), truth.estimate.psi
    covered = np.mean(np.abs(estimates - true_beta) <= 1.959964 * errors, axis=0)
    table = Table("", "truth", "mean of fits", "sd of fits", "coverage", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value, fits, share in zip(truth.params.index, true_beta, estimates.T, covered, strict=True):
        table.add_row(
            str(name), *(f"{v:.3f}" for v in (value, np.nanmean(fits), np.nanstd(fits))), f"{share:.1%}"
        )
    parts = [
        ", ".join(name.strip("()") for name in (c.term1, c.term2) if name)
        for c in truth.model.components[:-1]
    ]
    names = [f"cov({part})" if "," in part else f"var({part})" for part in parts]
    for name, value, fits in zip([*names, "var(residual)"], true_psi, psi.T, strict=True):
        table.add_row(name, *(f"{v:.2f}" for v in (value, np.nanmean(fits), np.nanstd(fits))), "")
    return table


def _seconds(value: float) -> str:
    """A duration with three digits and a fitting unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


if __name__ == "__main__":
    main()
