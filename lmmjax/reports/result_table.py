"""Results of a batch as one table, a row a response: for files, and for AnnData."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import FittedMany, component_names, identified_sds
from lmmjax.postestimation.averages import response_means
from lmmjax.reports.batch_tables import Table, labelled_contrasts
from lmmjax.reports.top_tables import Tests

TESTED = ("estimate", "se", "df", "t", "p", "q")


def result_table(fits: FittedMany, tests: Tests, contrasts: Any = None) -> pd.DataFrame:
    """Fixed effects and contrasts with their tests, variances as sd and correlations, how the fits ended.

    Columns are `average`, `estimate:x`, `se:x`, …, `sd_(Intercept)|g`, `sigma`, `deviance`, `status`,
    `is_singular`, `n_iter`, `n_starts`, `n_optima` and `reason`.

    Raises
    ------
    ValueError : a contrast that is called like a fixed effect or another one.
    """
    columns: dict[str, Any] = {"average": response_means(fits)}
    columns |= _tested(tests.fixed(), fits.data.x_names)
    if contrasts is not None:
        rows, labels, _ = labelled_contrasts(fits, contrasts)
        taken = [*fits.data.x_names]
        for label in labels:
            if label in taken:
                raise ValueError(f"two columns would be called 'estimate:{label}': name the contrast")
            taken.append(label)
        columns |= _tested(tests.tested(rows, labels), labels)
    components = fits.data.components
    sds = identified_sds(fits.data.design.structure, components, fits.estimate)
    columns |= dict(zip(component_names(components), sds.T, strict=True))
    columns |= {
        "deviance": np.asarray(fits.estimate.deviance),
        "status": fits.status,
        "is_singular": np.asarray(fits.estimate.singular),
        "n_iter": np.asarray(fits.estimate.n_iter, dtype=np.int32),
        "n_starts": np.asarray(fits.n_starts, dtype=np.int32),
        "n_optima": np.asarray(fits.n_optima, dtype=np.int32),
        "reason": [str(reason) for reason in fits.reasons],
    }
    return pd.DataFrame(columns, index=fits.names)


def _tested(table: Table, names: list[str]) -> dict[str, np.ndarray]:
    return {f"{what}:{name}": table[what][:, k] for k, name in enumerate(names) for what in TESTED}
