"""Joint tests of the effects of factors on marginal means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, ModelData
from lmmjax.postestimation.hypotheses.fixed_tests import covariance_for, f_tail, f_test
from lmmjax.postestimation.means.linear import Functions, View, combined, estimable_part, rows_of

Hypotheses = list[tuple[dict[str, Any], Functions]]
"""Functions that are tested together, with what they are called: term, by-columns."""

COLUMNS = ("num_df", "den_df", "F", "p")

CONFOUNDED = "(confounded)"
"""The term of contrasts that belong to no single effect, emmeans' name."""

RANK = 1e-7
"""Norm below which a contrast of unit variance is a combination of others."""


def effects_of(means: Functions) -> Hypotheses:
    """Main effects and interactions of the factors of the means, a family after the other.

    An effect is tested on means averaged, with equal weights, over the other factors; that of a nested factor
    within what it is nested in. What is not estimable is left out, which costs degrees of freedom.
    """
    out = []
    for key, at in means.families():
        levels = means.labels.loc[at, means.specs].reset_index(drop=True)
        factors = [name for name in means.specs if levels[name].nunique() > 1]
        nests = {n: tuple(a for a in means.nests.get(n, ()) if a in factors) for n in factors}
        for effect in _effects(factors, nests):
            outer = {a for name in effect for a in nests[name]}
            weights = _effect_weights(levels, factors, effect, nests)
            own = np.zeros((len(weights), len(means.labels)))
            own[:, at] = weights
            term = ":".join(sorted(effect, key=lambda name: name not in outer))
            called = {"term": term, **dict(zip(means.by, key, strict=True))}
            out.append((called, combined(means, own, pd.DataFrame(index=range(len(own))), ())))
    return out


def families_of(functions: Functions) -> Hypotheses:
    """All functions of a family together, a family after the other."""
    out = []
    for key, at in functions.families():
        own = combined(functions, np.eye(len(functions.labels))[at], functions.labels.iloc[at], ())
        out.append((dict(zip(functions.by, key, strict=True)), own))
    return out


def effect_tests(fitted: Fitted, means: Functions, how: View) -> pd.DataFrame:
    """F tests of `effects_of` means and of what is `confounded`, where something of it is estimable."""
    tables = []
    for family, effects, every in effects_by_family(means):
        tables += [called | joint_test(fitted, own, how) for called, own in effects]
        left = confounded(fitted, [own for _, own in effects], every, how)
        tables.append(family | {"term": CONFOUNDED} | test_of_rows(fitted, *left, how))
    out = pd.DataFrame(tables, columns=["term", *means.by, *COLUMNS])
    return out.loc[out["num_df"] > 0].reset_index(drop=True)


def effects_by_family(means: Functions) -> Iterator[tuple[dict[str, Any], Hypotheses, Functions]]:
    """Yields by-columns, `effects_of` means there, and each mean less the one before."""
    effects = effects_of(means)
    for key, at in means.families():
        family = dict(zip(means.by, key, strict=True))
        steps = np.diff(np.eye(len(means.labels))[at], axis=0)
        every = combined(means, steps, means.labels.iloc[at[1:]], ())
        yield family, [own for own in effects if family.items() <= own[0].items()], every


def confounded(
    fitted: Fitted, tested: Sequence[Functions], every: Functions, how: View
) -> tuple[np.ndarray, np.ndarray]:
    """L (k, p) and rhs (k,) of what the estimable contrasts of a family say beyond the effects tested in it.

    Where cells are missing some contrasts of means are estimable, but no part of a single effect. These are
    the combinations of all contrasts whose estimates are uncorrelated with those of the effects tested, so
    that kF is the Wald statistic of all contrasts less that of the effects, as in emmeans.
    """
    rows, rhs = estimable_rows(fitted.data, every)
    parts = [estimable_rows(fitted.data, own) for own in tested]
    known, right = (np.concatenate(own) for own in zip(*parts, strict=True)) if parts else (rows[:0], rhs[:0])
    if _rank(rows) == _rank(known):
        return rows[:0], rhs[:0]
    cov = covariance_for(fitted, how.ddf, how.robust)
    if not np.isfinite(cov).all():
        cov = np.eye(len(cov))
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    (rows, rhs), (known, right) = _unit(rows, rhs, root), _unit(known, right, root)
    # A − ME is orthogonal to E, with M = AE⁺
    weights = rows @ root @ np.linalg.pinv(known @ root, rcond=RANK)
    left, size, _ = np.linalg.svd(rows @ root - weights @ known @ root, full_matrices=False)
    turned = left[:, size > RANK].T
    return turned @ (rows - weights @ known), turned @ (rhs - weights @ right)


