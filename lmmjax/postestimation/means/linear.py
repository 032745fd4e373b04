"""Linear functions of the coefficients by name: marginal means, slopes, and combinations of these.

A marginal mean is a weighted average of the rows of the reference grid that have its levels; factors that are
nested in others are averaged over first, within these. What is estimable is decided for the average or
contrast itself, not for its parts: a difference may be estimable where the means are not.

Source: Searle, Speed & Milliken (1980, doi:10.1080/00031305.1980.10483031).
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.arrays.caller import stack_level
from lmmjax.design import Aliases, EstimabilityWarning
from lmmjax.fitted import Fitted, ModelData, require_choice
from lmmjax.formula.response import BackTransform
from lmmjax.postestimation.hypotheses.fixed_tests import t_table
from lmmjax.postestimation.hypotheses.robust import Robust
from lmmjax.postestimation.means.reference_grid import Grid, predictors, reference_grid, terms_of

WEIGHTS = ("equal", "proportional", "outer", "cells", "flat")
TOGETHER = 2000
"""Rows whose degrees of freedom are computed at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
    """Linear functions Lγ + shift of the coefficients γ of all columns of the formula.

    Attributes
    ----------
    labels : (k, ·) frame that names them; by : its columns that divide them into families.
    whole : (k, P) L; shift : (k,).
    nests : factor → those that it is nested in.
    averaged : predictors that were averaged over; interacting : those of them that interact with one that
        was not.
    """

    labels: pd.DataFrame
    by: tuple[str, ...]
    whole: np.ndarray
    shift: np.ndarray
    nests: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    averaged: tuple[str, ...] = ()
    interacting: tuple[str, ...] = ()

    @property
    def specs(self) -> list[str]:
        """Columns of labels that tell the functions of a family apart."""
        return [str(name) for name in self.labels.columns if name not in self.by]

    def families(self, by: Sequence[str] | None = None) -> list[tuple[tuple, np.ndarray]]:
        """Levels of the by-columns with the positions of their functions, in order."""
        columns = list(self.by if by is None else by)
        found: dict[tuple, list[int]] = {}
        keys = (
            zip(*(self.labels[name] for name in columns), strict=True) if columns else [()] * len(self.labels)
        )
        for k, key in enumerate(keys):
            found.setdefault(key, []).append(k)
        return [(key, np.array(rows)) for key, rows in found.items()]


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """How linear functions of a fit are reported.

    Attributes
    ----------
    ddf : key of `fixed_tests.METHODS`; level : of limits; robust : the covariance, None for the model's.
    text : the response where it is transformed, else None. back : the inverse, where results are to be on the
        scale of the response. sigma : total standard deviation for the adjustment for bias, or None.
    """

    ddf: str
    level: float
    robust: Robust | None = None
    text: str | None = None
    back: BackTransform | None = None
    sigma: float | None = None


def marginal_means(
    data: ModelData,
    specs: Any,
    by: Any,
    at: Any,
    weights: str,
    offset: float | None,
    slope: str | None = None,
) -> Functions:
    """Means, or slopes in the covariate `slope`, by names of predictors; see `Fit.emmeans`."""
    if at is not None and not isinstance(at, Mapping):
        raise ValueError(f"at is a dict {{predictor: value or values}}, not {at!r}")
    wanted, groups = read_specs(specs, by, data)
    grid = reference_grid(data, at, [*wanted, *groups], offset, slope)
    made = marginal(grid, wanted, groups, weights)
    shown = set(map(str, made.labels.columns))
    pairs = [term & {*made.averaged} for term in terms_of(data) if term & shown and slope is None]
    within = {name for name in made.averaged if shown & set(grid.nests.get(name, ()))}
    interacting = tuple(
        name for name in made.averaged if name not in within and any(name in p for p in pairs)
    )
    return dataclasses.replace(made, interacting=interacting)


