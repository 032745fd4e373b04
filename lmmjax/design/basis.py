"""Internal coordinates: orthonormal X, unit-scale Z, y less its least-squares fit, square-root weights.

Estimates must not depend on the units of a column. Everything below works on

    X = X̃ R,   Z = Z̃ b (b lower triangular),   y = X β₀ + s ỹ,

all rows multiplied by √w, and maps back: β = β₀ + s R⁻¹β̃, σ = s σ̃, Λ = b⁻¹Λ̃.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from lmmjax.arrays import UNROLL, Array, namespace, record
from lmmjax.design.design import Design
from lmmjax.residual import factors

DEPENDENT, NOTHING = 1e-10, 1e-12
"""Share of the length of a column of Z that those after it must leave; of what a column of Z̃ is made of."""


@record
class Basis:
    """Maps between the user's coordinates and the internal ones.

    Attributes
    ----------
    x_factor : (p, p) upper triangular R with X = X̃ R.
    inward : per term (q, q) lower triangular b with Λ̃ = bΛ; then, if rows have units, the factors (k,) of
        residual parameters.
    outward : per term b⁻¹; the reciprocals.
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
    root_weight : (n,) √w, divided by the units of rows, or None.
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
    own = design.residual
    if own is not None and own.units is not None:
        root = (1.0 if root is None else root) / xp.asarray(own.units[own.classes])
    logdet_r = xp.zeros((), x.dtype) if root is None else -2.0 * xp.sum(xp.log(root))
    if design.condensed is not None:
        logdet_r = logdet_r + design.condensed.logdet
    weighted = x if root is None else x * root[:, None]
    x_rows, x_factor = xp.linalg.qr(weighted)
    z_rows, inward, outward = [], [], []
    for term in design.terms:
        z = xp.asarray(term.z) if root is None else xp.asarray(term.z) * root[:, None]
        lengths = z if term.kernel is None else z * term.lengths[:, None]
        b, b_inverse = _unit_basis(xp, lengths, term.family.basis)
        z_rows.append(inner_columns(z, b_inverse).T)
        inward.append(b)
        outward.append(b_inverse)
    if own is not None and own.units is not None:
        factor = xp.asarray(factors(own.structure, own.units))
        inward.append(1.0 / factor)
        outward.append(factor)
    rows = Rows(x_rows.T, tuple(z_rows), root, design.offset, logdet_r)
    return rows, Basis(x_factor, tuple(inward), tuple(outward))


def inner_columns(z: Array, outward: Array) -> Array:
    """Z̃ = Z b⁻¹ (n, q), zero in columns that depend on others, of which rounding is left.

    As rounding they would have a say in entries of D that the data leave open.
    """
    inner = z @ outward
    if z.shape[1] == 1:
        return inner
    xp = namespace(z, outward)
    made = xp.abs(z) @ xp.abs(outward)
    left, whole = (xp.einsum("na,na->a", a, a) for a in (inner, made))
    return xp.where(left > NOTHING**2 * whole, inner, 0.0)


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
    """R⁻¹v for R (p, p, ...) and v (p, ..., ...), by back substitution, in a loop where p is large."""
    p = r.shape[0]
    xp = namespace(r, v)
    if p > UNROLL:
        return _solve_upper_np(r, v) if xp is np else _solve_upper_loop(jnp.asarray(r), jnp.asarray(v))
    solution: list = [None] * p
    for j in reversed(range(p)):
        rest = v[j]
        for k in range(j + 1, p):
            rest = rest - r[j, k] * solution[k]
        solution[j] = rest / r[j, j]
    return xp.stack(solution) if p else v


def _solve_upper_np(r: np.ndarray, v: np.ndarray) -> np.ndarray:
    dtype = np.result_type(r, v)
    if r.ndim == 2:
        flat = solve_triangular(r, v.reshape(len(v), -1), check_finite=False)
        return flat.reshape(v.shape).astype(dtype, copy=False)
    # a matrix for every response: axes of v that R lacks lie between
    r = r.reshape(*r.shape[:2], *(1,) * (v.ndim - r.ndim + 1), *r.shape[2:])
    out = np.empty(np.broadcast_shapes(r.shape[1:], v.shape), dtype)
    for j in reversed(range(len(r))):
        out[j] = (v[j] - np.sum(r[j, j + 1 :] * out[j + 1 :], axis=0)) / r[j, j]
    return out


def _solve_upper_loop(r: Array, v: Array) -> Array:
    """As a loop, since LAPACK's batched calls are slow inside mapped ones; one R."""
    p = r.shape[0]

    def body(k: Array, solution: Array) -> Array:
        j = p - 1 - k
        rest = v[j] - jnp.tensordot(r[j], solution, axes=1)
        return solution.at[j].set(rest / r[j, j])

    return jax.lax.fori_loop(0, p, body, jnp.zeros_like(v))


def _unit_basis(xp, z: Array, kind: str) -> tuple[Array, Array]:
    """b lower triangular and b⁻¹ with z b⁻¹ of unit mean square, orthogonal columns where `kind` allows.

    By Gram–Schmidt from the last column on, done twice: products zᵀz would lose a covariate that is far from
    zero beside its spread. A column that depends on those after it keeps its length, and `inner_columns`
    drops it.
    """
    n, q = z.shape
    square = xp.einsum("na,na->a", z, z) / n
    safe = xp.where(square > 0, square, xp.ones_like(square))
    if kind == "scalar":
        root = xp.sqrt(xp.mean(safe)) * xp.ones_like(safe)
        return xp.diag(root), xp.diag(1 / root)
    root = xp.sqrt(safe)
    if kind == "diagonal" or q == 1:
        return xp.diag(root), xp.diag(1 / root)
    scaled, rows, columns = z / root[None, :], [], []
    eye = np.eye(q, dtype=z.dtype)
    for i in reversed(range(q)):
        v, row = scaled[:, i], eye[i] * 0
        for _ in range(2):
            for j, u in columns:
                c = u @ v / n
                v, row = v - c * u, row + c * eye[j]
        rest = v @ v / n
        good = rest > DEPENDENT**2
        length = xp.sqrt(xp.where(good, rest, xp.ones_like(rest)))
        columns.append((i, v / length))
        rows.append((row + length * eye[i]) * root[i])
    b = xp.stack(rows[::-1], axis=1)
    return b, xp.linalg.inv(b)
