"""Variance components by name: tables, standard deviations and correlations with standard errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy.special import ndtri

from lmmjax.covariance import Structure


@dataclasses.dataclass(frozen=True)
class Component:
    """One entry of ψ: a variance (term2 is None) or a covariance, at positions (i, j) of a term's matrix."""

    group: str
    term1: str | None
    term2: str | None
    term: int
    i: int
    j: int


def components(structure: Structure, groups: list[str], names: list[tuple[str, ...]]) -> list[Component]:
    """The entries of ψ in order; the last is the residual variance."""
    rows = []
    for k, (term, group, columns) in enumerate(zip(structure.terms, groups, names, strict=True)):
        for i, j in term.entries:
            # lme4 writes the earlier coefficient first
            second = columns[i] if i != j else None
            rows.append(Component(group, columns[j], second, k, i, j))
    return [*rows, Component("Residual", None, None, len(groups), 0, 0)]


def sd_scale(psi: np.ndarray, rows: list[Component]) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations and correlations (..., m + 1) of ψ (..., m + 1); Jacobians (..., m + 1, m + 1)."""
    variance = {(r.term, r.i): k for k, r in enumerate(rows) if r.i == r.j}
    values, jacobian = np.full(psi.shape, np.nan), np.zeros((*psi.shape, len(rows)))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, row in enumerate(rows):
            if row.i == row.j:
                values[..., k] = np.sqrt(psi[..., k])
                jacobian[..., k, k] = 0.5 / values[..., k]
                continue
            a, b = variance[row.term, row.i], variance[row.term, row.j]
            root = np.sqrt(psi[..., a] * psi[..., b])
            values[..., k] = psi[..., k] / root
            jacobian[..., k, k] = 1.0 / root
            jacobian[..., k, a] = -0.5 * values[..., k] / psi[..., a]
            jacobian[..., k, b] = -0.5 * values[..., k] / psi[..., b]
    return values, jacobian


def delta_se(jacobian: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Standard errors (..., k) of functions with Jacobian (..., k, m).

    Missing parts of `cov` (..., m, m) spoil the functions that use them and no others.
    """
    out = np.empty(jacobian.shape[:-1])
    with np.errstate(invalid="ignore"):
        for k in range(jacobian.shape[-2]):
            row = jacobian[..., k, :]
            used = row != 0
            needed = np.where(used[..., :, None] & used[..., None, :], cov, 0.0)
            out[..., k] = np.sqrt(np.einsum("...i,...ij,...j->...", row, needed, row))
    return out


def names(rows: list[Component]) -> list[str]:
    """`sd_(Intercept)|Subject`, `cor_Days.(Intercept)|Subject`, `sigma`."""
    out = []
    for row in rows:
        if row.term1 is None:
            out.append("sigma")
        elif row.term2 is None:
            out.append(f"sd_{row.term1}|{row.group}")
        else:
            out.append(f"cor_{row.term2}.{row.term1}|{row.group}")
    return out


def varcorr_table(rows: list[Component], psi: np.ndarray, cov: np.ndarray) -> pd.DataFrame:
    """Columns group, term1, term2, vcov, sdcor, se; the standard error is that of vcov."""
    values, _ = sd_scale(psi, rows)
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(cov))
    return pd.DataFrame(
        {
            "group": [row.group for row in rows],
            "term1": pd.Series([row.term1 for row in rows], dtype=object),
            "term2": pd.Series([row.term2 for row in rows], dtype=object),
            "vcov": psi,
            "sdcor": values,
            "se": se,
        }
    )


def sd_limits(
    rows: list[Component], psi: np.ndarray, cov: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Wald limits (..., m + 1), lower and upper: sds on the log scale, correlations on Fisher's z scale."""
    values, jacobian = sd_scale(psi, rows)
    se = delta_se(jacobian, cov)
    half = ndtri(0.5 + level / 2) * se
    correlation = np.array([row.term2 is not None for row in rows])
    # the interval of an sd near zero reaches to infinity
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z, stretch = np.arctanh(np.where(correlation, values, 0.0)), 1.0 - values**2
        lower = np.where(correlation, np.tanh(z - half / stretch), values * np.exp(-half / values))
        upper = np.where(correlation, np.tanh(z + half / stretch), values * np.exp(half / values))
    return lower, upper


def sd_intervals(rows: list[Component], psi: np.ndarray, cov: np.ndarray, level: float) -> pd.DataFrame:
    """The limits of one fit, rows as `names`."""
    lower, upper = sd_limits(rows, psi, cov, level)
    return pd.DataFrame({"lower": lower, "upper": upper}, index=names(rows))
