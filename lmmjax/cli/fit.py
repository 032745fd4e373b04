"""The command `lmmjax fit`: a model of a CSV file, its summary printed, its results as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import lmmjax
from lmmjax import Fit
from lmmjax.cli.common import (
    NOT_CONVERGED,
    AllowPython,
    MaximumLikelihood,
    Weights,
    one_line_errors,
    read_csv,
)
from lmmjax.stream.files import target, written_whole


def fit(
    formula: Annotated[str, typer.Argument(help="As in lme4: 'y ~ x + (x | group)'.")],
    data: Annotated[Path, typer.Argument(help="CSV file with a header line; may be compressed.")],
    ml: MaximumLikelihood = False,
    weights: Weights = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.", metavar="FILE")
    ] = None,
    allow_python: AllowPython = False,
) -> None:
    """Fit a model to a CSV file and print its summary.

    The exit code is 0 if the fit converged, 1 if it did not, 2 if the formula or the data are wrong.
    """
    with one_line_errors():
        if json_file is not None:
            json_file = target(json_file, [data], "--json")
        model = lmmjax.lmm(formula, read_csv(data), weights=weights, safe=not allow_python)
        result = model.fit(reml=not ml)
        typer.echo(str(result.summary()))
        if json_file is not None:
            with written_whole(json_file) as file:
                file.write((json.dumps(report(result), indent=2, allow_nan=False) + "\n").encode())
    if not result.converged:
        raise typer.Exit(NOT_CONVERGED)


def report(result: Fit) -> dict[str, Any]:
    """What `--json` writes; numbers that do not exist, such as standard errors on a boundary, are null."""
    data = result.model.data
    fixed = result.coef_table()
    return {
        "lmmjax": lmmjax.__version__,
        "formula": data.formula,
        "method": "REML" if result.reml else "ML",
        "nobs": result.nobs,
        "dropped_rows": data.frame.n_dropped,
        "dropped_columns": list(data.frame.aliased),
        "groups": {term.group: len(term.levels) for term in data.frame.random},
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
