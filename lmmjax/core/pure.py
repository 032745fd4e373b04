"""For those who bring arrays: problems made inside `jit`, and predictions from their estimates.

Everything here is pure. X, Z, y, weights, offset and the rows to keep may be traced, such as the output of a
network; only the groups are concrete, because shapes depend on them. A fit of such a problem can be mapped,
differentiated, checkpointed, scanned and sharded like any function of arrays.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.core.conditional import conditional_means
from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.covariance import family
from lmmjax.design import Design, RandomTerm

Item = TypeVar("Item")


def problem_from_arrays(
    y: Array,
    x: Array,
    groups: Array | tuple[Array, ...],
    z: Array | tuple[Array | None, ...] | None = None,
    *,
    weights: Array | None = None,
    offset: Array | None = None,
    keep: Array | None = None,
    covariance: str | tuple[str, ...] = "us",
    reml: bool = True,
    backend: str | None = None,
) -> Problem:
    """The problem of one response, from matrices: pure in all of them but `groups`.

    Parameters
    ----------
    y : (n,) response; x : (n, p) fixed effects.
    groups : (n,) integer codes 0 … G − 1, concrete; a tuple for several terms.
    z : (n, q) columns of the random effects, None for an intercept; a tuple for several terms.
    weights : (n,) prior weights, Var(ε) = σ²/w; offset : (n,) known part of the mean.
    keep : (n,) booleans; rows that are not kept are left out of the fit exactly, without a change of shape,
        and their y may be missing.
    covariance : family of the random effects by its name in formulas; a tuple for several terms.
    backend : see `lmm`; with a traced Z no patterns of groups are looked for.

    Raises
    ------
    ValueError : shapes that do not fit, and, of concrete arrays, values that cannot be used.
    """
    codes = groups if isinstance(groups, tuple) else (groups,)
    columns, names = _each(z, len(codes), "z"), _each(covariance, len(codes), "covariance")
    for name, value in {"y": y, "x": x, "weights": weights, "offset": offset}.items():
        _require_numbers(name, value)
    for k, g in enumerate(codes):
        _require_codes(f"groups of random term {k}", g)
    if not (isinstance(reml, bool | np.bool_) or hasattr(reml, "dtype")):
        raise ValueError(f"reml must be True or False, not {reml!r}")
    if keep is not None and np.dtype(getattr(keep, "dtype", object)) != bool:
        raise ValueError("keep must be an array of True and False, one for each row")
    xp = namespace(x, y, weights, offset, keep, *columns)
    n = np.shape(y)[0]
    x = xp.asarray(x)
    y = xp.asarray(y, dtype=x.dtype)
    columns = tuple(xp.ones((n, 1), x.dtype) if c is None else xp.asarray(c) for c in columns)
    if x.ndim != 2 or x.shape[0] != n or any(c.ndim != 2 for c in columns):
        shapes = ", ".join(str(c.shape) for c in columns)
        raise ValueError(f"y {np.shape(y)}, x {x.shape} and z {shapes} must be (n,), (n, p) and (n, q)")
    if keep is not None:
        kept = xp.asarray(keep, dtype=bool)
        x, y, *columns = (_zeroed(xp, a, kept) for a in (x, y, *columns))
        # log|R| counts the rows that are kept
        weights = None if weights is None else xp.where(kept, weights, xp.ones((), x.dtype))
        offset = None if offset is None else _zeroed(xp, offset, kept)
    terms = tuple(
        RandomTerm(c, np.asarray(g), int(np.max(g)) + 1, family(name), f"random term {k}")
        for k, (c, g, name) in enumerate(zip(columns, codes, names, strict=True))
    )
    problem = ProblemMaker(Design(x, terms, weights, offset), backend)(y, reml)
    if keep is None:
        return problem
    return dataclasses.replace(problem, n=xp.sum(kept.astype(x.dtype)))


def predict(
    problem: Problem,
    fit: Estimate,
    x: Array,
    groups: Array | tuple[Array, ...],
    z: Array | tuple[Array | None, ...] | None = None,
    offset: Array | None = None,
) -> Array:
    """Xβ̂ + Σ Zb̂ + offset (k,) for rows old or new: pure.

    Parameters
    ----------
    problem, fit : what was fitted, and its estimate.
    x : (k, p); z : (k, q), None for an intercept; a tuple for several terms.
    groups : (k,) codes as in the fit, −1 for a group that was not in it, which has b = 0; a tuple for several
        terms. May be traced.
    """
    codes = groups if isinstance(groups, tuple) else (groups,)
    columns = _each(z, len(codes), "z")
    modes = conditional_means(problem, fit.psi, fit.beta)
    if len(modes) != len(codes):
        raise ValueError(f"groups for {len(codes)} terms; the problem has {len(modes)} random terms")
    values = x @ fit.beta
    xp = namespace(values, *modes)
    for b, g, column in zip(modes, codes, columns, strict=True):
        own = xp.take(b, xp.maximum(g, 0), axis=0)
        part = own[:, 0] if column is None else xp.sum(column * own, axis=1)
        values = values + xp.where(g < 0, xp.zeros((), part.dtype), part)
    return values if offset is None else values + offset


def _require_numbers(name: str, value: Any) -> None:
    """ValueError if an array is masked or not of real numbers."""
    kind = np.dtype(getattr(value, "dtype", float)).kind if value is not None else "f"
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is masked: drop what is missing, or pass keep=")
    if kind in "cOUSmM":
        what = "complex" if kind == "c" else "not numeric"
        raise ValueError(f"{name} is {what}: pass real numbers")


def _require_codes(name: str, g: Any) -> None:
    """ValueError unless groups are whole numbers."""
    kind = getattr(np.asarray(g) if isinstance(g, list) else g, "dtype", np.dtype(object))
    if isinstance(g, np.ma.MaskedArray) or np.dtype(kind).kind not in "iu":
        what = "masked" if isinstance(g, np.ma.MaskedArray) else f"of type {kind}"
        raise ValueError(f"{name} are {what}: pass codes, the whole numbers 0 … G − 1, one for each row")


def _zeroed(xp, a: Array, kept: Array) -> Array:
    """Rows (n, ...) that are not kept set to zero."""
    a = xp.asarray(a)
    return xp.where(kept[(..., *(None,) * (a.ndim - 1))], a, xp.zeros((), a.dtype))


def _each(value: Item | tuple[Item, ...], terms: int, name: str) -> tuple[Item, ...]:
    """One value a term."""
    values = value if isinstance(value, tuple) else (value,) * terms
    if len(values) != terms:
        raise ValueError(f"{name} is given for {len(values)} terms and groups for {terms}")
    return values
