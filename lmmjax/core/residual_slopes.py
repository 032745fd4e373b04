"""Derivatives of the covariance of the residuals in the parameters of its structure, applied to vectors.

With W the matrix that decorrelates, WRWᵀ = I, the derivative in parameter c is seen by whitened vectors as
K_c = W(∂_cR)Wᵀ. Rows of a Markov family depend on the row before them only, W is bidiagonal, and

    K_c = −(∂_cW)W⁻¹ − [(∂_cW)W⁻¹]ᵀ.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.linalg import solve_banded

from lmmjax.arrays import Array, quick_jit
from lmmjax.core.residuals import (
    bidiagonal,
    group_pairs,
    of_pairs,
    residual_root,
    stepwise,
)
from lmmjax.design import Design
from lmmjax.gram.whitened.patterns import Steps
from lmmjax.residual import ResidualStructure


class ResidualSlopes(abc.ABC):
    """∂R/∂ψ_c of the parameters c of a residual structure, at one ψ."""

    @abc.abstractmethod
    def moved(self, zeta: np.ndarray) -> Iterator[np.ndarray]:
        """W(∂_cR)Wᵀζ (n, k) for ζ (n, k), one parameter after the other."""


def residual_slopes(design: Design, psi: np.ndarray, root: Any) -> ResidualSlopes | None:
    """For a design with its W (n, n), sparse, at ψ (m + 1,); None where residuals have no parameters."""
    own = design.residual
    if own is None or not own.structure.n_params:
        return None
    units = psi[-1] ** design.structure.powers[design.structure.tail]
    return (_Markov if own.structure.markov else _Groups)(design, psi, root, units)


class _Groups(ResidualSlopes):
    """Group by group: ∂R is as sparse as R."""

    def __init__(self, design: Design, psi: np.ndarray, root: Any, units: np.ndarray):
        own = design.residual
        assert own is not None
        self.root, self.n, pairs = root, design.n, group_pairs(own)
        self.table = of_pairs(design, psi, own, own, pairs.one, pairs.two, pairs.same, True) / units
        sizes = [(rows, at, rows.shape[1]) for rows, at in zip(pairs.rows, pairs.at, strict=True)]
        self.at = np.concatenate([at.ravel() for _, at, _ in sizes])
        self.left = np.concatenate([np.repeat(rows, k, axis=1).ravel() for rows, _, k in sizes])
        self.right = np.concatenate([np.tile(rows, (1, k)).ravel() for rows, _, k in sizes])
        own_root = residual_root(design, psi)
        self.scale = own_root[self.left] * own_root[self.right]

    def moved(self, zeta: np.ndarray) -> Iterator[np.ndarray]:
        import scipy.sparse as sp

        inner = self.root.T @ zeta
        for column in self.table.T:
            entries = (column[self.at] * self.scale, (self.left, self.right))
            yield self.root @ (sp.coo_array(entries, shape=(self.n, self.n)).tocsr() @ inner)


def _solved(bands: tuple[int, int], banded: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of a bidiagonal system, `bands` below and above its diagonal."""
    if banded.shape[1] == 1:
        # scipy 1.13 divides by the wrong band
        return right / banded[bands[1]]
    return solve_banded(bands, banded, right)


class _Markov(ResidualSlopes):
    """Row after row."""

    def __init__(self, design: Design, psi: np.ndarray, root: Any, units: np.ndarray):
        own = design.residual
        assert own is not None
        self.order, self.first, made, scale, before = stepwise(design, psi)
        r = design.structure.relative(psi)[design.structure.tail]
        with jax.enable_x64(True):
            alpha, beta = (np.asarray(a) for a in _weight_slopes(own.structure, r, made))
        self.alpha, self.beta = (alpha * scale[:, None] / units).T, (beta * before[:, None] / units).T
        ordered = root[self.order][:, self.order].tocsr()
        self.banded = np.zeros((2, design.n))
        self.banded[0] = ordered.diagonal()
        self.banded[1, :-1] = ordered.diagonal(-1)

    def moved(self, zeta: np.ndarray) -> Iterator[np.ndarray]:
        inner = np.empty_like(zeta)
        inner[self.order] = _solved((1, 0), self.banded, zeta[self.order])
        turned = np.zeros_like(self.banded)
        turned[1], turned[0, 1:] = self.banded[0], self.banded[1, :-1]
        for alpha, beta in zip(self.alpha, self.beta, strict=True):
            slope = bidiagonal(self.order, self.first, alpha, beta)
            out = -(slope @ inner)
            out[self.order] -= _solved((0, 1), turned, (slope.T @ zeta)[self.order])
            yield out


@partial(quick_jit, static_argnums=0)
def _weight_slopes(structure: ResidualStructure, r: Array, rows: Steps) -> tuple[Array, Array]:
    return jax.jacfwd(lambda r: rows.weights(structure, r)[:2])(r)
