"""Internal coordinates: orthonormal X, unit-scale Z, y less its least-squares fit, square-root weights.

Estimates must not depend on the units of a column. Everything below works on

    X = X̃ R,   Z = Z̃ b (b lower triangular),   y = X β₀ + s ỹ,

all rows multiplied by √w, and maps back: β = β₀ + s R⁻¹β̃, σ = s σ̃, Λ = b⁻¹Λ̃.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from lmmjax.arrays import Array, namespace, record
from lmmjax.design.design import Design


@record
class Basis:
    """Maps between the user's coordinates and the internal ones.

    Attributes
    ----------
    x_factor : (p, p) upper triangular R with X = X̃ R.
    inward : per term (q, q) lower triangular b with Λ̃ = bΛ.
    outward : per term b⁻¹.
    """

    x_factor: Array
    inward: tuple[Array, ...]
    outward: tuple[Array, ...]


@record
class Rows:
    """Standardised rows, axes (column, row), in the order that the backend wants.

    Attributes
    ----------
    x : (p, n) orthonormal rows of X̃ᵀ.
    z : per term (q, n).
    root_weight : (n,) √w, or None.
    offset : (n,) or None.
    logdet_r : log|R| = −Σ log w.
    """

    x: Array
    z: tuple[Array, ...]
    root_weight: Array | None
    offset: Array | None
    logdet_r: Array

    def take(self, order: np.ndarray | None) -> Rows:
        """The rows in another order."""
        if order is None:
            return self
        pick = partial(_take_columns, order=order)
        return jax.tree.map(lambda a: pick(a) if a.ndim else a, self)


def _take_columns(a: Array, order: np.ndarray) -> Array:
    return namespace(a).take(a, order, axis=-1)


@record
class Origin:
    """What was taken off a response: y = X β₀ + scale · ỹ.

    Attributes
    ----------
    beta : (p, ...) ordinary (weighted) least squares.
    scale : (...) root mean square of its residuals, 1 where they vanish.
    """

    beta: Array
    scale: Array


def standardise(design: Design) -> tuple[Rows, Basis]:
    """Rows in internal coordinates and the maps back; traceable in X, Z and the weights."""
    xp = namespace(design.x, design.weights, *(term.z for term in design.terms))
    x = xp.asarray(design.x)
    root = None if design.weights is None else xp.sqrt(xp.asarray(design.weights))
    logdet_r = xp.zeros((), x.dtype) if root is None else -2.0 * xp.sum(xp.log(root))
    weighted = x if root is None else x * root[:, None]
    x_rows, x_factor = xp.linalg.qr(weighted)
    z_rows, inward, outward = [], [], []
    for term in design.terms:
        z = xp.asarray(term.z) if root is None else xp.asarray(term.z) * root[:, None]
        b, b_inverse = _unit_basis(xp, z, term.family.basis)
        z_rows.append((z @ b_inverse).T)
        inward.append(b)
        outward.append(b_inverse)
    rows = Rows(x_rows.T, tuple(z_rows), root, design.offset, logdet_r)
    return rows, Basis(x_factor, tuple(inward), tuple(outward))


def standardise_response(rows: Rows, basis: Basis, y: Array) -> tuple[Array, Origin, Array]:
    """Residuals (n, ...) of responses y (n, ...) on X, their origin, and the factor (...) that scales them.

    The factor is 1/s, and 0 where X fits y perfectly.
    """
    xp = namespace(y, rows.x)
    lanes = (slice(None),) + (None,) * (y.ndim - 1)
    if rows.offset is not None:
        y = y - rows.offset[lanes]
    if rows.root_weight is not None:
        y = y * rows.root_weight[lanes]
    projection = xp.tensordot(rows.x, y, axes=1)
    residual = y - xp.tensordot(rows.x, projection, axes=((0,), (0,)))
    left, taken = _sum_squares(xp, residual), _sum_squares(xp, projection)
    exact = left <= (64 * np.finfo(residual.dtype).eps) ** 2 * (left + taken)
    scale = xp.where(exact, 1.0, xp.sqrt(left / y.shape[0])).astype(residual.dtype)
    beta = solve_upper(basis.x_factor, projection)
    return residual, Origin(beta, scale), xp.where(exact, 0.0, 1.0 / scale).astype(residual.dtype)


def _sum_squares(xp, a: Array) -> Array:
    return xp.einsum("i...,i...->...", a, a)


def solve_upper(r: Array, v: Array) -> Array:
    """R⁻¹v for v (p, ...), by back substitution."""
    p = r.shape[0]
    xp = namespace(r, v)
    solution: list = [None] * p
    for j in reversed(range(p)):
        rest = v[j]
        for k in range(j + 1, p):
            rest = rest - r[j, k] * solution[k]
        solution[j] = rest / r[j, j]
    return xp.stack(solution) if p else v


def _unit_basis(xp, z: Array, kind: str) -> tuple[Array, Array]:
    """b lower triangular and b⁻¹ with z b⁻¹ of unit mean square, orthogonal columns where `kind` allows.

    From the reversed Cholesky factor of the mean product zᵀz/n = bᵀb.
    """
    n, q = z.shape
    mean_product = z.T @ z / n
    diagonal = xp.diagonal(mean_product)
    safe = xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal))
    if kind == "scalar":
        root = xp.sqrt(xp.mean(safe)) * xp.ones_like(diagonal)
        return xp.diag(root), xp.diag(1 / root)
    root = xp.sqrt(safe)
    if kind == "diagonal" or q == 1:
        return xp.diag(root), xp.diag(1 / root)
    correlation = mean_product / (root[:, None] * root[None, :])
    # reversed Cholesky: C = bᵀb with b lower ⇔ flipped C = LLᵀ; the ridge keeps a dependent column usable
    ridge = 1e-8 * xp.eye(q, dtype=z.dtype)
    flipped = xp.linalg.cholesky((correlation + ridge)[::-1, ::-1])
    b = flipped[::-1, ::-1].T * root[None, :]
    return b, xp.linalg.inv(b)
