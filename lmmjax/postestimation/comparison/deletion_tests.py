"""Tests of fixed terms by deletion, and backward selection of both parts of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from lmmjax.fitted import (
    Fitted,
    by_criterion,
    fit_one,
    model_data,
    require_choice,
    require_estimates,
    require_known,
    require_level,
    require_switch,
)
from lmmjax.formula import ModelFrame, kernels_of, updated_frame, with_random, without_term
from lmmjax.formula.many_rows import row_space, x_products
from lmmjax.postestimation.comparison.random_tests import deletions, ranova
from lmmjax.postestimation.hypotheses.fixed_tests import ddf_method, f_table

DEPENDENT = 1e-9
"""Singular values below this share of the largest are zero: columns are dependent."""


def droppable(frame: ModelFrame) -> list[str]:
    """The fixed terms that no other term contains, in the order of the formula; never the intercept."""
    factors = {name: set(own) for name, own in frame.term_factors.items() if own}
    return [name for name, own in factors.items() if not any(own < other for other in factors.values())]


def drop1(fitted: Fitted, scope: Iterable[str] | None, ddf: str, test: str) -> pd.DataFrame:
    """See `Fit.drop1`."""
    require_choice("test", test, ("F", "lrt"))
    ddf = ddf_method(ddf)
    known = droppable(fitted.data.frame)
    chosen = known if scope is None else [scope] if isinstance(scope, str) else list(scope)
    require_known("term that can be dropped", chosen, known)
    if test == "lrt":
        return _likelihood_ratios(fitted, chosen)
    return f_table(fitted, {name: _hypothesis(fitted.data.frame, name, False)[0] for name in chosen}, ddf)


def _hypothesis(frame: ModelFrame, name: str, anew: bool) -> tuple[np.ndarray, np.ndarray]:
    """L (k, p) that is zero where the model without a term explains all, and its columns XC, C (p, p − k).

    L has the rows of the identity at the term's columns where the other terms keep theirs; Satterthwaite's df
    depend on that choice, which is lmerTest's. With `anew` the other factors are coded as without the term.
    """
    p, own = frame.x.shape[1], frame.term_slices[name]
    shown = row_space(frame)
    rest, eye = np.setdiff1d(np.arange(p), own), np.eye(p)
    plain = eye[own], eye[:, rest]
    anew = anew and bool(set(frame.term_factors[name]) & set(frame.factor_levels))
    if shown.source is not None and (anew or frame.dependence is not None):
        # columns come back that depended on those of the term
        smaller = updated_frame(shown, without_term(frame, name), rows=shown.rows)
        reduced = _coordinates(shown.x, smaller.x)
    elif frame.dependence is not None:
        reduced = np.column_stack([eye[:, rest], frame.dependence.weights])
    else:
        return plain
    scale = np.linalg.norm(x_products(frame), axis=0)
    scaled = reduced * scale[:, None]
    length = np.linalg.norm(scaled, axis=0)
    u, s, _ = np.linalg.svd(scaled / np.where(length > 0, length, 1.0))
    rank = int(np.sum(s > DEPENDENT * s.max(initial=0.0)))
    within = np.linalg.norm(u[own, :rank], axis=1) if rank else np.zeros(len(own))
    if rank == len(rest) and np.all(within <= np.sqrt(DEPENDENT)):
        return plain
    return u[:, rank:].T * scale, u[:, :rank] / scale[:, None]


def _coordinates(x: np.ndarray, other: np.ndarray) -> np.ndarray:
    """C (p, r) with XC = other, for columns in the span of X."""
    scale = np.linalg.norm(x, axis=0)
    q, r = np.linalg.qr(x / scale)
    return np.linalg.solve(r, q.T @ other) / scale[:, None]


def _likelihood_ratios(fitted: Fitted, chosen: list[str]) -> pd.DataFrame:
    require_estimates(fitted)
    whole = by_criterion(fitted, False)
    rows = {"<none>": [whole.n_params, whole.llf, whole.aic, np.nan, np.nan, np.nan]}
    for name in chosen:
        lost, kept = _hypothesis(fitted.data.frame, name, True)
        if not len(lost):
            rows[name] = [whole.n_params, whole.llf, whole.aic, np.nan, 0, np.nan]
            continue
        frame = dataclasses.replace(
            fitted.data.frame,
            x=fitted.data.frame.x @ kept,
            x_names=tuple(f"x{j}" for j in range(kept.shape[1])),
            term_slices={},
            dependence=None,
            _recipe=None,
        )
        smaller = fit_one(model_data(frame, fitted.data.backend), fitted.y, False)
        chisq, df = max(smaller.deviance - whole.deviance, 0.0), len(lost)
        rows[name] = [smaller.n_params, smaller.llf, smaller.aic, chisq, df, float(chdtrc(df, chisq))]
    columns = ["npar", "llf", "aic", "chisq", "df", "p"]
    out = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("term")
    if whole is not fitted:
        out.attrs["note"] = "likelihood ratios need ML: the model was refitted by ML for these tests"
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Backward:
    """A backward selection: tables with `eliminated`, the order of elimination, 0 for what stays; the fit."""

    random: pd.DataFrame
    fixed: pd.DataFrame
    fitted: Fitted


def backward(
    fitted: Fitted,
    ddf: str,
    alpha_random: float,
    alpha_fixed: float,
    keep: Iterable[str],
    reduce_random: bool,
    reduce_fixed: bool,
) -> Backward:
    """See `Fit.step`."""
    require_estimates(fitted)
    ddf = ddf_method(ddf)
    alpha_random = require_level(alpha_random, "alpha_random")
    alpha_fixed = require_level(alpha_fixed, "alpha_fixed")
    keep = [keep] if isinstance(keep, str) else list(keep)
    require_known("fixed term to keep", keep, [n for n, own in fitted.data.frame.term_factors.items() if own])
    random, fixed = pd.DataFrame(), pd.DataFrame()
    if require_switch("reduce_random", reduce_random) and fitted.data.frame.random:
        random, fitted = _less_random(fitted, alpha_random)
    if require_switch("reduce_fixed", reduce_fixed) and droppable(fitted.data.frame):
        fixed, fitted = _less_fixed(fitted, alpha_fixed, ddf, keep)
    return Backward(random, fixed, fitted)


def _less_random(fitted: Fitted, alpha: float) -> tuple[pd.DataFrame, Fitted]:
    gone: list[pd.DataFrame] = []
    first = None
    while True:
        table = ranova(fitted)
        first = table.iloc[:1] if first is None else first
        left = table.iloc[1:]
        worst = left["p"].idxmax() if len(left) and left["p"].notna().any() else None
        if worst is None or left.loc[worst, "p"] <= alpha:
            return _eliminated(gone, left, first), fitted
        gone.append(left.loc[[worst]])
        random = next(terms for label, terms, _ in deletions(fitted.data.frame) if label == worst)
        own = {"kernels": kernels_of(random)}
        fitted = _reformulated(fitted, with_random(fitted.data.frame, random), **own)
        if not random:
            return _eliminated(gone, left.iloc[:0], first), fitted


def _less_fixed(fitted: Fitted, alpha: float, ddf: str, keep: list[str]) -> tuple[pd.DataFrame, Fitted]:
    gone: list[pd.DataFrame] = []
    while True:
        table = drop1(fitted, None, ddf, "F")
        free = table.loc[[name for name in table.index if name not in keep]]
        # a term that says nothing goes first
        p = free["p"].where(free["num_df"] > 0, 2.0)
        worst = p.idxmax() if len(p) and p.notna().any() else None
        if worst is None or p[worst] <= alpha:
            out = _eliminated(gone, table)
            out.attrs.update(table.attrs)
            return out, fitted
        gone.append(table.loc[[worst]])
        fitted = _reformulated(fitted, without_term(fitted.data.frame, str(worst)))
        if not droppable(fitted.data.frame):
            out = _eliminated(gone, table.iloc[:0])
            out.attrs.update(table.attrs)
            return out, fitted


def _eliminated(
    gone: list[pd.DataFrame], left: pd.DataFrame, first: pd.DataFrame | None = None
) -> pd.DataFrame:
    order = [np.nan] * (first is not None) + [k + 1 for k in range(len(gone))] + [0] * len(left)
    whole: Any = pd.concat([*([] if first is None else [first]), *gone, left])
    whole.insert(0, "eliminated", order if first is not None else np.array(order, int))
    return whole


def _reformulated(fitted: Fitted, formula: str, **changes: Any) -> Fitted:
    """The same response on the same rows by another formula, on the criterion of the fit."""
    frame = updated_frame(fitted.data.frame, formula, rows=fitted.data.frame.rows, **changes)
    return fit_one(model_data(frame, fitted.data.backend), fitted.y, fitted.reml, name=fitted.response)
