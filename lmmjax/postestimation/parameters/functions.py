"""Functions of the parameters by name, with standard errors: for one fit or for each of many responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from lmmjax.arrays import Array, namespace, quick_jit
from lmmjax.arrays.sparse_columns import complete_columns, missing
from lmmjax.fitted import (
    Component,
    Fitted,
    FittedMany,
    ModelData,
    component_names,
    relative_covariance,
    require_function,
    require_level,
)
from lmmjax.inference.delta import delta, wald_limits
from lmmjax.inference.r2 import Weights, group_shares, r_squared, share_weights, term_shares

COLUMNS = ["estimate", "se", "lower", "upper"]
ZERO = 1e-9
"""Variances that are zero, relative to σ²."""

N_ARRAYS = 6
"""How many arrays `delta` takes."""


Shares = tuple[Callable, Weights, list[str]]
"""A function of (weights, β, ψ), the weights, and the names of its values."""


def icc(fits: Fitted | FittedMany, by_group: bool) -> Shares:
    """The intraclass correlation as a function of (weights, β, ψ), the weights, its name or the factors."""
    weights, groups = _weights(fits)
    if by_group:
        return lambda weights, beta, psi: group_shares(weights, beta, psi)[..., :-1], weights, groups
    return lambda weights, beta, psi: group_shares(weights, beta, psi)[..., -1:], weights, ["icc"]


def r2(fits: Fitted | FittedMany) -> Shares:
    """Marginal and conditional R² as a function of (weights, β, ψ), with the weights and their names."""

    def shares(weights: Weights, beta: Any, psi: Any) -> Any:
        return r_squared(weights, _of_estimable(beta), psi)

    return shares, _weights(fits)[0], ["marginal", "conditional"]


def variance_shares(fits: Fitted | FittedMany) -> Shares:
    """Shares of all terms and the residual as a function of (weights, β, ψ), the weights, and their names."""
    frame = fits.data.frame
    groups = [term.group for term in frame.random]
    # several terms of one factor are told apart by their text
    labels = [
        g if groups.count(g) == 1 else f"({t.label})" for g, t in zip(groups, frame.random, strict=True)
    ]
    fixed = [name for name in frame.term_slices if name != "Intercept"]
    members = np.zeros((len(fixed), len(frame.x_names)))
    for own, name in zip(members, fixed, strict=True):
        own[frame.term_slices[name]] = 1.0
    weights, random = _weights(fits, labels)

    def shares(weights: Weights, beta: Any, psi: Any) -> Any:
        return term_shares(weights, members, _of_estimable(beta), psi)

    names = [f"fixed {name}" if name in random else name for name in fixed]
    return shares, weights, [*names, *random, "Residual"]


def shares_table(fits: FittedMany) -> pd.DataFrame:
    """Shares of variance, responses × terms and Residual."""
    fun, weights, names = variance_shares(fits)
    return pd.DataFrame(at_estimate(fits, fun, weights), index=fits.names, columns=names)


def _of_estimable(beta: Any) -> Any:
    """β (..., p) with zeros for columns that a response does not determine, which are left out."""
    xp = namespace(beta)
    gone = xp.isnan(beta)
    gone = gone & ~xp.all(gone, axis=-1, keepdims=True)
    return xp.where(gone, 0.0, beta)


def _weights(fits: Fitted | FittedMany, labels: list[str] | None = None) -> tuple[Weights, list[str]]:
    """What shares of variance need: of the rows that each response has, with its weights."""
    data, own = fits.data, None
    if isinstance(fits, FittedMany) and (fits.weights is not None or not complete_columns(fits.y).all()):
        own = np.where(missing(fits.y), 0.0, 1.0 if fits.weights is None else fits.weights)
    return share_weights(data.design, labels or [term.group for term in data.frame.random], own)


def at_estimate(fits: Fitted | FittedMany, fun: Callable, weights: Weights) -> np.ndarray:
    """fun(weights, β, ψ) in float64, missing where the data do not determine it."""
    estimate = fits.estimate
    if np.any(estimate.moves):
        return deltas(fits, fun, weights)[0]
    with jax.enable_x64(True):
        return np.asarray(fun(weights, estimate.beta, estimate.psi))


def parameter_arrays(fits: Fitted | FittedMany, hold: bool = False) -> list[np.ndarray]:
    """β̂, ψ̂, their covariances and open directions, as `delta` takes them; a known σ² has no variance.

    With `hold` nor has the variance of a term of one column that is estimated as zero: errors of the others
    are those of the model without it.
    """
    estimate, structure = fits.estimate, fits.data.design.structure
    beta, psi, cov_beta = (np.asarray(getattr(estimate, name)) for name in ("beta", "psi", "cov_beta"))
    if isinstance(fits, FittedMany) and not fits.kept.all():
        # coefficients that are left out have no covariance with any
        kept = fits.kept
        cov_beta = np.where(kept[:, :, None] & kept[:, None, :], cov_beta, 0.0)
    unit, cov_psi = relative_covariance(structure, estimate, np.asarray(estimate.unidentified))
    if fits.data.design.known is not None:
        cov_psi[..., -1, :] = cov_psi[..., :, -1] = 0.0
    if hold:
        rows, terms = fits.data.components, structure.terms
        alone = np.array([row.kind == "variance" and terms[row.term].q == 1 for row in rows])
        zero = alone & (psi <= ZERO * psi[..., -1:])
        cov_psi = np.where(zero[..., :, None] | zero[..., None, :], 0.0, cov_psi)
    return [beta, psi, cov_beta, unit, cov_psi, np.asarray(estimate.moves)]


def deltas(
    fits: Fitted | FittedMany, fun: Callable, weights: Weights | None, hold: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Values (k,) and covariances (k, k) of fun(β, ψ), or fun(weights, β, ψ); of many lead with T."""

    def one(weights: Weights | None, *arrays: Array) -> tuple[Array, Array]:
        return delta(fun if weights is None else partial(fun, weights), *arrays)

    if isinstance(fits, FittedMany):
        each = weights is not None and np.ndim(weights.noise) > 0
        one = jax.vmap(one, in_axes=(0 if each else None, *(0,) * N_ARRAYS))
    with jax.enable_x64(True):
        value, cov = quick_jit(one)(weights, *parameter_arrays(fits, hold))
    return np.asarray(value), np.asarray(cov)


