"""Marginal means and their contrasts for many responses, on one reference grid."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from lmmjax.design import Aliases, aliases
from lmmjax.fitted import FittedMany, one_of_many
from lmmjax.inference.delta import t_quantile
from lmmjax.postestimation.alike import alike
from lmmjax.postestimation.hypotheses.adjust import Family
from lmmjax.postestimation.hypotheses.batch_f_tests import f_tests
from lmmjax.postestimation.hypotheses.batch_robust import robust_of_many
from lmmjax.postestimation.hypotheses.batch_tests import adjust, estimable_combinations, t_tests
from lmmjax.postestimation.hypotheses.fixed_tests import covariance_for
from lmmjax.postestimation.means.contrast_methods import level_names
from lmmjax.postestimation.means.joint import COLUMNS as JOINT
from lmmjax.postestimation.means.joint import (
    CONFOUNDED,
    Hypotheses,
    confounded,
    effects_by_family,
    estimable_rows,
    families_of,
    not_zero,
    test_of_rows,
)
from lmmjax.postestimation.means.linear import Functions, View, name_missing, reached, rows_of
from lmmjax.postestimation.means.tables import Contrasted


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


def effect_tests_of_many(fits: FittedMany, means: Functions, how: View) -> pd.DataFrame:
    """F tests of `joint.effects_of` means and of what is confounded, a row a response and hypothesis.

    What is confounded depends on the variances, so that it is tested one response after the other; where no
    cell is missing nothing is.
    """
    called, families = ["term", *means.by], list(effects_by_family(means))
    labels, found = _joint(fits, [each for _, effects, _ in families for each in effects], how)
    fitted, every = np.isfinite(fits.estimate.psi).all(axis=1), fits.kept.all(axis=1)
    some = np.flatnonzero(fitted & ~every if fits.data.frame.dependence is None else fitted)
    for family, effects, steps in families if len(some) else ():
        column = {name: np.full(len(fits.names), np.nan) for name in JOINT}
        tested = [functions for _, functions in effects]
        for j in some:
            one, own = one_of_many(fits, int(j)), how
            if how.robust is not None:
                w = 1.0 if fits.weights is None else fits.weights[:, j]
                own = dataclasses.replace(how, robust=how.robust.on_rows(np.isfinite(fits.y[:, j]) & (w > 0)))
            test = test_of_rows(one, *confounded(one, tested, steps, own), own)
            for name in JOINT if test["num_df"] else ():
                column[name][j] = test[name]
        if np.isfinite(column["num_df"]).any():
            before = [k for k, name in enumerate(labels) if family.items() <= name.items()]
            at = max(before, default=-1) + 1
            labels.insert(at, {"term": CONFOUNDED, **family})
            found = {name: np.insert(found[name], at, column[name], axis=1) for name in JOINT}
    return _labelled(fits, pd.DataFrame(labels, columns=called), found | {"q": adjust(found["p"])})


def family_tests_of_many(fits: FittedMany, functions: Functions, how: View) -> pd.DataFrame:
    """F tests that all functions of a family are zero, a row a response and family."""
    labels, found = _joint(fits, families_of(functions), how)
    index = pd.DataFrame(labels, columns=list(functions.by))
    return _labelled(fits, index, found | {"q": adjust(found["p"])})


def _joint(
    fits: FittedMany, hypotheses: Hypotheses, how: View
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Names of the hypotheses of which something is estimable, and the columns (T, h) of their F tests."""
    labels = [own for own, _ in hypotheses]
    made = [estimable_rows(fits.data, functions) for _, functions in hypotheses]
    there = [k for k, (rows, _) in enumerate(made) if len(rows)]
    labels, made = [labels[k] for k in there], [made[k] for k in there]
    found = {name: np.full((len(fits.names), len(made)), np.nan) for name in JOINT}
    fitted, every = np.isfinite(fits.estimate.psi).all(axis=1), fits.kept.all(axis=1)
    groups = [(fitted & every, made)]
    for own in alike(fits):
        if len(own.columns) < fits.data.design.p:
            x = np.asarray(fits.data.design.x)[own.rows]
            those = np.zeros(len(fitted), bool)
            those[own.which] = True
            groups.append((those, [_within(aliases(x, own.columns), *one) for one in made]))
    for those, parts in groups:
        sizes = [len(rows) for rows, _ in parts]
        ends = np.cumsum(sizes)
        if not those.any() or not sum(sizes):
            continue
        rows, rhs = (np.concatenate(a) for a in zip(*parts, strict=True))
        used = [k for k, size in enumerate(sizes) if size]
        sets = [np.arange(ends[k] - sizes[k], ends[k]) for k in used]
        reported = np.broadcast_to(those[:, None], (len(those), len(sets)))
        table = f_tests(fits, rows, rhs, sets, how.ddf, reported, how.robust)
        for name in JOINT:
            found[name][np.ix_(those, used)] = table[name][those]
    return labels, found


def _within(own: Aliases | None, rows: np.ndarray, rhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The combinations of Lβ = rhs that responses with columns left out determine."""
    if own is None:
        return rows, rhs
    part = reached(own, rows)
    rows, rhs = part @ rows, part @ rhs
    used = not_zero(rows[:, own.kept])
    return rows[used], rhs[used]


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
    return _labelled(fits, functions.labels, columns)


def _labelled(fits: FittedMany, labels: pd.DataFrame, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a response and row of labels (k, ·), for columns (T, k)."""
    count, k = len(fits.names), len(labels)
    out = labels.iloc[np.tile(np.arange(k), count)].reset_index(drop=True)
    out.insert(0, "response", np.repeat(fits.names.to_numpy(), k))
    return out.assign(**{name: column.ravel() for name, column in columns.items()})
