"""Residual covariances between rows, on the host: simulation, whitening and prediction of residuals."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import scipy.linalg as sl

from lmmjax.arrays import Array, quick_jit
from lmmjax.design import Design, ResidualDesign
from lmmjax.gram.whitened.patterns import Steps, earlier, steps
from lmmjax.residual import ResidualStructure

PAIRS = 1 << 16
"""Pairs of rows whose covariances are formed at once, unless they are of one set."""


def covariance(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cov(ε) (k, k) of some rows at ψ (m + 1,)."""
    return covariances(design, psi, rows[None])[0]


def covariances(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cov(ε) (g, k, k) of g sets of k rows (g, k) at ψ (m + 1,)."""
    own, weights = design.residual, design.weights
    root = np.sqrt(psi[-1]) / (np.ones(rows.shape) if weights is None else np.sqrt(weights[rows]))
    scale = root[:, :, None] * root[:, None, :]
    g, k = rows.shape
    if own is None:
        return scale * np.eye(k)
    out, step = np.empty((g, k, k)), max(PAIRS // k**2, 1)
    for first in range(0, g, step):
        some = rows[first : first + step]
        left, right = (np.broadcast_to(a, (len(some), k, k)) for a in (some[:, :, None], some[:, None, :]))
        same = (left == right).ravel()
        value = _of_pairs(design, psi, own.at(left.ravel()), own.at(right.ravel()), same)
        alike = own.codes[left] == own.codes[right]
        out[first : first + step] = np.where(alike, value.reshape(left.shape), 0.0)
    return out * scale


def between(
    design: Design, psi: np.ndarray, left: ResidualDesign, right: ResidualDesign, same: np.ndarray
) -> np.ndarray:
    """s s′ c (k, l) between places of one group, relative to σ² and weights of 1."""
    one, two = (a.ravel() for a in np.indices(same.shape))
    return _of_pairs(design, psi, left.at(one), right.at(two), same.ravel()).reshape(same.shape)


def variances(design: Design, psi: np.ndarray) -> np.ndarray:
    """Var(ε) (n,) of every row at ψ (m + 1,)."""
    own, n = design.residual, design.n
    value = psi[-1] / (np.ones(n) if design.weights is None else design.weights)
    return value if own is None else value * _of_pairs(design, psi, own, own, np.ones(n, bool))


def _of_pairs(
    design: Design, psi: np.ndarray, left: ResidualDesign, right: ResidualDesign, same: np.ndarray
) -> np.ndarray:
    """s s′ c (k,) of pairs of rows, their number rounded up: few programs serve all groups."""
    k = len(same)
    padded = np.minimum(np.arange(1 << max(k - 1, 7).bit_length()), k - 1)
    left, right = left.at(padded), right.at(padded)
    r = design.structure.relative(psi)[design.structure.tail]
    # new rows may lie between the integer occasions of the fit
    kind = np.result_type(left.place, right.place)
    places = left.place.astype(kind), right.place.astype(kind)
    pairs = places[0], left.covariates, places[1], right.covariates, same[padded]
    with jax.enable_x64(True):
        return np.asarray(_products(left.structure, r, *pairs))[:k]


@partial(quick_jit, static_argnums=0)
def _products(
    structure: ResidualStructure,
    r: Array,
    left: Array,
    left_covariates: tuple[Array, ...],
    right: Array,
    right_covariates: tuple[Array, ...],
    same: Array,
) -> Array:
    value = structure.correlation(r, left, right, same, structure.group_level(left_covariates))
    one, two = structure.sd(r, left_covariates), structure.sd(r, right_covariates)
    return value if one is None or two is None else value * one * two


@partial(quick_jit, static_argnums=0)
def _weights(structure: ResidualStructure, r: Array, rows: Steps) -> tuple[Array, Array, Array]:
    return rows.weights(structure, r)


def coloured(design: Design, psi: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Residuals (n, k) with the covariance of the model, from independent standard ones (n, k)."""
    own = design.residual
    if own is None:
        return white * np.sqrt(variances(design, psi))[:, None]
    if not own.structure.markov:
        out = np.empty_like(white)
        for rows, factor in _factors(design, psi):
            out[rows] = factor @ white[rows]
        return out
    order, first, alpha, beta = _recursion(design, psi)
    out = white[order]
    # by position within the groups, all groups at once
    position = np.arange(len(order)) - np.flatnonzero(first)[np.cumsum(first) - 1]
    for k in range(position.max() + 1):
        at = np.flatnonzero(position == k)
        past = beta[at, None] * out[at - 1] if k else 0.0
        out[at] = (out[at] + past) / alpha[at, None]
    coloured = np.empty_like(out)
    coloured[order] = out
    return coloured


def whitened(design: Design, psi: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Uncorrelated residuals (n, k) of unit variance: the inverse of `coloured`."""
    own = design.residual
    if own is None:
        return residuals / np.sqrt(variances(design, psi))[:, None]
    out = np.empty_like(residuals)
    if not own.structure.markov:
        for rows, factor in _factors(design, psi):
            out[rows] = np.linalg.solve(factor, residuals[rows])
        return out
    order, first, alpha, beta = _recursion(design, psi)
    ordered = residuals[order]
    out[order] = alpha[:, None] * ordered - beta[:, None] * ordered[earlier(first)]
    return out


def decorrelating(design: Design, psi: np.ndarray) -> Any:
    """The sparse matrix L⁻¹ (n, n) of `whitened`, L⁻¹Cov(ε)L⁻ᵀ = I."""
    # imported here: scipy.sparse adds a warning filter, and few fits need it
    import scipy.sparse as sps

    own, n = design.residual, design.n
    if own is None:
        return sps.diags_array(1.0 / np.sqrt(variances(design, psi)), format="csr")
    if not own.structure.markov:
        entries, at, columns = [], [], []
        for rows, factor in _factors(design, psi):
            k = rows.shape[1]
            lower = np.tril_indices(k)
            inverse = np.linalg.solve(factor, np.broadcast_to(np.eye(k), factor.shape))
            entries.append(inverse[:, *lower].ravel())
            at.append(rows[:, lower[0]].ravel())
            columns.append(rows[:, lower[1]].ravel())
        parts = (np.concatenate(a) for a in (entries, at, columns))
    else:
        order, first, alpha, beta = _recursion(design, psi)
        later = ~first
        before = order[earlier(first)][later]
        pairs = ((alpha, -beta[later]), (order, order[later]), (order, before))
        parts = (np.concatenate(pair) for pair in pairs)
    values, at, columns = parts
    return sps.csr_array((values, (at, columns)), shape=(n, n))


def extrapolated(design: Design, psi: np.ndarray, residuals: np.ndarray, new: ResidualDesign) -> np.ndarray:
    """E(ε_new | ε) (m,) by kriging from residuals (n,), at weights of 1; 0 in new groups (codes −1)."""
    own, out = design.residual, np.zeros(len(new.codes))
    assert own is not None
    for code in np.unique(new.codes[new.codes >= 0]):
        here, rows = np.flatnonzero(new.codes == code), np.flatnonzero(own.codes == code)
        matrix = covariance(design, psi, rows)
        cross = between(design, psi, new.take(here), own.take(rows), np.zeros((len(here), len(rows)), bool))
        root = psi[-1] / (np.ones(len(rows)) if design.weights is None else np.sqrt(design.weights[rows]))
        out[here] = (cross * root[None]) @ sl.cho_solve(sl.cho_factor(matrix, lower=True), residuals[rows])
    return out


def _factors(design: Design, psi: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (g, k) and lower Cholesky factors (g, k, k) of Cov(ε) of all groups of k rows, rows by place."""
    own = design.residual
    assert own is not None
    order = _order(own)
    starts = np.append(0, np.flatnonzero(np.diff(own.codes[order])) + 1)
    sizes = np.diff(np.append(starts, len(order)))
    for k in np.unique(sizes):
        rows = order[starts[sizes == k][:, None] + np.arange(k)]
        yield rows, np.linalg.cholesky(covariances(design, psi, rows))


def _recursion(design: Design, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by group and place, which are first, and α, β (n,) with αε_t − βε_{t−1} standard."""
    own = design.residual
    assert own is not None
    order = _order(own)
    made = steps(own.codes[order], own.place[order], tuple(v[order] for v in own.covariates))
    with jax.enable_x64(True):
        r = design.structure.relative(psi)[design.structure.tail]
        alpha, beta, _ = (np.asarray(a) for a in _weights(own.structure, r, made))
    root = np.sqrt(np.ones(design.n) if design.weights is None else design.weights)[order] / np.sqrt(psi[-1])
    return order, made.first, alpha * root, beta * root[earlier(made.first)]


def _order(own: ResidualDesign) -> np.ndarray:
    places = own.place.T if own.place.ndim > 1 else own.place[None]
    return np.lexsort((*places[::-1], own.codes))
