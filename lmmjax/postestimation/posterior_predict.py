"""Responses drawn from a posterior, for rows of the fit or new ones, and the likelihood of single rows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import Array, psd_cholesky, quick_jit
from lmmjax.arrays.memory import require_memory
from lmmjax.fitted import require_choice
from lmmjax.formula import Table, new_frame
from lmmjax.postestimation.estimability import warn_of_rows
from lmmjax.postestimation.posterior import Draws

AT_ONCE = 5
"""Arrays (draws, n) that there are at a time: the values, Zb of a term, its sum over columns, noise."""


def predictive(
    draws: Draws,
    key: Any,
    newdata: Any = None,
    *,
    groups: str = "same",
    kind: str = "response",
    weights: Any = None,
    offset: Any = None,
) -> np.ndarray:
    """See `Posterior.posterior_predictive`."""
    require_choice("groups", groups, ("same", "new"))
    require_choice("kind", kind, ("response", "mean"))
    own = draws.fitted.data.frame
    if newdata is None:
        if offset is not None or weights is not None:
            raise ValueError("offset and weights are for new rows: pass newdata with them")
        x, added, weights = own.x, own.offset, own.weights
        terms = [(term.z, term.codes, term.codes) for term in own.random]
    else:
        residual = "variance" if kind == "response" else ""
        new = new_frame(own, newdata, offset=offset, weights=weights, residual=residual)
        table = Table(newdata)
        warn_of_rows(draws.fitted.data, new)
        x, added = new.x, new.offset
        terms = [
            (term.z, term.codes, _labels(table, known._levels.names))
            for term, known in zip(new.random, own.random, strict=True)
        ]
        places, weights = new.places, None
        if places is not None and places.weights is not None:
            weights = np.full(len(x), np.nan)
            weights[places.rows] = places.weights
    if groups == "new":
        terms = [(z, np.full_like(codes, -1), labels) for z, codes, labels in terms]
    drawn = [z.shape[1] * len(np.unique(labels[_fresh(codes, labels)])) for z, codes, labels in terms]
    _require_room(draws, len(x), max(drawn, default=0))
    values = draws.beta @ x.T + (0.0 if added is None else added)
    key_noise, *keys = jax.random.split(key, len(terms) + 1)
    for k, (key_k, (z, codes, labels)) in enumerate(zip(keys, terms, strict=True)):
        values = values + _contribution(draws, key_k, k, z, codes, labels)
    if kind == "response":
        sd = np.sqrt(draws.psi[..., -1:]) / (1.0 if weights is None else np.sqrt(weights))
        values = values + sd * _normal(key_noise, values.shape)
    return values


def log_likelihood(draws: Draws) -> np.ndarray:
    """See `Posterior.log_likelihood`."""
    frame, y = draws.fitted.data.frame, draws.fitted.y
    _require_room(draws, len(y))
    mean = predictive(draws, jax.random.key(0), kind="mean")
    variance = draws.psi[..., -1:] / (1.0 if frame.weights is None else frame.weights)
    return -0.5 * (np.log(2.0 * np.pi * variance) + (y - mean) ** 2 / variance)


def _contribution(
    draws: Draws, key: Any, k: int, z: np.ndarray, codes: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Zb (chains, draws, n) of term k: b of the fit where codes ≥ 0, drawn for every other label."""
    fresh = _fresh(codes, labels)
    out = np.zeros((*draws.psi.shape[:2], len(z)))
    if np.any(codes >= 0):
        if draws.b is None:
            raise ValueError("this posterior has no random effects: draw it with random_effects=True")
        out[..., codes >= 0] = _product(z[codes >= 0], draws.b[k], codes[codes >= 0])
    if np.any(fresh):
        levels, at = np.unique(labels[fresh], return_inverse=True)
        flat = draws.psi.reshape(-1, draws.psi.shape[-1])
        with jax.enable_x64(True):
            structure = draws.fitted.data.design.structure

            def root(d: Array) -> Array:
                return psd_cholesky(structure.matrices(d)[k], 1e-15)

            factor = np.asarray(quick_jit(jax.vmap(root))(flat[:, :-1]))
        u = _normal(key, (len(flat), len(levels), z.shape[1]))
        b = np.einsum("dij,dgj->dgi", factor, u).reshape(*draws.psi.shape[:2], *u.shape[1:])
        out[..., fresh] = _product(z[fresh], b, at)
    return out


def _fresh(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows (n,) whose level is drawn."""
    return (codes < 0) & (labels >= 0)


def _product(z: np.ndarray, b: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Zb (chains, draws, n) for b (chains, draws, G, q)."""
    return sum(z[:, j] * b[:, :, codes, j] for j in range(z.shape[1]))  # type: ignore[return-value]


def _labels(table: Table, names: tuple[str, ...]) -> np.ndarray:
    """Integer labels (n,) of the levels that columns `names` make together; −1 where one is missing."""
    columns = [table.raw(name) for name in names]
    missing = np.any([pd.isna(column) for column in columns], axis=0)
    rows = pd.MultiIndex.from_arrays([column.astype(object) for column in columns])
    return np.where(missing, -1, pd.factorize(rows)[0])


def _normal(key: Any, shape: tuple[int, ...]) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.random.normal(key, shape, float))


def _require_room(draws: Draws, rows: int, drawn: int = 0) -> None:
    """ValueError unless memory holds values of so many rows, and as many coefficients drawn twice."""
    total = draws.psi.shape[0] * draws.psi.shape[1]
    remedy = "pass fewer rows, as newdata, at a time"
    require_memory(f"{total:,} draws of {rows:,} rows", total, AT_ONCE * rows + 2 * drawn, remedy=remedy)
