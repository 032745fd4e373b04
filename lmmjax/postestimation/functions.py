"""Functions of the parameters by name, with standard errors: for one fit or for each of many responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from lmmjax.core import Estimate
from lmmjax.fitted import Component, Fitted, FittedMany, ModelData, component_names, require_level
from lmmjax.inference.delta import delta, wald_limits
from lmmjax.inference.r2 import group_shares, r_squared, share_weights

COLUMNS = ["estimate", "se", "lower", "upper"]
ARRAYS = ("beta", "psi", "cov_beta", "cov_psi")


def icc(data: ModelData, by_group: bool) -> tuple[Callable, list[str]]:
    """The intraclass correlation as a function of (β, ψ), with its name; by grouping factor if asked for."""
    weights, groups = share_weights(data.design, [term.group for term in data.frame.random])
    shares = group_shares(weights)
    if by_group:
        return lambda beta, psi: shares(beta, psi)[..., :-1], groups
    return lambda beta, psi: shares(beta, psi)[..., -1:], ["icc"]


def r2(data: ModelData) -> tuple[Callable, list[str]]:
    """Marginal and conditional R² as a function of (β, ψ), with their names."""
    weights, _ = share_weights(data.design, [term.group for term in data.frame.random])
    return r_squared(weights), ["marginal", "conditional"]


def at_estimate(fun: Callable, estimate: Estimate) -> np.ndarray:
    """fun(β, ψ) in float64."""
    with jax.enable_x64(True):
        return np.asarray(fun(estimate.beta, estimate.psi))


def named(data: ModelData, fun: Callable) -> tuple[Callable, list[str]]:
    """A function of a dict of parameters as a function of (β, ψ), and the names of its values."""
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
            root = jnp.sqrt(psi[variance[row.term, row.i]] * psi[variance[row.term, row.j]])
            out.append(psi[k] / root)
        else:
            out.append(row.reported(psi[k]) if row.kind == "parameter" else jnp.sqrt(psi[k]))
    return out


def table(
    fitted: Fitted, fun: Callable, names: list[str], level: float, scale: str = "identity"
) -> pd.DataFrame:
    """Columns estimate, se, lower, upper of fun(β, ψ), a row a value."""
    require_level(level)
    arrays = [getattr(fitted.estimate, name) for name in ARRAYS]
    with jax.enable_x64(True):
        value, cov = delta(fun, *(jnp.asarray(a) for a in arrays))
    columns = _columns(np.asarray(value), np.asarray(cov), level, scale)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=names)


def batch_table(
    fits: FittedMany, fun: Callable, names: list[str], level: float, scale: str = "identity"
) -> pd.DataFrame:
    """The same for every response: responses × (name, column)."""
    require_level(level)
    arrays = [getattr(fits.estimate, name) for name in ARRAYS]
    with jax.enable_x64(True):
        value, cov = jax.jit(jax.vmap(lambda *a: delta(fun, *a)))(*(np.asarray(a) for a in arrays))
    columns = _columns(np.asarray(value), np.asarray(cov), level, scale)
    labels = pd.MultiIndex.from_product([names, COLUMNS])
    return pd.DataFrame(
        np.stack(columns, axis=-1).reshape(len(fits.names), -1), index=fits.names, columns=labels
    )


def _columns(value: np.ndarray, cov: np.ndarray, level: float, scale: str) -> tuple[np.ndarray, ...]:
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    return value, se, *wald_limits(value, se, level, scale)
