"""Fixed effects along directions of ψ that the data leave open: where β̂ moves, its value is chance."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit, record, sweep
from lmmjax.core import Problem
from lmmjax.design import solve_upper
from lmmjax.inference.natural import internal_point
from lmmjax.inference.open_directions import moving


@record
class Along:
    """β̂ and its covariance along steps N (m + 1, k) of `inward_moves`, in the user's coordinates.

    Attributes
    ----------
    effects : (p, k) ∂β̂/∂N; phi : (p, p) Φ; covariances : (k, p, p) ∂Φ/∂N.
    """

    effects: Array
    phi: Array
    covariances: Array


def effects_along(problem: Problem, psi: Array, steps: Array) -> Along:
    """How β̂ and Φ change along the steps N (m + 1, k) of `inward_moves`.

    With F = XᵀH⁻¹X, Φ = sF⁻¹ and index c for derivatives in d,

        ∂_cβ̂ = F⁻¹(∂_c(XᵀH⁻¹y) − ∂_cF β̂),    ∂Φ/∂N = N_s F⁻¹ − s F⁻¹(Σ N_c ∂_cF)F⁻¹.
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
    turned = jnp.tensordot(along.T, found.first.xx, axes=1)
    change = steps[-1][:, None, None] * inverse[None] - s * _both(inverse, turned)
    return Along(outward @ slopes @ along, s * outward @ inverse @ outward.T, _both(outward, change))


def _both(a: Array, m: Array) -> Array:
    """A M Aᵀ (k, p, p) for A (p, p) and matrices M (k, p, p)."""
    return jnp.einsum("ab,kbc,dc->kad", a, m, a)


effects_along_jit = quick_jit(effects_along)


def moving_effects(along: Along, rows: np.ndarray) -> np.ndarray:
    """Which of the contrasts rows (k, p) of β̂ move: (k,), beside their standard errors."""
    size = np.sqrt(np.maximum(np.einsum("kp,pr,kr->k", rows, along.phi, rows), 0.0))
    return np.any(moving(rows @ along.effects, size[:, None]), axis=1)


def moving_between(along: Along, rows: np.ndarray) -> np.ndarray:
    """Which covariances (k, k) of the contrasts rows (k, p) of β̂ move."""
    spread = np.sqrt(np.maximum(np.einsum("kp,pr,kr->k", rows, along.phi, rows), 0.0))
    return np.any(moving(rows @ along.covariances @ rows.T, spread[:, None] * spread), axis=0)
