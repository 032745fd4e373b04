"""A fit as JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

import lmmjax
from lmmjax import Fit


def report(result: Fit, ddf: str, tests: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What `--json` writes; numbers that do not exist, such as standard errors on a boundary, are null.

    `tests` are tables by title, of which each row is a record; one with names has them as "name".
    """
    data = result.model.data
    fixed = result.coef_table(ddf)
    return {
        "lmmjax": lmmjax.__version__,
        "formula": data.formula,
        "method": "REML" if result.reml else "ML",
        "ddf": fixed.attrs["ddf"],
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
        "tests": {title: _records(table) for title, table in tests.items()},
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    named = not table.index.equals(pd.RangeIndex(len(table)))
    names = [{"name": str(name)} if named else {} for name in table.index]
    return [own | _plain(row) for own, row in zip(names, table.to_dict("records"), strict=True)]


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """Python's own numbers, and None for what is missing or infinite."""

    def plain(value: Any) -> Any:
        if isinstance(value, float | np.floating):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, np.generic):
            return value.item()
        return value if value is None or isinstance(value, bool | int | str) else str(value)

    return {str(name): plain(value) for name, value in row.items()}
