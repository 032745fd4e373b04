"""Conditional modes, fitted values and residuals of a fit."""

from __future__ import annotations

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.core import Modes, Problem
from lmmjax.core.conditional import modes_at
from lmmjax.core.problem import internal_parameters
from lmmjax.core.residuals import variances, whitened
from lmmjax.fitted.kept import kept
from lmmjax.fitted.records import Fitted
from lmmjax.gram import Projection
from lmmjax.gram.grouped.products import GroupedProducts


def projected(problem: Problem, psi: Array) -> tuple[tuple[Array, ...], tuple[Projection, ...]]:
    """D (q, q) of every term at ψ (m + 1,), and the products that its modes follow from."""
    d = internal_parameters(problem, psi)
    return problem.structure.matrices(d), problem.shared.project(d, problem.response)


_projected_jit = quick_jit(projected)


@kept
def fitted_modes(fitted: Fitted) -> tuple[Modes, ...]:
    """Modes, conditional and prediction error variances of every random term, in the user's coordinates."""
    problem = fitted.data.expanded(fitted.y, fitted.reml)
    # a plain grouped model takes a few operations of NumPy, others would be a program an operation
    grouped = isinstance(problem.shared, GroupedProducts)
    with jax.enable_x64(True):
        parts = (projected if grouped else _projected_jit)(problem, np.asarray(fitted.estimate.psi))
        relative, projections = jax.tree.map(np.asarray, parts)
    modes = modes_at(problem, projections, relative, fitted.estimate)
    return tuple(
        jax.tree.map(lambda a, groups=term.n_groups: np.asarray(a)[:groups], own)
        for term, own in zip(fitted.data.design.terms, modes, strict=True)
    )


def fitted_values(fitted: Fitted) -> np.ndarray:
    """Xβ̂ + Zb̂ + offset (n,)."""
    values = fitted.population
    for term, modes in zip(fitted.data.frame.random, fitted_modes(fitted), strict=True):
        values = values + np.sum(term.z * modes.b[term.codes], axis=1)
    return values


def residuals(fitted: Fitted) -> np.ndarray:
    """Response less fitted values (n,)."""
    return fitted.y - fitted_values(fitted)


def scaled_residuals(fitted: Fitted) -> np.ndarray:
    """Pearson residuals (n,): (y − ŷ) over the standard deviation of the residual."""
    return residuals(fitted) / np.sqrt(variances(fitted.data.design, fitted.estimate.psi))


def normalized_residuals(fitted: Fitted) -> np.ndarray:
    """Residuals (n,) decorrelated by the Cholesky factor of their covariance, of unit variance."""
    return whitened(fitted.data.design, fitted.estimate.psi, residuals(fitted)[:, None])[:, 0]
