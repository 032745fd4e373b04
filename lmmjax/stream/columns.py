"""The table of results, a row a response."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import FittedMany, component_names, identified_sds
from lmmjax.postestimation.hypotheses.batch_f_tests import TABLE, f_tests
from lmmjax.postestimation.hypotheses.batch_tests import estimable_combinations, fixed_t_tests, t_tests

Hypotheses = dict[str, tuple[np.ndarray, np.ndarray]]
"""Rows L (k, p) and right-hand sides (k,) by name."""

TESTS = ("estimate", "se", "df", "t", "p")


def result_columns(
    fits: FittedMany,
    names: pd.Index,
    ddf: str,
    contrasts: dict[str, np.ndarray],
    hypotheses: Hypotheses,
) -> dict[str, Any]:
    """The results of some responses, a column each: fixed effects, contrasts, hypotheses, variances, status.

    `ddf` is a key of `fixed_tests.METHODS`.
    """
    numbers = pd.api.types.is_integer_dtype(names.dtype)
    columns: dict[str, Any] = {"response": np.asarray(names) if numbers else [str(name) for name in names]}
    fixed = fixed_t_tests(fits, ddf)
    for k, term in enumerate(fits.data.x_names):
        columns |= {f"{what}:{term}": fixed[what][:, k] for what in TESTS}
    for name, row in contrasts.items():
        tests = t_tests(fits, row[None], ddf, estimable_combinations(fits, row[None]))
        columns |= {f"{what}:{name}": tests[what][:, 0] for what in TESTS}
    for name, (rows, rhs) in hypotheses.items():
        reported = estimable_combinations(fits, rows).all(axis=1, keepdims=True)
        found = f_tests(fits, rows, rhs, [np.arange(len(rows))], ddf, np.asarray(reported))
        columns |= {f"{what}:{name}": found[what][:, 0] for what in TABLE}
    components = fits.data.components
    columns |= dict(
        zip(
            component_names(components),
            identified_sds(fits.data.design.structure, components, fits.estimate).T,
            strict=True,
        )
    )
    return columns | {
        "deviance": np.asarray(fits.estimate.deviance),
        "status": fits.status,
        "is_singular": np.asarray(fits.estimate.singular),
        "n_iter": np.asarray(fits.estimate.n_iter, dtype=np.int32),
        "n_optima": np.asarray(fits.n_optima, dtype=np.int32),
        "reason": [str(reason) for reason in fits.reasons],
    }
