"""Conditional modes of a fit, in the user's coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.conditional import Modes, conditional_modes
from lmmjax.estimate import Estimate
from lmmjax.inference.natural import internal_point

if TYPE_CHECKING:
    from lmmjax.model import Model


def fitted_modes(model: Model, y: np.ndarray, estimate: Estimate, reml: bool) -> tuple[Modes, ...]:
    """Modes, conditional and prediction error variances of every random term, at the estimates for y (n,)."""

    problem = model.expanded(y, reml)
    structure, basis, scale = model.design.structure, problem.basis, problem.origin.scale
    sigma2 = estimate.sigma2
    with jax.enable_x64(True):
        d, _ = internal_point(problem, jnp.asarray(estimate.psi))
        inner = [np.asarray(matrix) for matrix in structure.matrices(d)]
        projections = jax.tree.map(np.asarray, problem.shared.project(d, problem.response))
    beta = basis.x_factor @ (estimate.beta - problem.origin.beta) / scale
    cov_beta = basis.x_factor @ estimate.cov_beta @ basis.x_factor.T / scale**2
    out = []
    terms = model.design.terms
    for term, projection, matrix, back in zip(terms, projections, inner, basis.outward, strict=True):
        modes = conditional_modes(projection, matrix, beta, sigma2 / scale**2, cov_beta)
        b, cond_var, mspe = (np.asarray(a)[: term.n_groups] for a in (modes.b, modes.cond_var, modes.mspe))
        square = scale**2
        out.append(
            Modes(scale * (b @ back.T), square * (back @ cond_var @ back.T), square * (back @ mspe @ back.T))
        )
    return tuple(out)
