"""Marginal means and their contrasts for many responses, on one reference grid."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import stdtr

from lmmjax.fitted import FittedMany, one_of_many
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.adjust import Family
from lmmjax.postestimation.batch_robust import robust_of_many
from lmmjax.postestimation.batch_tests import adjust, estimable_combinations, t_tests
from lmmjax.postestimation.contrast_methods import level_names
from lmmjax.postestimation.fixed_tests import covariance_for
from lmmjax.postestimation.mean_tables import Contrasted
from lmmjax.postestimation.means import Functions, View, name_missing, rows_of


def estimates_of_many(fits: FittedMany, functions: Functions, how: View) -> dict[str, np.ndarray]:
    """estimate, se, df, t, p (T, k) of the functions, each by itself; NaN where not estimable."""
    rows, known = rows_of(fits.data, functions)
    rows = np.where(known[:, None], rows, 0.0)
    table = t_tests(fits, rows, how.ddf, estimable_combinations(fits, rows) & known, how.robust)
    estimate = table["estimate"] + functions.shift
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / table["se"]
    return {"estimate": estimate, "se": table["se"], "df": table["df"], "t": t} | {
        "p": 2.0 * stdtr(table["df"], -np.abs(t))
    }


def means_of_many(fits: FittedMany, functions: Functions, how: View) -> pd.DataFrame:
    """See `BatchMeans.table`."""
    table = estimates_of_many(fits, functions, how)
    half = t_quantile(table["df"], how.level) * table["se"]
    table |= {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    name_missing(fits.data, level_names(functions.labels), ~rows_of(fits.data, functions)[1])
    return _long(fits, functions, {n: table[n] for n in ("estimate", "se", "df", "lower", "upper")})


def contrasts_of_many(fits: FittedMany, contrasted: Contrasted, how: View) -> pd.DataFrame:
    """See `BatchContrasts.table`."""
    functions = contrasted.functions
    table = estimates_of_many(fits, functions, how)
    margin = t_quantile(table["df"], how.level)
    if contrasted.adjust != "none":
        table["p"], margin = _simultaneous(fits, contrasted, how, table)
    half = margin * table["se"]
    table |= {"lower": table["estimate"] - half, "upper": table["estimate"] + half, "q": adjust(table["p"])}
    labels = [str(name) for name in functions.labels.iloc[:, 0]]
    name_missing(fits.data, labels, ~rows_of(fits.data, functions)[1])
    columns = ("estimate", "se", "df", "lower", "upper", "t", "p", "q")
    return _long(fits, functions, {name: table[name] for name in columns})


def _simultaneous(
    fits: FittedMany, contrasted: Contrasted, how: View, table: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p (T, k), and the multiples (T, k) of se in simultaneous limits."""
    functions = contrasted.functions
    rows, _ = rows_of(fits.data, functions)
    p, margin = table["p"].copy(), np.full(table["p"].shape, np.nan)
    for (_, at), means in zip(functions.families(), contrasted.means, strict=True):

        @functools.cache
        def robust(at: np.ndarray = rows[at]) -> np.ndarray:
            assert how.robust is not None
            return robust_of_many(fits, how.robust, at, False)[0]

        for j in np.flatnonzero(np.isfinite(table["t"]).any(axis=1)):

            def correlation(
                j: int = int(j), own: np.ndarray = rows[at], many: Callable = robust
            ) -> np.ndarray:
                cov = many()[j] if how.robust is not None else _covariance(fits, how.ddf, j, own)
                sd = np.sqrt(np.diagonal(cov))
                with np.errstate(divide="ignore", invalid="ignore"):
                    return cov / sd[:, None] / sd[None, :]

            t, df = table["t"][j, at], table["df"][j, at]
            family = Family(t, df, means, correlation, contrasted.pairwise)
            p[j, at] = family.p_values(contrasted.adjust)
            margin[j, at] = family.critical(contrasted.adjust, how.level)
    return p, margin


def _covariance(fits: FittedMany, ddf: str, j: int, rows: np.ndarray) -> np.ndarray:
    """LΦLᵀ (k, k) of response j for rows L (k, p)."""
    l = rows[:, fits.kept[j]]
    return l @ covariance_for(one_of_many(fits, j), ddf) @ l.T


def _long(fits: FittedMany, functions: Functions, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a response and function."""
    count, k = len(fits.names), len(functions.labels)
    labels = functions.labels.iloc[np.tile(np.arange(k), count)].reset_index(drop=True)
    labels.insert(0, "response", np.repeat(fits.names.to_numpy(), k))
    return labels.assign(**{name: column.ravel() for name, column in columns.items()})
