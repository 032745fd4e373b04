"""Tables over many responses: tidy and top tables, contrasts, intervals, conditional modes."""

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
    require_count,
    require_level,
    sd_errors,
    sd_limits,
)
from lmmjax.formula import nearest
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


def top(
    fits: FittedMany,
    term: str | None,
    n: int,
    by: str,
    ddf: str,
    robust: str | None,
    cluster: Any,
    contrast: Any,
    level: float,
) -> pd.DataFrame:
    """See `BatchFit.top`."""
    return top_frame(
        lambda: fixed_t_tests(fits, ddf, robust, cluster),
        _tester(fits, ddf, robust, cluster),
        fits,
        term,
        n,
        by,
        contrast,
        level,
    )


def top_frame(
    fixed: Callable[[], Table],
    tested: Tester,
    fits: FittedMany,
    term: str | None,
    n: int,
    by: str,
    contrast: Any,
    level: float,
) -> pd.DataFrame:
    """The n foremost responses by t tests of the fixed effects, `fixed`, or of contrasts, `tested`."""
    require_choice("by", by, LIMITS)
    require_count("n", n, 0)
    table = one_contrast(fixed, tested, fits, term, contrast, "top")
    columns = {name: column[:, 0] for name, column in _with_limits(table, level).items()}
    key = -np.abs(columns[by]) if by in ("t", "estimate") else columns[by]
    # p-values that underflow are told apart by t; missing values come last
    order = np.lexsort((-np.abs(columns["t"]), key))[: max(n, 0)]
    return pd.DataFrame(columns, index=fits.names).iloc[order]


def one_contrast(
    fixed: Callable[[], Table], tested: Tester, fits: FittedMany, term: str | None, contrast: Any, what: str
) -> Table:
    """t tests (T, 1) of one coefficient, or of one contrast."""
    if (term is None) == (contrast is None):
        raise ValueError(f"{what} is of one coefficient, term=, or of one contrast=: give one of them")
    x_names = fits.data.x_names
    if contrast is None:
        if term not in x_names:
            raise ValueError(f"unknown coefficient {term!r}: {nearest(str(term), x_names)}")
        at = x_names.index(str(term))
        return {name: column[:, [at]] for name, column in fixed().items()}
    table, labels, _ = _contrasts(tested, fits, contrast)
    if len(labels) != 1:
        raise ValueError(f"{what} is of one contrast, not of {len(labels)}: take one of {', '.join(labels)}")
    return table


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
    return contrast_frame(_tester(fits, ddf, robust, cluster), fits, contrasts, names, level)


def contrast_frame(
    tested: Tester, fits: FittedMany, contrasts: Any, names: Sequence[str] | None, level: float
) -> pd.DataFrame:
    """t tests of contrasts with limits, a row a response or (contrast, response)."""
    table, labels, several = _contrasts(tested, fits, contrasts, names)
    table, index = _with_limits(table, level), fits.names
    if several:
        index = pd.MultiIndex.from_product([labels, fits.names], names=["contrast", fits.names.name])
    return pd.DataFrame({name: column.T.ravel() for name, column in table.items()}, index=index)


def _tester(fits: FittedMany, ddf: str, robust: str | None, cluster: Any) -> Tester:
    def tested(rows: np.ndarray, labels: list[str]) -> Table:
        chosen = robust_choice(fits.data, robust, cluster, ddf_method(ddf))
        table = t_tests(fits, rows, ddf, estimable_combinations(fits, rows), chosen)
        lost = lost_contrasts(fits.data, rows, labels)
        return {name: np.where(lost, np.nan, column) for name, column in table.items()}

    return tested


def _contrasts(
    tested: Tester, fits: FittedMany, contrasts: Any, names: Sequence[str] | None = None
) -> tuple[Table, list[str], bool]:
    """t tests (T, k) of contrasts, their labels, and whether several were asked for."""
    weights, labels, several = contrast_matrix(contrasts, fits.data.x_names, fits.data.frame.aliased)
    if names is not None:
        labels = [names] if isinstance(names, str) else list(names)
        if len(labels) != len(weights):
            raise ValueError(f"{len(labels)} names for {len(weights)} contrasts: give one name each")
    return tested(weights, labels), labels, several


def _with_limits(table: dict[str, np.ndarray], level: float) -> dict[str, np.ndarray]:
    """The table with limits, its columns in the order of `LIMITS`."""
    half = t_quantile(table["df"], require_level(level)) * table["se"]
    table = table | {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    return {name: table[name] for name in LIMITS}


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
