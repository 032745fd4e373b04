"""Fixed effects along directions of ψ that the data leave open: where β̂ moves, its value is chance."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit, sweep
from lmmjax.core import Problem
from lmmjax.design import solve_upper
from lmmjax.inference.natural import internal_point
from lmmjax.inference.open_directions import moving


def effects_along(problem: Problem, psi: Array, steps: Array) -> tuple[Array, Array]:
    """∂β̂/∂N (p, k) along the steps N (m + 1, k) of `inward_moves`, and Φ (p, p), in the user's coordinates.

    With F = XᵀH⁻¹X and index c for derivatives in d, ∂_cβ̂ = F⁻¹(∂_c(XᵀH⁻¹y) − ∂_cF β̂).
    """
    d, s = internal_point(problem, psi)
    found = problem.shared.jet(d, problem.response)
    inverse = sweep(found.value.xx)[1]
    beta = inverse @ found.value.xy
    slopes = inverse @ (found.first.xy - found.first.xx @ beta).T
    powers = problem.structure.powers.astype(d.dtype)
    # d_c = ψ_c s^(−p_c)
    along = (s**-powers)[:, None] * steps[:-1] - (powers * d / s)[:, None] * steps[-1:]
    p = problem.basis.x_factor.shape[0]
    outward = problem.origin.scale * solve_upper(problem.basis.x_factor, jnp.eye(p, dtype=d.dtype))
    return outward @ slopes @ along, s * outward @ inverse @ outward.T


effects_along_jit = quick_jit(effects_along)


def moving_effects(change: np.ndarray, phi: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of the contrasts rows (k, p) move, from `effects_along`: beside their standard errors."""
    size = np.sqrt(np.maximum(np.einsum("kp,pr,kr->k", rows, phi, rows), 0.0))
    return np.any(moving(rows @ change, size[:, None]), axis=1)
