"""Conditional modes of b, their variances, and simulation.

    b̂ = D Zᵀ H⁻¹(y − Xβ̂),          Var(b | y) = σ²(D − D ZᵀH⁻¹Z D),
    Var(b̂ − b) = Var(b | y) + (D ZᵀH⁻¹X) Φ (D ZᵀH⁻¹X)ᵀ.

Source: Robinson (1991), doi:10.1214/ss/1177011926.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, psd_cholesky, record
from lmmjax.arrays.other_arguments import answered
from lmmjax.core.estimate import Estimate
from lmmjax.core.problem import Problem, internal_parameters
from lmmjax.gram import Projection


@record
class Modes:
    """Conditional modes of one term.

    Attributes
    ----------
    b : (G, q).
    cond_var : (G, q, q) variance given y, σ² and D and β known.
    mspe : (G, q, q) prediction error variance, with the uncertainty of β̂.
    """

    b: Array
    cond_var: Array
    mspe: Array


@answered
def conditional_modes(problem: Problem, fit: Estimate) -> tuple[Modes, ...]:
    """Conditional modes and their variances for every term, at an estimate: pure.

    The leading axis of a `Modes` has a row for every group and, in some backends, rows of zero after them.
    The problem must hold the products of every group, as those of `problem_from_arrays` on traced arrays do.

    Parameters
    ----------
    problem : with the groups apart, `Model.expanded` or `problem_from_arrays`; fit : its estimate, ψ, β̂ and
        σ̂² as they are.

    Raises
    ------
    ValueError : the problem does not hold the products of every group.
    """
    d = internal_parameters(problem, fit.psi)
    relative = problem.structure.matrices(d)
    return modes_at(problem, problem.shared.project(d, problem.response), relative, fit)


def modes_at(
    problem: Problem, projections: tuple[Projection, ...], relative: tuple[Array, ...], fit: Estimate
) -> tuple[Modes, ...]:
    """Modes in the user's coordinates, from projections at D in internal ones."""
    basis, scale = problem.basis, problem.origin.scale
    beta = basis.x_factor @ (fit.beta - problem.origin.beta) / scale
    cov_beta = basis.x_factor @ fit.cov_beta @ basis.x_factor.T / scale**2
    return inner_modes(problem, projections, relative, beta, fit.sigma2 / scale**2, cov_beta)


def inner_modes(
    problem: Problem,
    projections: tuple[Projection, ...],
    relative: tuple[Array, ...],
    beta: Array,
    sigma2: Array,
    cov_beta: Array,
) -> tuple[Modes, ...]:
    """Modes in the user's coordinates, from β (p,), σ² and Φ (p, p) in internal ones too."""
    scale, out = problem.origin.scale, []
    for projection, matrix, back in zip(projections, relative, problem.basis.outward, strict=False):
        modes = _term_modes(projection, matrix, beta, sigma2, cov_beta)
        cond_var, mspe = (scale**2 * (back @ a @ back.T) for a in (modes.cond_var, modes.mspe))
        out.append(Modes(scale * (modes.b @ back.T), cond_var, mspe))
    return tuple(out)


def _term_modes(
    projection: Projection, covariance: Array, beta: Array, sigma2: Array, cov_beta: Array
) -> Modes:
    """Modes of a term with relative covariance D (q, q), at β (p,), σ² and Φ (p, p)."""
    d = covariance
    b = _means(projection, d, beta)
    # axes (q, …, G)
    dt = (d[:, :, None, None] * projection.tx[None]).sum(axis=1)
    spread = _sandwich(d, projection.u)
    prior = d[:, :, None] if projection.own is None else d[:, :, None] * projection.own[None, None]
    cond_var = sigma2 * (prior - spread)
    phi = (dt[:, :, None] * cov_beta[None, :, :, None]).sum(axis=1)
    extra = (phi[:, None] * dt[None]).sum(axis=2)
    return Modes(b.T, cond_var.transpose(2, 0, 1), (cond_var + extra).transpose(2, 0, 1))


def conditional_means(problem: Problem, psi: Array, beta: Array) -> tuple[Array, ...]:
    """The modes b̂ (G, q) of every term alone, in the user's coordinates: pure, for `vmap` over responses.

    Parameters
    ----------
    problem : one response, with the products of every group (see `Projection`).
    psi : (m + 1,) natural covariance parameters; the last is σ².
    beta : (p,) fixed effects.
    """
    basis, scale = problem.basis, problem.origin.scale
    d = internal_parameters(problem, psi)
    inner, projections = problem.structure.matrices(d), problem.shared.project(d, problem.response)
    moved = basis.x_factor @ (beta - problem.origin.beta) / scale
    return tuple(
        scale * (_means(projection, matrix, moved).T @ back.T)
        for projection, matrix, back in zip(projections, inner, basis.outward, strict=False)
    )


def _means(projection: Projection, d: Array, beta: Array) -> Array:
    """D ZᵀH⁻¹(y − Xβ), (q, G)."""
    residual = projection.ty - (projection.tx * beta[None, :, None]).sum(axis=1)
    return (d[:, :, None] * residual[None]).sum(axis=1)


def _sandwich(d: Array, u: Array) -> Array:
    """DUD for blocks u (q, q, G)."""
    left = (d[:, :, None, None] * u[None]).sum(axis=1)
    return (left[:, :, None] * d[None, :, :, None]).sum(axis=1)


def normals(key: Array, shapes: tuple[tuple[int, ...], ...]) -> tuple[Array, ...]:
    """Independent standard normal arrays of these shapes."""
    keys = jax.random.split(key, len(shapes))
    return tuple(jax.random.normal(k, shape, float) for k, shape in zip(keys, shapes, strict=True))


def effects(
    z: tuple[np.ndarray, ...],
    codes: tuple[np.ndarray, ...],
    covariances: tuple[np.ndarray, ...],
    roots: tuple[Any, ...],
    white: tuple[np.ndarray, ...],
) -> np.ndarray | float:
    """Σ Zb (n, draws) with b = σΛu, by NumPy.

    Parameters
    ----------
    z : per term (n, q); codes : per term (n,); covariances : per term σ²D (q, q).
    roots : per term L (G, r) of K = LLᵀ, or None for groups that are independent.
    white : per term u (q, r, draws), standard normal; r is G where they are.
    """
    total = 0.0
    for zk, ck, matrix, root, u in zip(z, codes, covariances, roots, white, strict=True):
        b = np.tensordot(psd_cholesky(matrix, 1e-13), u, axes=1)
        for column, one in zip(zk.T, b, strict=True):
            total = total + column[:, None] * (one[ck] if root is None else (root[ck] @ one))
    return total
