"""Residuals of many draws of the parameters, each with its own covariance matrix: drawn, or their densities.

Given all other residuals of its group, residual i is normal with, for P = Cov(ε)⁻¹ and g = Pε,

    mean ε_i − g_i/P_ii,     variance 1/P_ii.

Source: Bürkner, Gabry & Vehtari (2021), doi:10.1007/s00180-020-01045-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.core.residuals import Pair, _order, _pair, group_pairs
from lmmjax.design import ResidualDesign, Structure
from lmmjax.gram.whitened.patterns import Steps, steps
from lmmjax.residual import ResidualStructure

AT_ONCE = 1 << 22
"""Numbers in the matrices that are factored at a time."""


def coloured_each(
    structure: Structure, own: ResidualDesign | None, psi: np.ndarray, root: np.ndarray, white: np.ndarray
) -> np.ndarray:
    """Residuals (N, n) with the covariances of ψ (N, m + 1), from independent standard ones (N, n).

    Parameters
    ----------
    own : places of the rows; None for independent residuals of equal variance. root : (n,) √w.
    """
    sd = np.sqrt(psi[:, -1:]) / root
    if own is None:
        return sd * white
    out = np.empty_like(white)
    if own.structure.markov:
        order, first, alpha, beta = _each_step(structure, own, psi)
        for at, before in _by_position(first):
            past = beta[:, at] * out[:, order[at - 1]] if before else 0.0
            out[:, order[at]] = (white[:, order[at]] + past) / alpha[:, at]
        return sd * out
    for draws, rows, matrices in _each_matrix(structure, own, psi):
        factor = np.linalg.cholesky(matrices)
        out[draws[:, None, None], rows] = white[draws[:, None, None], rows] @ np.swapaxes(factor, 1, 2)
    return sd * out


def row_log_densities(
    structure: Structure, own: ResidualDesign | None, psi: np.ndarray, root: np.ndarray, residuals: np.ndarray
) -> np.ndarray:
    """log p(ε_i | the others of its group) (N, n) of residuals (N, n) at ψ (N, m + 1); arguments as above."""
    sd = np.sqrt(psi[:, -1:]) / root
    z, pull, precision = residuals / sd, np.empty_like(residuals), np.empty_like(residuals)
    if own is None:
        pull, precision = z, np.ones_like(z)
    elif own.structure.markov:
        order, first, alpha, beta = _each_step(structure, own, psi)
        moved = z[:, order]
        # rows of W: αz_t − βz_{t−1}, and P = WᵀW
        before = np.where(first, 0.0, np.roll(moved, 1, axis=1))
        innovation = alpha * moved - beta * before
        last = np.append(first[1:], True)
        after = np.where(last, 0.0, np.roll(beta, -1, axis=1))
        pull[:, order] = alpha * innovation - after * np.roll(innovation, -1, axis=1)
        precision[:, order] = alpha**2 + after**2
    else:
        for draws, rows, matrices in _each_matrix(structure, own, psi):
            inverse, at = np.linalg.inv(matrices), draws[:, None, None]
            pull[at, rows] = z[at, rows] @ inverse
            precision[at, rows] = np.diagonal(inverse, axis1=1, axis2=2)[:, None]
    return -0.5 * (np.log(2.0 * np.pi) + 2.0 * np.log(sd) - np.log(precision) + pull**2 / precision)


def _each_matrix(
    structure: Structure, own: ResidualDesign, psi: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields draws (D,), rows (g, k) of groups alike and their matrices (D, k, k), relative to σ²/w."""
    pairs, r = group_pairs(own), structure.relative(psi)[:, structure.tail]
    one, two = own.at(pairs.one), own.at(pairs.two)
    pair = one.place, one.covariates, two.place, two.covariates, pairs.same
    largest = max(len(pairs.one), max(at.shape[1] ** 2 for at in pairs.at))
    size = max(1, min(len(psi), AT_ONCE // largest))
    for begin in range(0, len(psi), size):
        # the last are filled up, so that all have one shape
        draws = np.arange(begin, min(begin + size, len(psi)))
        filled = np.minimum(np.arange(begin, begin + size), len(psi) - 1)
        with jax.enable_x64(True):
            table = np.asarray(_products(own.structure, r[filled], pair))[: len(draws)]
        for rows, at in zip(pairs.rows, pairs.at, strict=True):
            kinds, which = np.unique(at.reshape(len(at), -1), axis=0, return_inverse=True)
            for kind, cells in enumerate(kinds):
                k = at.shape[1]
                yield draws, rows[which.ravel() == kind], table[:, cells].reshape(-1, k, k)


def _each_step(
    structure: Structure, own: ResidualDesign, psi: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows (n,) by group and place, which are first, and α, β (N, n), relative to σ²/w."""
    order, r = _order(own), structure.relative(psi)[:, structure.tail]
    made = steps(own.codes[order], own.place[order], tuple(v[order] for v in own.covariates))
    with jax.enable_x64(True):
        alpha, beta = (np.asarray(a) for a in _weights(own.structure, r, made))
    return order, np.asarray(made.first), alpha, beta


def _by_position(first: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Yields the k-th rows of all groups, and whether there are rows before them."""
    position = np.arange(len(first)) - np.flatnonzero(first)[np.cumsum(first) - 1]
    for k in range(int(position.max(initial=-1)) + 1):
        yield np.flatnonzero(position == k), k > 0


@partial(quick_jit, static_argnums=0)
def _products(structure: ResidualStructure, r: Array, pair: Pair) -> Array:
    """s s′ c (N, k) of pairs of rows at parameters r (N, m)."""
    return jax.vmap(lambda own: _pair(structure, own, pair))(r)


@partial(quick_jit, static_argnums=0)
def _weights(structure: ResidualStructure, r: Array, rows: Steps) -> tuple[Array, Array]:
    """α, β (N, n) of rows at parameters r (N, m)."""
    return jax.vmap(lambda own: rows.weights(structure, own)[:2])(r)
