"""Linear models for many responses, in closed form: least squares of each, with weights of its own or not.

With X̃ = W₀^½XR⁻¹ orthonormal for the weights W₀ of the design, ỹ = W₀^½(y − o), and W those of a response,

    X̃ᵀWX̃ = LLᵀ,    γ̂ = (LLᵀ)⁻¹X̃ᵀWỹ,    β̂ = R⁻¹γ̂,    r² = ‖W^½(ỹ − X̃γ̂)‖²,    σ̂² = r²/(n − κp),

and L = I where W = I. Missing values are weights of zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmmjax.arrays.sparse_columns import Columns, SparseColumns
from lmmjax.core import Estimate, ProblemMaker
from lmmjax.design import solve_upper, standardise_response
from lmmjax.gram.fixed.prepare import FixedPrepared
from lmmjax.gram.grouped.sparse_pass import read_sparse
from lmmjax.optimize import Status

TILE = 1 << 22
"""Elements of responses, or of these times columns of X, that are worked on at a time."""

SHARE = 1e-4
"""Least share of the squares of a column of W^½X̃ that those before it may leave, for LLᵀ to be exact."""

SPARSE_SHARE = 1e-3
"""A sparse response whose residuals are below this share of its squares is taken row by row."""

DEPENDENT = 1e-10
"""Length of a column of W^½X, of its own length, that counts as none beside the columns before it."""

ROUNDING = (64 * np.finfo(float).eps) ** 2
"""Share of the squares of a response that rounding leaves where X explains all of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class LeastSquares:
    """The fits of T responses.

    Attributes
    ----------
    beta : (T, p); squares : (T,) r²; n : (T,) observations; logdet_r : (T,) −Σ log w.
    factor : upper triangular (T, p, p), or (1, p, p) if one for all, of XᵀWX = RᵀR.
    finite : (T,) whether no value is infinite or too large to be squared; perfect : (T,) whether X explains
        all; estimable : (T,) whether the rows determine β and leave something.
    """

    beta: np.ndarray
    squares: np.ndarray
    n: np.ndarray
    logdet_r: np.ndarray
    factor: np.ndarray
    finite: np.ndarray
    perfect: np.ndarray
    estimable: np.ndarray

    def products(self, rows: np.ndarray) -> np.ndarray:
        """L(XᵀWX)⁻¹Lᵀ of contrasts (k, p): (T, k, k), or (1, k, k)."""
        half = rows @ _inverse(self.factor)
        return half @ np.swapaxes(half, 1, 2)


def is_linear(maker: ProblemMaker) -> bool:
    """Whether the model is one of fixed effects and independent residuals."""
    return isinstance(maker.prepared, FixedPrepared)


def shared_least_squares(maker: ProblemMaker, y: Columns) -> LeastSquares:
    """Of complete responses y (n, T)."""
    p, total = maker.design.p, y.shape[1]
    beta, squares = np.empty((total, p)), np.empty(total)
    finite, perfect = np.ones(total, bool), np.zeros(total, bool)

    def rowwise(where: np.ndarray) -> None:
        for at in _tiles(len(where), len(y)):
            own = where[at]
            some = np.asarray(y[:, own], dtype=float)
            residual, origin, factor = standardise_response(maker.rows, maker.basis, some)
            left = maker.rows.x @ residual
            beta[own] = (origin.beta + solve_upper(maker.basis.x_factor, left)).T
            squares[own] = np.einsum("nt,nt->t", residual, residual)
            finite[own], perfect[own] = np.isfinite(squares[own] + beta[own].sum(axis=1)), factor == 0.0

    with np.errstate(all="ignore"):
        if isinstance(y, SparseColumns):
            projection, squares[:], exact = _sparse(maker, y)
            beta[:] = solve_upper(maker.basis.x_factor, projection).T
            finite[:] = np.isfinite(squares)
            rowwise(np.flatnonzero(~exact))
        else:
            rowwise(np.arange(total))
    design, every = maker.design, np.ones(total)
    return LeastSquares(
        beta,
        squares,
        every * design.observations,
        every * float(maker.rows.logdet_r),
        np.asarray(maker.basis.x_factor)[None],
        finite,
        perfect,
        np.ones(total, bool),
    )