def _rank(rows: np.ndarray) -> int:
    """Of contrasts (k, p), whatever their units."""
    size = np.abs(rows).max(axis=0, initial=0.0)
    unit = rows / np.where(size > 0, size, 1.0)
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    return int(np.linalg.matrix_rank(unit / np.where(length > 0, length, 1.0), tol=RANK)) if len(rows) else 0


def _unit(rows: np.ndarray, rhs: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lβ = rhs with contrasts of unit variance, for a covariance root rootᵀ."""
    size = np.linalg.norm(rows @ root, axis=1)
    size = np.where(size > 0, size, 1.0)
    return rows / size[:, None], rhs / size


def family_tests(fitted: Fitted, functions: Functions, how: View) -> pd.DataFrame:
    """F tests that all functions of a family are zero, a row a family."""
    tables = [called | joint_test(fitted, own, how) for called, own in families_of(functions)]
    return pd.DataFrame(tables, columns=[*functions.by, *COLUMNS])


def joint_test(fitted: Fitted, functions: Functions, how: View) -> dict[str, Any]:
    """num_df, den_df, F and p of the hypothesis that all estimable combinations of functions are zero."""
    return test_of_rows(fitted, *estimable_rows(fitted.data, functions), how)


def test_of_rows(fitted: Fitted, rows: np.ndarray, rhs: np.ndarray, how: View) -> dict[str, Any]:
    """num_df, den_df, F and p of Lβ = rhs; num_df is 0 where L has no row."""
    if not len(rows):
        return {"num_df": 0, "den_df": np.nan, "F": np.nan, "p": np.nan}
    test = f_test(fitted, rows, rhs, how.ddf, how.robust)
    f, num, den = float(test.f), int(test.num_df), float(test.den_df)
    p = float(f_tail(np.array([f]), np.array([num]), np.array([den]))[0])
    return {"num_df": num, "den_df": den, "F": f, "p": p}


def estimable_rows(data: ModelData, functions: Functions) -> tuple[np.ndarray, np.ndarray]:
    """L (k, p) and rhs (k,) of the hypothesis Lβ = rhs that all estimable combinations are zero."""
    part = estimable_part(data, functions)
    some = combined(functions, part, functions.labels.iloc[: len(part)], ())
    rows, _ = rows_of(data, some)
    used = not_zero(rows)
    return rows[used], -some.shift[used]


def not_zero(rows: np.ndarray) -> np.ndarray:
    """Which of the rows (k, p) are more than rounding."""
    return np.abs(rows).max(axis=1, initial=0.0) > 1e-12 * np.abs(rows).max(initial=1.0)


def _effects(factors: list[str], nests: dict[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Main effects and interactions; a nested factor comes with those that it is nested in."""
    found = {}
    for size in range(1, len(factors) + 1):
        for chosen in combinations(factors, size):
            closed = {*chosen, *(a for name in chosen for a in nests[name])}
            found[tuple(name for name in factors if name in closed)] = None
    return sorted(found, key=len)


def _effect_weights(
    levels: pd.DataFrame, factors: list[str], effect: tuple[str, ...], nests: dict[str, tuple[str, ...]]
) -> np.ndarray:
    """Weights (m, k) of the contrasts of k means that an effect is made of."""
    names = list(levels.columns)
    rows = dict(zip(levels.itertuples(index=False, name=None), np.eye(len(levels)), strict=True))
    inner_first = sorted(factors, key=lambda name: -len(nests[name]))
    for name in (n for n in inner_first if n not in effect):
        at = names.index(name)
        rows = {key: np.mean([row for _, row in own], axis=0) for key, own in _without(rows, at).items()}
    outer = {a for name in effect for a in nests[name]}
    for name in (n for n in effect if n not in outer):
        at = names.index(name)
        steps = {}
        for key, own in _without(rows, at).items():
            for j in range(len(own) - 1):
                steps[(*key[:at], j, *key[at + 1 :])] = own[j + 1][1] - own[j][1]
        rows = steps
    return np.array(list(rows.values())).reshape(-1, len(levels))


def _without(rows: dict[tuple, np.ndarray], at: int) -> dict[tuple, list[tuple[Any, np.ndarray]]]:
    """The rows by the other parts of their key."""
    out: dict[tuple, list[tuple[Any, np.ndarray]]] = {}
    for key, row in rows.items():
        out.setdefault((*key[:at], None, *key[at + 1 :]), []).append((key[at], row))
    return out
