"""Variance components by quadratic moments, and fixed effects by feasible generalised least squares.

Neither needs normality, and both are one evaluation of the criterion's derivatives. No likelihood is claimed.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.core import Problem
from lmmjax.core.criterion import evaluate
from lmmjax.core.likelihood import profile
from lmmjax.core.start import mivque
from lmmjax.design import Structure, solve_upper


def components(problem: Problem, d: Array) -> Array:
    """ψ (m + 1,) by the moment equations at the prior d (m,), in the user's coordinates; see `mivque`."""
    inner = _inward(problem, d)
    split = evaluate(problem.shared, inner, problem.response, jnp.ones_like(problem.reml))
    sigma2, found = mivque(split, problem.n - problem.basis.x_factor.shape[0], inner)
    outward = problem.structure.entry_map(problem.basis.outward).astype(d.dtype) @ found
    return jnp.concatenate([outward, sigma2[None]]) * problem.origin.scale**2


def least_squares(problem: Problem, d: Array, sigma2: Array) -> tuple[Array, Array]:
    """β̂ (p,) and σ²(XᵀH⁻¹X)⁻¹ (p, p) at relative components d (m,)."""
    fit = profile(problem.shared.gram(_inward(problem, d), problem.response))
    factor, origin = problem.basis.x_factor, problem.origin
    half = solve_upper(factor, fit.xx_inv)
    beta = origin.beta + origin.scale * solve_upper(factor, fit.beta)
    return beta, sigma2 * solve_upper(factor, half.T)


def _inward(problem: Problem, d: Array) -> Array:
    return problem.structure.entry_map(problem.basis.inward).astype(d.dtype) @ d


def nearest_positive(structure: Structure, psi: np.ndarray) -> np.ndarray:
    """Relative components d (m,), each term's matrix with its negative eigenvalues set to zero."""
    positive = []
    for matrix in structure.matrices(psi[:-1] / psi[-1]):
        values, vectors = np.linalg.eigh(matrix)
        positive.append((vectors * np.maximum(values, 0.0)) @ vectors.T)
    return np.asarray(structure.natural(tuple(positive), float))


components_jit, least_squares_jit = quick_jit(components), quick_jit(least_squares)