def read_specs(specs: Any, by: Any, data: ModelData) -> tuple[list[str], list[str]]:
    """Names of predictors of "a", ["a", "b"], "a * b | c" or "~ a | c", and of `by`."""
    known = [p.name for p in predictors(data)]

    def names(given: Any) -> list[str]:
        if given is None:
            return []
        if isinstance(given, str):
            return [given] if given in known else [n for n in re.split(r"[\s*:+,]+", given.strip()) if n]
        if isinstance(given, Iterable):
            return [str(name) for name in given]
        raise ValueError(f"specs and by are names of predictors, such as 'a' or ['a', 'b'], not {given!r}")

    text = specs.removeprefix("~").strip() if isinstance(specs, str) and specs not in known else specs
    if isinstance(text, str) and text not in known and "~" in text:
        method, _, means = text.partition("~")
        raise ValueError(
            f"specs {specs!r} has two sides: contrasts are made of the means, as in "
            f"emmeans({means.strip()!r}).contrast({method.strip()!r})"
        )
    if isinstance(text, str) and text not in known and text.count("|") == 1:
        if by is not None:
            raise ValueError(f"specs {specs!r} has a | and by= is given too: give one of them")
        text, by = text.split("|")
    wanted = [name for name in names(text) if name != "1"]
    groups = [name for name in names(by) if name not in wanted]
    return list(dict.fromkeys(wanted)), list(dict.fromkeys(groups))


def marginal(grid: Grid, specs: Sequence[str], by: Sequence[str], weights: str) -> Functions:
    """Averages of the grid by the levels of specs and by; the first of specs varies fastest."""
    require_choice("weights", weights, WEIGHTS)
    above = [name for own in (*specs, *by) for name in grid.nests.get(own, ()) if name not in (*specs, *by)]
    targets = list(dict.fromkeys([*specs, *above, *by]))
    columns = np.column_stack([grid.rows, grid.shift]).reshape(*grid.shape, -1)
    counts, valid = grid.counts, grid.occurs.reshape(grid.shape)
    left = [name for name in grid.names if name not in targets]
    for stage, fixed in _stages(left, grid.nests):
        axes, outer = (tuple(grid.names.index(name) for name in own) for own in (stage, fixed))
        w = np.where(valid, _weights(counts, axes, outer, weights), 0.0)
        total = w.sum(axis=axes, keepdims=True)
        with np.errstate(invalid="ignore"):
            columns = (w[..., None] * columns).sum(axis=axes, keepdims=True) / total[..., None]
        counts, valid = counts.sum(axis=axes, keepdims=True), np.any(valid, axis=axes, keepdims=True)
    order = [grid.names.index(name) for name in targets]
    rest = [k for k in range(len(grid.names)) if k not in order]
    shape = [valid.shape[k] for k in order]
    flat = np.transpose(columns, [*order[::-1], *rest, len(grid.names)]).reshape(-1, columns.shape[-1])
    there = np.transpose(valid, [*order[::-1], *rest]).ravel()
    place = np.unravel_index(np.flatnonzero(there), shape[::-1])[::-1] if order else ()
    labels = {
        name: _column([grid.predictors[k].levels[i] for i in codes])
        for name, k, codes in zip(targets, order, place, strict=True)
    }
    frame = pd.DataFrame(labels) if labels else pd.DataFrame({"overall": ["overall"]})
    over = tuple(name for name in left if len(grid.predictors[grid.names.index(name)].levels) > 1)
    flat = flat[there]
    return Functions(frame, tuple(by), flat[:, :-1], flat[:, -1], grid.nests, over)


def _stages(left: list[str], nests: dict[str, tuple[str, ...]]) -> list[tuple[list[str], list[str]]]:
    """Which factors are averaged over together, and within the levels of which others.

    A nested factor, the innermost first, together with all that are not involved in nesting, within what it
    is nested in; at last what is left.
    """
    left, out = list(left), []
    for name in sorted((n for n in left if n in nests), key=lambda n: -len(nests[n])):
        if name in left:
            involved = {m for n in left for m in (n, *nests.get(n, ())) if n in nests}
            stage = [name, *(n for n in left if n not in involved)]
            out.append((stage, list(nests[name])))
            left = [n for n in left if n not in stage]
    return [*out, (left, [])] if left else out


