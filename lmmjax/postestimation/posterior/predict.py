"""Responses drawn from a posterior, for rows of the fit or new ones, and the likelihood of single rows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.arrays import Array, psd_cholesky, quick_jit
from lmmjax.arrays.memory import require_memory
from lmmjax.bayes.random import keys_of, standard_normal
from lmmjax.core.residual_draws import coloured_each, row_log_densities
from lmmjax.fitted import require_choice
from lmmjax.formula import ModelFrame, Table, new_frame
from lmmjax.formula.residuals import among_themselves
from lmmjax.postestimation.hypotheses.estimability import warn_of_rows
from lmmjax.postestimation.posterior.draws import Draws

AT_ONCE = 8
"""Arrays (draws, n) that there are at a time: the values, Zb of a term, its sum over columns, noise twice."""


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
    data, own = draws.fitted.data, draws.fitted.data.frame
    if newdata is None:
        if offset is not None or weights is not None:
            raise ValueError("offset and weights are for new rows: pass newdata with them")
        x, added, rows = own.x, own.offset, slice(None)
        residual, root = data.design.residual, _root(data.design.weights, data.design.n)
        terms = [(term.z, term.codes, term.codes) for term in own.random]
    else:
        wanted = "kriging" if kind == "response" else ""
        new = new_frame(own, newdata, offset=offset, weights=weights, residual=wanted)
        table = Table(newdata)
        warn_of_rows(data, new)
        x, added = new.x, new.offset
        terms = [
            (term.z, term.codes, _labels(table, known._levels.names))
            for term, known in zip(new.random, own.random, strict=True)
        ]
        rows, residual, root = np.arange(0), None, np.ones(0)
        if new.places is not None:
            rows = new.places.rows
            root = _root(new.places.weights, len(rows))
            if own.residual is not None:
                residual = among_themselves(own.residual, table, new.places)
    if groups == "new":
        terms = [(z, np.full_like(codes, -1), labels) for z, codes, labels in terms]
    _require_known_levels(own, terms)
    drawn = [z.shape[1] * len(np.unique(labels[_fresh(codes, labels)])) for z, codes, labels in terms]
    _require_room(draws, len(x), max(drawn, default=0))
    values = draws.beta @ x.T + (0.0 if added is None else added)
    key_noise, *keys = keys_of(key, len(terms) + 1)
    for k, (key_k, (z, codes, labels)) in enumerate(zip(keys, terms, strict=True)):
        values = values + _contribution(draws, key_k, k, z, codes, labels)
    if kind == "response":
        flat = draws.psi.reshape(-1, draws.psi.shape[-1])
        white = standard_normal(key_noise, (len(flat), len(root)))
        noise = coloured_each(data.design.structure, residual, flat, root, white)
        # rows with a missing value have none
        known = np.full((*values.shape[:2], values.shape[2]), np.nan)
        known[..., rows] = noise.reshape(*values.shape[:2], -1)
        values = values + known
    return values


def _require_known_levels(frame: ModelFrame, terms: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """ValueError where a level is to be drawn anew and its covariances with others are not known."""
    for term, (_, codes, labels) in zip(frame.random, terms, strict=True):
        if term.kernel is not None and np.any(_fresh(codes, labels)):
            raise ValueError(
                f"new levels of {term.group!r} are related to the others, and how is not known: take "
                "groups='same' and levels that the kernel has"
            )


def _root(weights: np.ndarray | None, n: int) -> np.ndarray:
    """√w (n,)."""
    return np.ones(n) if weights is None else np.sqrt(np.asarray(weights))


def log_likelihood(draws: Draws) -> np.ndarray:
    """See `Posterior.log_likelihood`."""
    design, y = draws.fitted.data.design, draws.fitted.y
    _require_room(draws, len(y))
    mean = predictive(draws, jax.random.key(0), kind="mean")
    flat, away = draws.psi.reshape(-1, draws.psi.shape[-1]), (y - mean).reshape(-1, len(y))
    root = _root(design.weights, design.n)
    return row_log_densities(design.structure, design.residual, flat, root, away).reshape(mean.shape)


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
        u = standard_normal(key, (len(flat), len(levels), z.shape[1]))
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


def _require_room(draws: Draws, rows: int, drawn: int = 0) -> None:
    """ValueError unless memory holds values of so many rows, and as many coefficients drawn twice."""
    total = draws.psi.shape[0] * draws.psi.shape[1]
    remedy = "pass fewer rows, as newdata, at a time"
    require_memory(f"{total:,} draws of {rows:,} rows", total, AT_ONCE * rows + 2 * drawn, remedy=remedy)
