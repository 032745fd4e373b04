"""For those who bring arrays: problems made inside `jit`, and predictions from their estimates.

Everything here is pure. X, Z, y, weights, offset and the rows to keep may be traced, such as the output of a
network; only the groups are concrete, because shapes depend on them. A fit of such a problem can be mapped,
differentiated, checkpointed, scanned and sharded like any function of arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from jax.core import Tracer

from lmmjax.arrays import Array, namespace
from lmmjax.arrays.other_arguments import answered
from lmmjax.core.conditional import conditional_means
from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.covariance import family
from lmmjax.design import Design, RandomTerm

Item = TypeVar("Item")


@answered
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
    groups : (n,) integer codes 0 … G − 1, concrete; a tuple for several terms. A code that does not occur
        is a group without rows. `np.unique(labels, return_inverse=True)[1]` are codes of labels.
    z : (n, q) columns of the random effects, None for an intercept; a tuple for several terms.
    weights : (n,) prior weights, Var(ε) = σ²/w; offset : (n,) known part of the mean.
    keep : (n,) booleans; rows that are not kept are left out of the fit exactly, without a change of shape,
        and their y may be missing.
    covariance : family of the random effects by its name in formulas; a tuple for several terms.
    reml : whether `estimate` maximises the restricted likelihood, or the likelihood; concrete.
    backend : see `lmm`. No patterns of groups are looked for, so that the problem has modes and predictions;
        `Model.problem` has likelihoods only and looks for them, which makes balanced designs cheaper.

    Precision is that of x, which is float64 only under `jax_enable_x64`.

    Raises
    ------
    ValueError : shapes that do not fit, and, of concrete arrays, values that cannot be used; what has to be
        concrete is traced.
    """
    codes = groups if isinstance(groups, tuple) else (groups,)
    for k, g in enumerate(codes):
        _require_codes(f"groups of random term {k}", g)
    columns, names = _each(z, len(codes), "z"), _each(covariance, len(codes), "covariance")
    for name, value in {"y": y, "x": x, "weights": weights, "offset": offset}.items():
        _require_numbers(name, value)
    if y is None or x is None:
        raise ValueError(f"{'y' if y is None else 'x'} is None: pass y (n,) and x (n, p)")
    _require_switch("reml", reml)
    if keep is not None and np.dtype(getattr(keep, "dtype", object)) != bool:
        raise ValueError("keep must be an array of True and False, one for each row")
    if keep is not None and np.shape(keep) != np.shape(y):
        raise ValueError(f"keep has shape {np.shape(keep)}; one value a row is needed: {np.shape(y)}")
    xp = namespace(x, y, weights, offset, keep, *columns)
    if np.ndim(y) != 1:
        raise ValueError(f"y has shape {np.shape(y)}: pass one response (n,), and map over many by jax.vmap")
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
    problem = ProblemMaker(Design(x, terms, weights, offset), backend).expanded(y, bool(reml))
    if keep is None:
        return problem
    return dataclasses.replace(problem, n=xp.sum(kept.astype(x.dtype)))


@answered
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

    Raises
    ------
    ValueError : groups that are no codes, or of another number of terms; a code beyond the groups of the fit.
    """
    codes = groups if isinstance(groups, tuple) else (groups,)
    for k, g in enumerate(codes):
        _require_codes(f"groups of random term {k}", g, traced=True)
    columns = _each(z, len(codes), "z")
    modes = conditional_means(problem, fit.psi, fit.beta)
    if len(modes) != len(codes):
        raise ValueError(f"groups for {len(codes)} terms; the problem has {len(modes)} random terms")
    for k, (b, g) in enumerate(zip(modes, codes, strict=True)):
        if not isinstance(g, Tracer) and np.size(g) and np.max(g) >= len(b):
            raise ValueError(
                f"groups of random term {k} have the code {np.max(g)}; the fit has 0 … {len(b) - 1}: pass −1 "
                "for a group that was not in it"
            )
    values = x @ fit.beta
    xp = namespace(values, *modes)
    for b, g, column in zip(modes, codes, columns, strict=True):
        g = xp.asarray(g)
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


def _require_codes(name: str, g: Any, traced: bool = False) -> None:
    """ValueError unless groups are whole numbers, and concrete unless they may be `traced`."""
    if isinstance(g, Mapping):
        raise ValueError(
            "groups is a dict: pass codes, or a tuple of them for several terms; Model.from_arrays takes "
            "labels by name"
        )
    if isinstance(g, list) and g and not np.isscalar(g[0]):
        raise ValueError("groups is a list: pass codes (n,), or a tuple of them for several terms")
    if isinstance(g, Tracer) and not traced:
        raise ValueError(
            f"{name} are traced, and shapes depend on them: close over a NumPy array of codes, or make them "
            "static. Problems that differ in their groups are not mapped; those of one layout that lack rows "
            "are, with keep="
        )
    kind = getattr(np.asarray(g) if isinstance(g, list) else g, "dtype", np.dtype(type(g)))
    if isinstance(g, np.ma.MaskedArray) or getattr(kind, "kind", "O") not in "iu":
        what = "masked" if isinstance(g, np.ma.MaskedArray) else f"of type {kind}"
        remedy = (
            "" if what == "masked" else "; np.unique(labels, return_inverse=True)[1] makes them of labels"
        )
        raise ValueError(
            f"{name} are {what}: pass codes, the whole numbers 0 … G − 1, one for each row{remedy}"
        )


def _require_switch(name: str, value: Any) -> None:
    """ValueError unless a value is True or False, and concrete."""
    if isinstance(value, Tracer):
        raise ValueError(f"{name} is traced: it has to be concrete, as by static_argnames")
    if np.ndim(value) or np.dtype(getattr(value, "dtype", type(value))) != bool:
        raise ValueError(f"{name} must be True or False, not {value!r}")


def _zeroed(xp, a: Array, kept: Array) -> Array:
    """Rows (n, ...) that are not kept set to zero."""
    a = xp.asarray(a)
    return xp.where(kept[(..., *(None,) * (a.ndim - 1))], a, xp.zeros((), a.dtype))


def _each(value: Item | tuple[Item, ...], terms: int, name: str) -> tuple[Item, ...]:
    """One value a term."""
    if isinstance(value, Mapping | list):
        raise ValueError(f"{name} is a {type(value).__name__}: pass a tuple with one for each term")
    values = value if isinstance(value, tuple) else (value,) * terms
    if len(values) != terms:
        raise ValueError(f"{name} is given for {len(values)} terms and groups for {terms}")
    return values
