"""Moderated tests of a streamed batch: parts keep what a prior may change; when all are there, it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmmjax.fitted import FittedMany, by_reml_many
from lmmjax.inference.moderation.moderated import JointTests, Regressions, Shrinkage, variance_prior
from lmmjax.postestimation.hypotheses.batch_moderated import (
    Unmoderated,
    UnmoderatedF,
    residual_variances,
    unmoderated,
    unmoderated_hypothesis,
)
from lmmjax.postestimation.hypotheses.batch_tests import estimable_combinations
from lmmjax.stream.columns import Hypotheses
from lmmjax.stream.files import written_whole
from lmmjax.stream.packages import pyarrow
from lmmjax.stream.parts import written

KEPT = "unmoderated "
"""How the names of columns begin that are gone from the moderated table."""


def unmoderated_columns(
    fits: FittedMany, ddf: str, contrasts: dict[str, np.ndarray], hypotheses: Hypotheses
) -> dict[str, Any]:
    """Columns of some responses by REML that `moderate_results` will read, with estimate:NAME."""
    fits = by_reml_many(fits)
    s2, df = residual_variances(fits)
    names = fits.data.x_names
    fixed = unmoderated(fits, np.eye(len(names)), ddf)
    found: dict[str, Any] = {"s2": s2, "df_residual": df}
    found[f"{KEPT}residual"] = fixed.regressions.residual
    for k, name in enumerate(names):
        found |= _t_columns(name, fixed, k)
    for name, row in contrasts.items():
        own = unmoderated(fits, row[None], ddf, estimable_combinations(fits, row[None]))
        found |= _t_columns(name, own, 0)
    for name, (rows, right) in hypotheses.items():
        reported = np.asarray(estimable_combinations(fits, rows).all(axis=1))
        joint = unmoderated_hypothesis(fits, rows, right, ddf, reported)
        apart = joint.tests_apart
        found[f"{KEPT}num_df:{name}"] = joint.num_df
        for i in range(len(rows)):
            found[f"{KEPT}b{i}:{name}"] = apart.regressions.b[:, i]
            found[f"{KEPT}variance{i}:{name}"] = apart.regressions.variance[:, i]
            found |= {f"{KEPT}F{i},{j}:{name}": apart.products[:, i, j] for j in range(len(rows))}
    return found


def _t_columns(name: str, own: Unmoderated, k: int) -> dict[str, np.ndarray]:
    return {
        f"estimate:{name}": own.value[:, k],
        f"{KEPT}se:{name}": own.se[:, k],
        f"{KEPT}b:{name}": own.regressions.b[:, k],
        f"{KEPT}variance:{name}": own.regressions.variance[:, k],
    }


def moderate_results(path: Path) -> None:
    """Put moderated tests, and `s2_post`, into a table of results; one that has them stays.

    Raises
    ------
    ValueError : fewer than two responses have a residual variance.
    """
    parquet = pyarrow("parquet")
    if not any(name.startswith(KEPT) for name in parquet.read_schema(path).names):
        return
    import pyarrow as pa

    table = parquet.read_table(path, page_checksum_verification=True)
    values = {name: table[name].to_numpy() for name in table.column_names if name.startswith(KEPT)}
    s2, df = (table[name].to_numpy() for name in ("s2", "df_residual"))
    prior = variance_prior(s2, df)
    moderated = _moderated(table, values, Shrinkage.by(prior, s2, df))
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if not name.startswith(KEPT):
            columns[name] = moderated.get(name, table[name])
    columns["s2_post"] = np.where(np.isfinite(s2), prior.posterior(s2, df), np.nan)
    said = {"lmmjax.df_prior": str(float(prior.df)), "lmmjax.var_prior": str(float(prior.variance))}
    made = pa.table(columns).replace_schema_metadata({**(table.schema.metadata or {}), **said})
    with written_whole(path) as file:
        parquet.write_table(made, file, **written(made.column_names))


def _moderated(table: Any, values: dict[str, np.ndarray], shrinkage: Shrinkage) -> dict[str, np.ndarray]:
    """Columns of t tests by name, then those of F tests."""
    out: dict[str, np.ndarray] = {}
    residual = values[f"{KEPT}residual"]
    for name in (key.partition(":")[2] for key in values if key.startswith(f"{KEPT}se:")):
        se, b, variance = (values[f"{KEPT}{what}:{name}"][:, None] for what in ("se", "b", "variance"))
        estimate = table[f"estimate:{name}"].to_numpy()[:, None]
        own = Unmoderated(estimate, se, Regressions(b, variance, residual)).tests(shrinkage)
        out |= {f"{what}:{name}": own[what][:, 0] for what in ("se", "df", "t", "p")}
    for name in (key.partition(":")[2] for key in values if key.startswith(f"{KEPT}num_df:")):
        k = sum(f"{KEPT}b{i}:{name}" in values for i in range(len(values)))
        b, variance = (
            np.stack([values[f"{KEPT}{what}{i}:{name}"] for i in range(k)], axis=1)
            for what in ("b", "variance")
        )
        products = np.stack(
            [values[f"{KEPT}F{i},{j}:{name}"] for i in range(k) for j in range(k)], axis=1
        ).reshape(-1, k, k)
        apart = JointTests(products, Regressions(b, variance, residual))
        own = UnmoderatedF(values[f"{KEPT}num_df:{name}"], apart).tests(shrinkage)
        out |= {f"{what}:{name}": own[what] for what in ("F", "num_df", "den_df", "p")}
    return out