def _sparse(maker: ProblemMaker, y: SparseColumns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X̃ᵀỹ (p, T), r² (T,) as a difference, and where that is exact enough (T,)."""
    import scipy.sparse as sp

    rows, nothing = maker.rows, sp.csr_array((0, y.shape[0]))
    projection, _, total = read_sparse(y, rows.x, nothing, rows.offset, rows.root_weight)
    left = total - np.einsum("pt,pt->t", projection, projection)
    return projection, left, ~(left <= SPARSE_SHARE * total)


def own_least_squares(maker: ProblemMaker, y: np.ndarray, weights: np.ndarray | None) -> LeastSquares:
    """Of responses y (n, T) with missing values, and weights (n, T) or None."""
    with np.errstate(all="ignore"):
        parts = [
            _own(maker, y[:, part], None if weights is None else weights[:, part])
            for part in _tiles(y.shape[1], len(y) * max(maker.design.p, 1))
        ]
    names = [field.name for field in dataclasses.fields(LeastSquares)]
    return LeastSquares(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _own(maker: ProblemMaker, y: np.ndarray, weights: np.ndarray | None) -> LeastSquares:
    rows, x = maker.rows, maker.rows.x
    p, (n, lanes) = len(x), y.shape
    w = np.where(np.isnan(y), 0.0, 1.0 if weights is None else weights)
    finite = np.isfinite(w).all(axis=0) & (w >= 0).all(axis=0) & ~np.isinf(y).any(axis=0)
    w = np.where(finite, w, 1.0)
    observed = w > 0
    v = np.where(observed & finite, y if rows.offset is None else y - rows.offset[:, None], 0.0)
    root = 1.0 if rows.root_weight is None else rows.root_weight[:, None]
    v = v * root
    count = observed.sum(axis=0)
    logdet_r = -np.sum(np.log(np.where(observed, w * root * root, 1.0)), axis=0)
    xw = w.T[:, None, :] * x
    gram = (xw.reshape(lanes * p, n) @ x.T).reshape(lanes, p, p)
    lower, fine = _cholesky(gram)
    gamma, e = np.zeros((lanes, p)), v
    for _ in range(2):
        step = np.linalg.solve(lower, (x @ (w * e)).T[:, :, None])
        step = np.linalg.solve(np.swapaxes(lower, 1, 2), step)[:, :, 0]
        gamma, e = gamma + step, e - x.T @ step.T
    beta = solve_upper(maker.basis.x_factor, gamma.T).T
    factor, independent = np.swapaxes(lower, 1, 2) @ np.asarray(maker.basis.x_factor), np.ones(lanes, bool)
    odd = np.flatnonzero(~fine)
    if len(odd):
        beta[odd], factor[odd], e[:, odd], independent[odd] = _by_rows(
            np.asarray(maker.design.x), v[:, odd], np.sqrt(w[:, odd]), root
        )
    squares, fitted = (np.einsum("nt,nt->t", w, a * a) for a in (e, v - e))
    return LeastSquares(
        beta,
        squares,
        count.astype(float),
        logdet_r,
        factor,
        finite & np.isfinite(squares + fitted),
        squares <= ROUNDING * (squares + fitted),
        independent & (count > p),
    )


def _by_rows(x: np.ndarray, v: np.ndarray, root: np.ndarray, design: Any) -> tuple[np.ndarray, ...]:
    """β̂ (t, p), R (t, p, p), residuals (n, t) and whether R has full rank (t,), by rows of X (n, p) itself.

    Weights that are far apart make rounding in X̃ as large as the rows of small weight: X has exact zeros.

    Parameters
    ----------
    v : (n, t) responses times the roots `design` of the weights of the design; root : (n, t) of their own.
    """
    rows = np.broadcast_to(root * design, v.shape)
    q, upper = np.linalg.qr(rows.T[:, :, None] * x)
    diagonal, length = np.abs(np.diagonal(upper, axis1=1, axis2=2)), np.linalg.norm(upper, axis=1)
    independent = np.all(diagonal > DEPENDENT * length, axis=1)
    upper[~independent] = np.eye(x.shape[1])
    beta, e = np.zeros((v.shape[1], x.shape[1])), v
    for _ in range(2):
        inner = np.einsum("tnp,nt->tp", q, root * e)
        step = np.linalg.solve(upper, inner[:, :, None])[:, :, 0]
        beta, e = beta + step, e - design * (x @ step.T)
    return beta, upper, e, independent


def _cholesky(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L (T, p, p) of LLᵀ, and where it has lost no digits (T,); elsewhere it is I."""
    try:
        lower = np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        lower = np.zeros_like(gram)
    pivot, own = (np.diagonal(a, axis1=1, axis2=2) for a in (lower, gram))
    fine = np.all(pivot * pivot > SHARE * own, axis=1)
    return np.where(fine[:, None, None], lower, np.eye(gram.shape[-1])), fine


def estimates(found: LeastSquares, maker: ProblemMaker, reml: bool) -> Estimate:
    """The records of the fits, arrays that lead with T; those of perfect ones say nothing."""
    known, total = maker.design.known, len(found.beta)
    diagonal = np.abs(np.diagonal(found.factor, axis1=1, axis2=2))
    nu = found.n - reml * maker.design.p
    with np.errstate(all="ignore"):
        sigma2 = found.squares / nu if known is None else np.full(total, float(known))
        spread = 2.0 / nu if known is None else np.zeros(total)
        deviance = found.logdet_r + nu * np.log(2.0 * np.pi * sigma2) + found.squares / sigma2
        deviance = deviance + 2.0 * reml * np.sum(np.log(diagonal), axis=1)
        cov_psi = sigma2**2 * spread if known is None else np.full(total, np.nan)
        cov_beta = sigma2[:, None, None] * found.products(np.eye(maker.design.p))
    return Estimate(
        theta=np.zeros((total, 0)),
        psi=sigma2[:, None],
        beta=found.beta,
        sigma2=sigma2,
        cov_beta=cov_beta,
        cov_psi=cov_psi[:, None, None],
        cov_relative=spread[:, None, None],
        deviance=deviance,
        status=np.full(total, Status.CONVERGED, np.int32),
        grad_norm=np.zeros(total),
        decrement=np.zeros(total),
        n_iter=np.ones(total, np.int32),
        singular=np.zeros(total, bool),
        moves=np.zeros((total, 1, 0)),
    )


def _inverse(upper: np.ndarray) -> np.ndarray:
    return np.linalg.inv(upper) if upper.shape[-1] else upper


def _tiles(total: int, size: int) -> Iterator[slice]:
    """Parts of `total` responses of that many elements."""
    width = max(1, TILE // max(size, 1))
    for first in range(0, total, width):
        yield slice(first, min(first + width, total))
