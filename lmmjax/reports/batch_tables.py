"""Tables over many responses: the tidy table, contrasts, intervals, conditional modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import (
    FittedMany,
    component_names,
    identified_sds,
    require_choice,
    require_level,
    sd_errors,
    sd_limits,
)
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.hypotheses.batch_tests import TABLE, estimable_combinations, fixed_t_tests, t_tests
from lmmjax.postestimation.hypotheses.contrasts import contrast_matrix
from lmmjax.postestimation.hypotheses.estimability import lost_contrasts
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method
from lmmjax.postestimation.hypotheses.robust import robust_choice
from lmmjax.postestimation.predictions.batch_modes import modes_of_responses
from lmmjax.postestimation.predictions.modes import only_group

LIMITS = ["estimate", "se", "df", "lower", "upper", "t", "p", "q"]
Table = dict[str, np.ndarray]
Tester = Callable[[np.ndarray, list[str]], Table]
"""From contrasts (k, p) and their labels to the columns of `TABLE`, (T, k) each."""

TIDY = ["response", "effect", "group", "term", *TABLE]


def tidy(fits: FittedMany, ddf: str, robust: str | None = None, cluster: Any = None) -> pd.DataFrame:
    """See `BatchFit.tidy`."""
    count, x_names = len(fits.names), fits.data.x_names
    labels = fits.names.to_numpy()
    fixed = pd.DataFrame(
        {
            "response": np.repeat(labels, len(x_names)),
            "effect": "fixed",
            "group": None,
            "term": np.tile(np.array(x_names, dtype=object), count),
            **{name: column.ravel() for name, column in fixed_t_tests(fits, ddf, robust, cluster).items()},
        }
    )
    rows, structure = fits.data.components, fits.data.design.structure
    values = identified_sds(structure, rows, fits.estimate)
    random = pd.DataFrame(
        {
            "response": np.repeat(labels, len(rows)),
            "effect": "random",
            "group": np.tile(np.array([row.group for row in rows], dtype=object), count),
            "term": np.tile(np.array([n.split("|")[0] for n in component_names(rows)], dtype=object), count),
            "estimate": values.ravel(),
            "se": sd_errors(structure, rows, fits.estimate).ravel(),
            **{name: np.full(values.size, np.nan) for name in TABLE[2:]},
        }
    )
    return pd.concat([fixed, random], ignore_index=True).reindex(columns=TIDY)


def conf_int(
    fits: FittedMany, level: float, which: str, ddf: str, robust: str | None = None, cluster: Any = None
) -> pd.DataFrame:
    """See `BatchFit.conf_int`."""
    require_choice("which", which, ("fixed", "all"))
    require_level(level)
    table = fixed_t_tests(fits, ddf, robust, cluster)
    beta, half = table["estimate"], t_quantile(table["df"], level) * table["se"]
    values, names = np.stack([beta - half, beta + half], axis=-1), fits.data.x_names
    if which == "all":
        rows = fits.data.components
        se = sd_errors(fits.data.design.structure, rows, fits.estimate)
        limits = sd_limits(rows, fits.estimate.psi, se, level)
        values = np.concatenate([np.stack(limits, axis=-1), values], axis=1)
        names = component_names(rows) + names
    columns = pd.MultiIndex.from_product([names, ["lower", "upper"]])
    return pd.DataFrame(values.reshape(len(fits.names), -1), index=fits.names, columns=columns)


def contrast(
    fits: FittedMany,
    contrasts: Any,
    names: Sequence[str] | None,
    ddf: str,
    robust: str | None,
    cluster: Any,
    level: float,
) -> pd.DataFrame:
    """See `BatchFit.contrast`."""
    return contrast_frame(tester(fits, ddf, robust, cluster), fits, contrasts, names, level)


def contrast_frame(
    tested: Tester, fits: FittedMany, contrasts: Any, names: Sequence[str] | None, level: float
) -> pd.DataFrame:
    """t tests of contrasts with limits, a row a response or (contrast, response)."""
    weights, labels, several = labelled_contrasts(fits, contrasts, names)
    table = tested(weights, labels)
    table, index = with_limits(table, level), fits.names
    if several:
        index = pd.MultiIndex.from_product([labels, fits.names], names=["contrast", fits.names.name])
    return pd.DataFrame({name: column.T.ravel() for name, column in table.items()}, index=index)


def tester(fits: FittedMany, ddf: str, robust: str | None, cluster: Any) -> Tester:
    """t tests of contrasts of fits; those that are not estimable are missing, and named."""

    def tested(rows: np.ndarray, labels: list[str]) -> Table:
        chosen = robust_choice(fits.data, robust, cluster, ddf_method(ddf))
        table = t_tests(fits, rows, ddf, estimable_combinations(fits, rows), chosen)
        lost = lost_contrasts(fits.data, rows, labels)
        return {name: np.where(lost, np.nan, column) for name, column in table.items()}

    return tested


def labelled_contrasts(
    fits: FittedMany, contrasts: Any, names: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str], bool]:
    """Rows (k, p) of contrasts, their labels, and whether several were asked for."""
    weights, labels, several = contrast_matrix(contrasts, fits.data.x_names, fits.data.frame.aliased)
    if names is not None:
        labels = [names] if isinstance(names, str) else list(names)
        if len(labels) != len(weights):
            raise ValueError(f"{len(labels)} names for {len(weights)} contrasts: give one name each")
    return weights, labels, several


def with_limits(table: dict[str, np.ndarray], level: float) -> dict[str, np.ndarray]:
    """The table with limits, its columns in the order of `LIMITS`."""
    half = t_quantile(table["df"], require_level(level)) * table["se"]
    table = table | {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    return {name: table[name] for name in LIMITS}


def statistics(
    tested: Tester, fits: FittedMany, contrasts: Any, what: str, drop_missing: bool
) -> pd.DataFrame:
    """See `BatchFit.statistics`."""
    require_choice("what", what, tuple(TABLE))
    contrasts = list(fits.data.x_names) if contrasts is None else contrasts
    weights, labels, _ = labelled_contrasts(fits, contrasts)
    table = pd.DataFrame(tested(weights, labels)[what].T, index=pd.Index(labels), columns=fits.names)
    return table.dropna(axis=1) if drop_missing else table


def random_effects(fits: FittedMany, group: str | None) -> pd.DataFrame:
    """See `BatchFit.random_effects`."""
    random = fits.data.frame.random
    group = only_group(list(dict.fromkeys(term.group for term in random)), group)
    wanted = [k for k, term in enumerate(random) if term.group == group]
    levels, names = random[wanted[0]].levels, [name for k in wanted for name in random[k].names]
    out = np.full((len(fits.names), len(levels), len(names)), np.nan)
    for part, modes in modes_of_responses(fits):
        out[part] = np.concatenate([modes[k] for k in wanted], axis=2)
    columns = pd.MultiIndex.from_product([levels, names], names=[group, "term"])
    return pd.DataFrame(out.reshape(len(fits.names), -1), index=fits.names, columns=columns)
