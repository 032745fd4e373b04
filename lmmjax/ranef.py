"""Conditional modes of a fit, in the user's coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from lmmjax.core import Estimate, Modes
from lmmjax.core.conditional import modes_at
from lmmjax.core.problem import internal_parameters

if TYPE_CHECKING:
    from lmmjax.model import Model


def fitted_modes(model: Model, y: np.ndarray, estimate: Estimate, reml: bool) -> tuple[Modes, ...]:
    """Modes, conditional and prediction error variances of every random term, at the estimates for y (n,)."""
    problem = model.expanded(y, reml)
    with jax.enable_x64(True):
        d = internal_parameters(problem, np.asarray(estimate.psi))
        relative = tuple(np.asarray(matrix) for matrix in problem.structure.matrices(d))
        projections = jax.tree.map(np.asarray, problem.shared.project(d, problem.response))
    modes = modes_at(problem, projections, relative, estimate)
    return tuple(
        jax.tree.map(lambda a, groups=term.n_groups: np.asarray(a)[:groups], own)
        for term, own in zip(model.design.terms, modes, strict=True)
    )