def _weights(counts: np.ndarray, axes: tuple[int, ...], outer: tuple[int, ...], weights: str) -> np.ndarray:
    """Weights of the levels on `axes`, within those on the axes `outer` that they are nested in."""
    if weights == "equal":
        return np.ones_like(counts)
    if weights in ("cells", "flat"):
        return counts if weights == "cells" else (counts > 0).astype(float)
    parts = [axes] if weights == "proportional" else [(axis,) for axis in axes]
    out = np.ones_like(counts)
    for part in parts:
        others = tuple(k for k in range(counts.ndim) if k not in part and k not in outer)
        out = out * counts.sum(axis=others, keepdims=True)
    return out


def _column(values: list[Any]) -> Any:
    """Labels as one column, of the type that they have."""
    kinds = {type(v) for v in values}
    return pd.Series(values) if len(kinds) == 1 else pd.Series(values, dtype=object)


def combined(
    functions: Functions, weights: np.ndarray, labels: pd.DataFrame, by: tuple[str, ...]
) -> Functions:
    """Combinations, weights (m, k), of functions."""
    used = np.any(weights != 0, axis=0)
    w = weights[:, used]
    return Functions(labels, by, w @ functions.whole[used], w @ functions.shift[used], {}, functions.averaged)


def rows_of(data: ModelData, functions: Functions) -> tuple[np.ndarray, np.ndarray]:
    """L (k, p) of the columns that the fit kept, and which functions (k,) are estimable."""
    whole, own = functions.whole, data.frame.dependence
    known = np.asarray(np.isfinite(whole).all(axis=1))
    if own is None:
        return whole, known
    filled = np.where(known[:, None], whole, 0.0)
    return whole[:, own.kept], known & own.estimable(filled)


def estimable_part(data: ModelData, functions: Functions) -> np.ndarray:
    """Weights (j, k) of the combinations of k functions that are estimable, as many as there are."""
    known = np.asarray(np.isfinite(functions.whole).all(axis=1))
    own, some = data.frame.dependence, np.eye(len(known))[known]
    return some if own is None or not known.any() else reached(own, functions.whole[known]) @ some


def reached(own: Aliases, whole: np.ndarray) -> np.ndarray:
    """Weights (j, k) of the combinations of rows (k, p + r) that lie in the row space of X."""
    # what it does not reach: rᵀ = r₂ᵀ − r₁ᵀA
    off = whole[:, own.out] - whole[:, own.kept] @ own.weights
    size = np.abs(whole).max(initial=0.0) * (1.0 + np.abs(own.weights).max(initial=0.0))
    left, values, _ = np.linalg.svd(off)
    rank = int(np.sum(values > 1e-8 * size))
    return left[:, rank:].T if rank else np.eye(len(whole))


def estimates(fitted: Fitted, functions: Functions, how: View) -> dict[str, np.ndarray]:
    """estimate, se, df, t, p (k,) of the functions, each by itself; NaN where not estimable."""
    rows, known = rows_of(fitted.data, functions)
    out = {name: np.full(len(rows), np.nan) for name in ("estimate", "se", "df", "t", "p")}
    at = np.flatnonzero(known)
    for start in range(0, len(at), TOGETHER):
        some = at[start : start + TOGETHER]
        with np.errstate(divide="ignore", invalid="ignore"):
            table = t_table(fitted, rows[some], -functions.shift[some], how.ddf, how.robust)
        table["estimate"] = table["estimate"] + functions.shift[some]
        for name, column in out.items():
            column[some] = table[name]
    return out


def name_missing(data: ModelData, names: Sequence[str], missing: np.ndarray) -> list[str]:
    """The functions that are not estimable; an `EstimabilityWarning` names them, if there are any."""
    gone = [name for name, lost in zip(names, missing, strict=True) if lost]
    if gone:
        shown = "; ".join(gone[:8]) + (f"; … ({len(gone)} in all)" if len(gone) > 8 else "")
        about = data.frame.aliased
        why = (
            f" (dropped from the fit: {', '.join(about[:6])}{', …' if len(about) > 6 else ''})"
            if about
            else ""
        )
        warnings.warn(
            f"not estimable: {shown}. The data do not tell apart, or do not have, what it depends on{why}; "
            "its row is NaN",
            EstimabilityWarning,
            stacklevel=stack_level(),
        )
    return gone
