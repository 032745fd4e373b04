"""Residual covariances between rows, on the host: simulation, whitening and prediction of residuals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.design import Design, ResidualDesign
from lmmjax.gram.whitened.patterns import Steps, earlier, steps
from lmmjax.residual import ResidualStructure

PAIRS = 1 << 20
"""Pairs of rows that are taken at a time."""


def covariance(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cov(ε) (k, k) of some rows at ψ (m + 1,)."""
    return covariances(design, psi, rows[None])[0]


def covariances(design: Design, psi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cov(ε) (g, k, k) of g sets of k rows (g, k) at ψ (m + 1,)."""
    own, root = design.residual, residual_root(design, psi)[rows]
    scale = root[:, :, None] * root[:, None, :]
    g, k = rows.shape
    if own is None:
        return scale * np.eye(k)
    left, right = (np.broadcast_to(a, (g, k, k)) for a in (rows[:, :, None], rows[:, None, :]))
    one, two = left.ravel(), right.ravel()
    value = of_pairs(design, psi, own, own, one, two, one == two).reshape(g, k, k)
    return np.where(own.codes[left] == own.codes[right], value, 0.0) * scale


def variances(design: Design, psi: np.ndarray) -> np.ndarray:
    """Var(ε) (n,) of every row at ψ (m + 1,)."""
    value = psi[-1] / (np.ones(design.n) if design.weights is None else design.weights)
    return value if design.residual is None else value * relative_variances(design, psi, design.residual)


def relative_variances(design: Design, psi: np.ndarray, own: ResidualDesign) -> np.ndarray:
    """s² (k,) of rows, those of the fit or new ones, relative to σ² and weights of 1."""
    each = np.arange(len(own.codes))
    return of_pairs(design, psi, own, own, each, each, True)


def of_pairs(
    design: Design,
    psi: np.ndarray,
    left: ResidualDesign,
    right: ResidualDesign,
    one: np.ndarray,
    two: np.ndarray,
    same: np.ndarray | bool,
    slopes: bool = False,
) -> np.ndarray:
    """s s′ c (k,) of the rows `one` (k,) of `left` with `two` of `right`, of one group, or its derivatives.

    Parameters
    ----------
    same : (k,) which pairs are a row with itself.
    slopes : the derivatives (k, m) in the parameters of the structure, as they are relative to σ².
    """
    r, made = design.structure.relative(psi)[design.structure.tail], []
    same = np.broadcast_to(np.asarray(same), one.shape)
    # new rows may lie between the integer occasions of the fit
    kind = np.result_type(left.place, right.place)
    program = _slopes if slopes else _products
    for start in range(0, max(len(one), 1), PAIRS):
        k = len(one[start : start + PAIRS])
        # their number rounded up: few programs serve all groups
        some = start + np.minimum(np.arange(1 << max(k - 1, 7).bit_length()), max(k - 1, 0))
        if not k:
            return np.zeros((0, len(r)) if slopes else 0)
        here, there = left.at(one[some]), right.at(two[some])
        places = here.place.astype(kind), there.place.astype(kind)
        pair = places[0], here.covariates, places[1], there.covariates, same[some]
        with jax.enable_x64(True):
            made.append(np.asarray(program(left.structure, r, pair))[:k])
    return np.concatenate(made)


Pair = tuple[Array, tuple[Array, ...], Array, tuple[Array, ...], Array]
"""Place and covariates of a row, those of another, and whether they are one; arrays of them."""


def _pair(structure: ResidualStructure, r: Array, pair: Pair) -> Array:
    left, left_covariates, right, right_covariates, same = pair
    value = structure.correlation(r, left, right, same, structure.group_level(left_covariates))
    one, two = structure.sd(r, left_covariates), structure.sd(r, right_covariates)
    return value if one is None or two is None else value * one * two


@partial(quick_jit, static_argnums=0)
def _products(structure: ResidualStructure, r: Array, pair: Pair) -> Array:
    return _pair(structure, r, pair)


@partial(quick_jit, static_argnums=0)
def _slopes(structure: ResidualStructure, r: Array, pair: Pair) -> Array:
    return jax.jacfwd(lambda r: _pair(structure, r, pair))(r)


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


@dataclasses.dataclass(frozen=True)
class GroupPairs:
    """Pairs of rows of one group, groups of equal size together.

    Attributes
    ----------
    rows : per size k (K, k), by place.
    at : per size (K, k, k) which of the distinct pairs.
    one, two, same : (U,) the rows of the distinct pairs, and whether they are one.
    """

    rows: list[np.ndarray]
    at: list[np.ndarray]
    one: np.ndarray
    two: np.ndarray
    same: np.ndarray


def group_pairs(own: ResidualDesign) -> GroupPairs:
    """All pairs of rows of one group; where few places occur, few of them are distinct."""
    order = _order(own)
    starts = np.append(0, np.flatnonzero(np.diff(own.codes[order])) + 1)
    sizes = np.diff(np.append(starts, len(order)))
    rows = [order[starts[sizes == k][:, None] + np.arange(k)] for k in np.unique(sizes)]
    places = own.place if own.place.ndim > 1 else own.place[:, None]
    _, first, kind = np.unique(
        np.column_stack([places, *own.covariates]), axis=0, return_index=True, return_inverse=True
    )
    kind, k = kind.ravel(), len(first)
    if k * (k + 1) <= sum(r.size * r.shape[1] for r in rows):
        at = [kind[r][:, :, None] * k + kind[r][:, None, :] for r in rows]
        for r, own_at in zip(rows, at, strict=True):
            each = np.arange(r.shape[1])
            own_at[:, each, each] = k * k + kind[r]
        one, two = np.repeat(first, k), np.tile(first, k)
        same = np.arange(k * (k + 1)) >= k * k
        return GroupPairs(rows, at, np.append(one, first), np.append(two, first), same)
    at, one, two, same, start = [], [], [], [], 0
    for r in rows:
        groups, k = r.shape
        at.append(start + np.arange(groups * k * k).reshape(groups, k, k))
        one.append(np.repeat(r, k, axis=1).ravel())
        two.append(np.tile(r, (1, k)).ravel())
        same.append(np.tile(np.eye(k, dtype=bool).ravel(), groups))
        start += groups * k * k
    return GroupPairs(rows, at, *(np.concatenate(a) for a in (one, two, same)))


def _factors(design: Design, psi: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (K, k), by place, and lower Cholesky factors (K, k, k) of Cov(ε) of groups of equal size."""
    own = design.residual
    assert own is not None
    pairs, root = group_pairs(own), residual_root(design, psi)
    table = of_pairs(design, psi, own, own, pairs.one, pairs.two, pairs.same)
    for rows, at in zip(pairs.rows, pairs.at, strict=True):
        yield rows, np.linalg.cholesky(table[at] * root[rows][:, :, None] * root[rows][:, None, :])


def residual_root(design: Design, psi: np.ndarray) -> np.ndarray:
    """σ/√w (n,) of every row."""
    return np.sqrt(psi[-1] / (np.ones(design.n) if design.weights is None else design.weights))


def decorrelating(design: Design, psi: np.ndarray) -> Any:
    """The sparse matrix (n, n) that takes residuals to uncorrelated ones of unit variance: `whitened`."""
    # imported here: scipy.sparse adds a warning filter, and few fits need it
    import scipy.sparse as sp

    own, n = design.residual, design.n
    if own is None:
        return sp.diags_array(1.0 / residual_root(design, psi)).tocsr()
    if own.structure.markov:
        order, first, alpha, beta = _recursion(design, psi)
        return bidiagonal(order, first, alpha, beta)
    entries, left, right = [], [], []
    for rows, factor in _factors(design, psi):
        i, j = np.tril_indices(rows.shape[1])
        entries.append(np.linalg.inv(factor)[:, i, j].ravel())
        left.append(rows[:, i].ravel())
        right.append(rows[:, j].ravel())
    where = np.concatenate(left), np.concatenate(right)
    return sp.coo_array((np.concatenate(entries), where), shape=(n, n)).tocsr()


def bidiagonal(order: np.ndarray, first: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> Any:
    """The sparse matrix (n, n) with rows αε_t − βε_{t−1}, at the rows `order` of t."""
    import scipy.sparse as sp

    here, later, n = np.arange(len(order)), np.flatnonzero(~first), len(order)
    values = np.concatenate([alpha, -beta[later]])
    at = np.concatenate([order, order[later]]), np.concatenate([order[here], order[later - 1]])
    return sp.coo_array((values, at), shape=(n, n)).tocsr()


def stepwise(design: Design, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, Steps, np.ndarray, np.ndarray]:
    """Rows (n,) by group and place, which are first, their steps, and √w/σ of each and of the one before."""
    own = design.residual
    assert own is not None
    order = _order(own)
    made = steps(own.codes[order], own.place[order], tuple(v[order] for v in own.covariates))
    root = 1.0 / residual_root(design, psi)[order]
    return order, made.first, made, root, root[earlier(made.first)]


def _recursion(design: Design, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by group and place, which are first, and α, β (n,) with αε_t − βε_{t−1} standard."""
    assert design.residual is not None
    order, first, made, root, before = stepwise(design, psi)
    with jax.enable_x64(True):
        r = design.structure.relative(psi)[design.structure.tail]
        alpha, beta, _ = (np.asarray(a) for a in _weights(design.residual.structure, r, made))
    return order, first, alpha * root, beta * before


def _order(own: ResidualDesign) -> np.ndarray:
    places = own.place.T if own.place.ndim > 1 else own.place[None]
    return np.lexsort((*places[::-1], own.codes))