def named(data: ModelData, fun: Callable) -> tuple[Callable, list[str]]:
    """A function of a dict of parameters as a function of (β, ψ), and the names of its values."""
    require_function("fun", fun)
    rows, x_names = data.components, data.x_names
    labels = component_names(rows)
    known: list[str] = []

    def of_arrays(beta: Any, psi: Any) -> Any:
        values = fun(dict(zip(labels + x_names, [*_sd_scale(psi, rows), *beta], strict=True)))
        if isinstance(values, Mapping):
            known[:] = [str(name) for name in values]
            values = list(values.values())
        if not isinstance(values, list | tuple):
            return values
        return jnp.stack([jnp.asarray(value, psi.dtype) for value in values])

    beta = jax.ShapeDtypeStruct((data.design.p,), np.float64)
    psi = jax.ShapeDtypeStruct((len(rows),), np.float64)
    try:
        with jax.enable_x64(True):
            shape = jax.eval_shape(of_arrays, beta, psi).shape
    except KeyError as error:
        raise ValueError(f"fun: unknown parameter {error}: there are {', '.join(labels + x_names)}") from None
    if len(shape) > 1:
        raise ValueError(f"fun returned shape {shape}: return a scalar, a vector or a dict of scalars")
    size = shape[0] if shape else 1
    numbered = ["value"] if not shape else [f"value{k}" for k in range(size)]
    return of_arrays, list(known) or numbered


def _sd_scale(psi: Any, rows: list[Component]) -> list[Any]:
    """Standard deviations, correlations and parameters of ψ (m + 1,), traced."""
    variance = {(r.term, r.i): k for k, r in enumerate(rows) if r.kind == "variance"}
    out = []
    for k, row in enumerate(rows):
        if row.kind == "covariance":
            a, b = variance[row.term, row.i], variance[row.term, row.j]
            out.append(psi[k] / (jnp.sqrt(psi[a]) * jnp.sqrt(psi[b])))
        else:
            out.append(row.reported(psi[k]) if row.kind == "parameter" else jnp.sqrt(psi[k]))
    return out


def table(
    fitted: Fitted,
    fun: Callable,
    names: list[str],
    level: float,
    scale: str = "identity",
    weights: Weights | None = None,
) -> pd.DataFrame:
    """Columns estimate, se, lower, upper of fun(β, ψ), or of fun(weights, β, ψ); a row a value."""
    require_level(level)
    columns = _columns(*deltas(fitted, fun, weights), level, scale)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=names)


def batch_table(
    fits: FittedMany,
    fun: Callable,
    names: list[str],
    level: float,
    scale: str = "identity",
    weights: Weights | None = None,
) -> pd.DataFrame:
    """The same for every response: responses × (name, column)."""
    require_level(level)
    columns = _columns(*deltas(fits, fun, weights), level, scale)
    labels = pd.MultiIndex.from_product([names, COLUMNS])
    return pd.DataFrame(
        np.stack(columns, axis=-1).reshape(len(fits.names), -1), index=fits.names, columns=labels
    )


def _columns(value: np.ndarray, cov: np.ndarray, level: float, scale: str) -> tuple[np.ndarray, ...]:
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    return value, se, *wald_limits(value, se, level, scale)
