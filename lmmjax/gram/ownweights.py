"""Products of responses that each have weights of their own, missing values among them (weight zero).

With its weights each response has a design of its own, √w X and √w Z, so nothing is shared but the raw
columns. All arrays keep the responses on the last axis; a block of them stays in cache. X̃ is the
Gram–Schmidt basis of √w X, Q that of √w Z within every group.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce

import numpy as np
import scipy.sparse as sp

from lmmjax.basis import Basis, Origin, solve_upper
from lmmjax.design import Design
from lmmjax.gram.grouped import GroupedProducts, GroupedResponse
from lmmjax.gram.grouping import RANK_TOL
from lmmjax.gram.slots import layout

BLOCK = 128
"""Responses at a time."""

DEPENDENT = 1e-10
"""A column of √w X whose part orthogonal to the others is below this, relative, cannot be estimated."""


class OwnWeights:
    """A grouped design, ready for responses with weights."""

    def __init__(self, design: Design, basis: Basis):
        pairs = zip(design.terms, basis.outward, strict=True)
        z = tuple((term.z @ back).T for term, back in pairs)
        plan = layout(design, z)
        self.order = np.argsort(plan.codes, kind="stable")
        self.codes, self.groups, self.places = plan.codes[self.order], plan.n_groups, plan.places
        n = design.n
        self.by_group = sp.csr_array((np.ones(n), (self.codes, np.arange(n))), shape=(self.groups, n))
        self.z = plan.expand(z)[:, self.order]
        self.x = design.x.T[:, self.order]
        self.offset = None if design.offset is None else design.offset[self.order]
        self.basis, self.structure = basis, design.structure

    def __call__(self, y: np.ndarray, w: np.ndarray):
        """Products of y (n, T) with weights w (n, T) ≥ 0; y is finite where w > 0.

        Returns
        -------
        shared, response, origin, basis : records whose arrays all trail with T.
        n : (T,) observations.
        estimable : (T,) whether X keeps its rank, with residual degrees of freedom and two groups left.
        """
        pieces = []
        for first in range(0, y.shape[1], BLOCK):
            part = slice(first, first + BLOCK)
            pieces.append(self._block(y[:, part][self.order], w[:, part][self.order]))
        joined = [np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True)]
        lanes = y.shape[1]
        r, within_xx, c_x, logdet_r, within_xy, within_yy, c_y, beta, scale, x_factor, n, fine = joined
        shared = GroupedProducts(
            r, np.ones((self.groups, lanes)), within_xx, c_x, logdet_r, self.structure, False, self.places
        )
        response = GroupedResponse(within_xy, within_yy, c_y, np.zeros((0, lanes)))
        spread = [tuple(_repeat(b, lanes) for b in side) for side in (self.basis.inward, self.basis.outward)]
        return shared, response, Origin(beta, scale), Basis(x_factor, *spread), n, fine

    def _block(self, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
        observed = w > 0
        root = np.sqrt(w)
        n = observed.sum(axis=0).astype(float)
        logdet_r = -np.log(np.where(observed, w, 1.0)).sum(axis=0)
        x, x_factor, independent = self._fixed(root)
        shifted = np.where(observed, y, 0.0) if self.offset is None else y - self.offset[:, None]
        v = np.where(observed, root * shifted, 0.0)
        total = _dots(v, v)
        projection = np.stack([_dots(column, v) for column in x])
        e = v - _sum(column * b for column, b in zip(x, projection, strict=True))
        left = _dots(e, e)
        exact = left <= (64 * np.finfo(float).eps) ** 2 * total
        scale = np.where(exact, 1.0, np.sqrt(left / np.maximum(n, 1.0)))
        factor = np.where(exact, 0.0, 1.0 / scale)
        q_rows, r = self._random(root)
        c_x = np.stack([np.stack([self.by_group @ (q * column) for column in x]) for q in q_rows])
        c_y = np.stack([self.by_group @ (q * e) for q in q_rows])
        x_within = [
            column - _sum(q * c_x[a, k][self.codes] for a, q in enumerate(q_rows))
            for k, column in enumerate(x)
        ]
        e_within = e - _sum(q * c_y[a][self.codes] for a, q in enumerate(q_rows))
        within_xx = np.stack([np.stack([_dots(a, b) for b in x_within]) for a in x_within])
        within_xy = np.stack([_dots(a, e_within) for a in x_within])
        within_yy = _dots(e_within, e_within)
        occupied = ((self.by_group @ observed.astype(float)) > 0).sum(axis=0)
        fine = independent & (n > len(x)) & (occupied >= 2)
        return (
            r,
            within_xx,
            c_x,
            logdet_r,
            within_xy * factor,
            within_yy * factor**2,
            c_y * factor,
            solve_upper(x_factor, projection),
            scale,
            x_factor,
            n,
            fine,
        )

    def _fixed(self, root: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """X̃ as p rows (n, T), R (p, p, T), and whether all columns are independent (T,)."""
        p, lanes = len(self.x), root.shape[1]
        columns: list[np.ndarray] = []
        factor = np.zeros((p, p, lanes))
        independent = np.ones(lanes, bool)
        for j in range(p):
            v = root * self.x[j][:, None]
            size = _dots(v, v)
            for _ in range(2):
                for i, column in enumerate(columns):
                    c = _dots(column, v)
                    v = v - column * c
                    factor[i, j] += c
            rest = _dots(v, v)
            good = rest > DEPENDENT**2 * size
            independent &= good
            length = np.sqrt(np.where(good, rest, 1.0))
            factor[j, j] = length
            columns.append(v * np.where(good, 1.0 / length, 0.0))
        return columns, factor, independent

    def _random(self, root: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Q as q rows (n, T), and R (q, q, G, T) with Z_i = Q_iR_iᵀ, lower triangular."""
        q, lanes = len(self.z), root.shape[1]
        columns: list[np.ndarray] = []
        r = np.zeros((q, q, self.groups, lanes))
        for j in range(q):
            v = root * self.z[j][:, None]
            size = self.by_group @ (v * v)
            for _ in range(2):
                for i, column in enumerate(columns):
                    c = self.by_group @ (column * v)
                    v = v - column * c[self.codes]
                    r[j, i] += c
            rest = self.by_group @ (v * v)
            good = rest > RANK_TOL**2 * size
            length = np.sqrt(np.where(good, rest, 1.0))
            r[j, j] = np.where(good, length, 0.0)
            columns.append(v * np.where(good, 1.0 / length, 0.0)[self.codes])
        return columns, r


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nt,nt->t", a, b)


def _sum(items: Iterable[np.ndarray]) -> np.ndarray:
    return reduce(operator.add, items)


def _repeat(matrix: np.ndarray, lanes: int) -> np.ndarray:
    return np.repeat(np.asarray(matrix)[..., None], lanes, axis=-1)
