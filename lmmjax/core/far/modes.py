"""Conditional modes where random effects are large: in coordinates of their covariance, about Xβ̂."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.core.conditional import Modes, modes_at
from lmmjax.core.estimate import Estimate
from lmmjax.core.far.turn import Turn
from lmmjax.core.problem import ProblemMaker, internal_parameters
from lmmjax.design import standardise_response


def far_modes(
    maker: ProblemMaker, turn: Turn, y: np.ndarray, estimate: Estimate, reml: bool
) -> tuple[Modes, ...]:
    """Modes of every term of the design of `maker`, of a response y (n,) at its estimate, in NumPy."""
    order = maker.prepared.order
    origin = standardise_response(maker.rows, maker.basis, y if order is None else y[order])[1]
    shift = np.asarray(maker.basis.x_factor) @ (estimate.beta - origin.beta)
    psi, _ = turn.inside(estimate.psi, estimate.cov_relative)
    inverse = np.linalg.inv(turn.x) if len(turn.x) else turn.x
    there = dataclasses.replace(
        estimate, psi=psi, beta=inverse @ estimate.beta, cov_beta=inverse @ estimate.cov_beta @ inverse.T
    )
    with jax.enable_x64(True):
        apart = dataclasses.replace(turn, maker=turn.maker.expanded)
        problem = apart.lanes(y, shift, reml)
        d = internal_parameters(problem, psi)
        relative, projections = problem.structure.matrices(d), problem.shared.project(d, problem.response)
        relative, projections = jax.tree.map(np.asarray, (relative, projections))
        found = modes_at(problem, projections, relative, there)
    out: list = [None] * len(found)
    for k, own in zip(turn.order, found, strict=True):
        o, (b, var, mspe) = turn.z[k], (np.asarray(a) for a in (own.b, own.cond_var, own.mspe))
        out[k] = Modes(b @ o.T, o @ var @ o.T, o @ mspe @ o.T)
    return tuple(out)
