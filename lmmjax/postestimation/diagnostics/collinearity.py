"""Variance inflation and condition of X, and principal components of random terms."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, identified_psi, require_estimates
from lmmjax.formula.many_rows import x_products
from lmmjax.inference.diagnostics.collinearity import condition, inflation

NO_INTERCEPT = "without an intercept the factors are those of columns that are not centred"


def vif(fitted: Fitted) -> pd.DataFrame:
    """See `Fit.vif`."""
    require_estimates(fitted)
    frame, cov = fitted.data.frame, fitted.estimate.cov_beta
    terms = {name: at for name, at in frame.term_slices.items() if frame.term_factors[name] and len(at)}
    inner = np.sort(np.concatenate([*terms.values(), np.zeros(0, int)])).astype(int)
    place = {int(j): k for k, j in enumerate(inner)}
    groups = [np.array([place[int(j)] for j in at], int) for at in terms.values()]
    values = inflation(cov[np.ix_(inner, inner)], groups)
    df = np.array([len(at) for at in groups], int)
    out = pd.DataFrame({"vif": values, "df": df}, index=pd.Index(list(terms), name="term"))
    out["vif_root"] = out["vif"] ** (0.5 / df)
    out.attrs["condition_number"] = float(condition(x_products(frame))[0].max(initial=1.0))
    if len(inner) == len(cov):
        out.attrs["note"] = NO_INTERCEPT
    return out


def condition_indices(fitted: Fitted) -> pd.DataFrame:
    """See `Fit.condition_indices`."""
    indices, shares = condition(x_products(fitted.data.frame))
    return pd.DataFrame(
        np.column_stack([indices, shares]), columns=pd.Index(["condition_index", *fitted.data.x_names])
    )


def repca(fitted: Fitted) -> dict[str, pd.DataFrame]:
    """See `Fit.repca`."""
    require_estimates(fitted)
    structure, psi = fitted.data.design.structure, np.asarray(fitted.estimate.psi)
    known = ~np.isnan(identified_psi(fitted.estimate))
    rows = fitted.data.components
    parts: dict[str, list[tuple[tuple[str, ...], np.ndarray]]] = {}
    for k, (term, matrix) in enumerate(zip(fitted.data.frame.random, structure.absolute(psi), strict=True)):
        fixed = all(known[j] for j, row in enumerate(rows) if row.term == k and row.kind != "sigma")
        relative = np.asarray(matrix) / psi[-1]
        parts.setdefault(term.group, []).append((term.names, relative if fixed else relative * np.nan))
    return {group: _components(own) for group, own in parts.items()}


def _components(parts: list[tuple[tuple[str, ...], np.ndarray]]) -> pd.DataFrame:
    """Of the block-diagonal matrix of the terms of one factor."""
    names = [name for own, _ in parts for name in own]
    whole, at = np.zeros((len(names), len(names))), 0
    for own, matrix in parts:
        whole[at : at + len(own), at : at + len(own)] = matrix
        at += len(own)
    index = pd.Index([f"PC{k + 1}" for k in range(len(names))])
    columns = pd.Index(["sdev", "proportion", "cumulative", *names])
    if np.isnan(whole).any():
        return pd.DataFrame(np.nan, index, columns)
    values, vectors = np.linalg.eigh(whole)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    # the largest loading of every component is positive
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(len(names))]
    total = values.sum()
    shares = values / total if total > 0 else np.full(len(values), np.nan)
    loadings = (vectors * np.sign(largest)).T
    return pd.DataFrame(
        np.column_stack([np.sqrt(values), shares, np.cumsum(shares), loadings]), index, columns
    )
