"""Conditional modes, fitted values and residuals of a fit."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit, record, sweep
from lmmjax.core import Modes, Problem
from lmmjax.core.conditional import inner_modes, modes_at
from lmmjax.core.far.fit import turn_where_far
from lmmjax.core.far.modes import far_modes
from lmmjax.core.problem import internal_parameters
from lmmjax.core.residuals import variances, whitened
from lmmjax.design import solve_upper
from lmmjax.fitted.kept import kept
from lmmjax.fitted.open_effects import combined
from lmmjax.fitted.records import Fitted
from lmmjax.gram import Projection
from lmmjax.gram.grouped.products import GroupedProducts
from lmmjax.inference.open_directions import nearby, settled

Rows = Sequence[tuple[int, np.ndarray, np.ndarray]]
"""Of random terms: the number of each in the model, z (rows, q), and codes (rows,), −1 for b = 0."""


def projected(problem: Problem, psi: Array) -> tuple[tuple[Array, ...], tuple[Projection, ...]]:
    """D (q, q) of every term at ψ (m + 1,), and the products that its modes follow from."""
    d = internal_parameters(problem, psi)
    return problem.structure.matrices(d), problem.shared.project(d, problem.response)


_projected_jit = quick_jit(projected)


@record
class Point:
    """Modes at any ψ, and β̂ (p,) there less its origin, in the user's coordinates."""

    modes: tuple[Modes, ...]
    beta: Array

    def total(self, x: np.ndarray, terms: Rows) -> np.ndarray:
        """Xβ̂ + Zb̂ (n,) of any rows, X (n, p), less the same number at every ψ."""
        out = x @ self.beta
        for k, z, codes in terms:
            out = out + np.where(codes < 0, 0.0, np.sum(z * self.modes[k].b[codes], axis=1))
        return out


@quick_jit
def _nearby(problem: Problem, psi: Array) -> Point:
    """Modes with the variances that go with them at any ψ (m + 1,), β̂ and Φ being those of this ψ."""
    relative, projections = projected(problem, psi)
    products = problem.shared.gram(internal_parameters(problem, psi), problem.response)
    inverse = sweep(products.xx)[1]
    sigma2 = psi[-1] / problem.origin.scale**2
    beta = inverse @ products.xy
    modes = inner_modes(problem, projections, relative, beta, sigma2, sigma2 * inverse)
    return Point(modes, problem.origin.scale * solve_upper(problem.basis.x_factor, beta))


def _point(fitted: Fitted, problem: Problem, psi: np.ndarray) -> Point:
    """Modes of the groups that there are and β̂ at any ψ, as NumPy."""
    with jax.enable_x64(True):
        found = _nearby(problem, psi)
    return Point(_numbers(fitted, found.modes), np.asarray(found.beta))


def _numbers(fitted: Fitted, modes: tuple[Modes, ...]) -> tuple[Modes, ...]:
    """Modes of the groups that there are, as NumPy."""
    terms = zip(fitted.data.design.terms, modes, strict=True)
    return tuple(jax.tree.map(lambda a, n=term.n_groups: np.asarray(a)[:n], own) for term, own in terms)


@kept
def _modes(fitted: Fitted) -> tuple[Modes, ...]:
    """Modes at ψ̂, whether or not the data determine them."""
    maker, estimate = fitted.data.maker, fitted.estimate
    turn = None if estimate.moves.any() else turn_where_far(maker, np.asarray(estimate.psi))
    if turn is not None:
        return _numbers(fitted, far_modes(maker, turn, fitted.y, estimate, fitted.reml))
    problem = fitted.data.expanded(fitted.y, fitted.reml)
    if estimate.moves.any():
        return _point(fitted, problem, np.asarray(estimate.psi)).modes
    # a plain grouped model takes a few operations of NumPy, others would be a program an operation
    grouped = isinstance(problem.shared, GroupedProducts)
    with jax.enable_x64(True):
        parts = (projected if grouped else _projected_jit)(problem, np.asarray(estimate.psi))
        relative, projections = jax.tree.map(np.asarray, parts)
    return _numbers(fitted, modes_at(problem, projections, relative, estimate))


@kept
def _comparisons(fitted: Fitted) -> list[tuple[Point, list[Point]]]:
    """Modes and β̂ at ψ̂ and at points that fit equally well, of y and of noise; [] if ψ is identified.

    Modes of noise tell those that are determined from those that are near zero.
    """
    if not fitted.estimate.moves.any():
        return []
    psi, out = np.asarray(fitted.estimate.psi), []
    points = nearby(fitted.data.design.structure, psi, np.asarray(fitted.estimate.moves))
    noise = np.sqrt(psi[-1]) * np.random.default_rng(0).normal(size=len(fitted.y))
    for y in (fitted.y, noise):
        problem = fitted.data.expanded(y, fitted.reml)
        at, *near = (_point(fitted, problem, point) for point in (psi, *points))
        out.append((at, near))
    return out


@kept
def fitted_modes(fitted: Fitted) -> tuple[Modes, ...]:
    """Modes, conditional and prediction error variances of every random term, in the user's coordinates.

    What moves along a direction that the data leave open is NaN.
    """
    modes = list(_modes(fitted))
    for at, near in _comparisons(fitted):
        for k, own in enumerate(modes):
            modes[k] = _where_settled(own, at.modes[k], [other.modes[k] for other in near])
    return tuple(modes)


def _where_settled(values: Modes, at: Modes, near: list[Modes]) -> Modes:
    spread = np.sqrt(np.maximum(np.diagonal(at.mspe, axis1=1, axis2=2), 0.0))
    size = np.max(np.maximum(np.abs(at.b), spread), axis=0, initial=0.0)
    units = {"b": size, "cond_var": size[:, None] * size, "mspe": size[:, None] * size}
    steady = {k: settled(getattr(at, k), [getattr(m, k) for m in near], unit) for k, unit in units.items()}
    return Modes(**{k: np.where(steady[k], getattr(values, k), np.nan) for k in units})


def linear_part(fitted: Fitted, x: np.ndarray, terms: Rows) -> np.ndarray:
    """Xβ̂ + Zb̂ (n,) of any rows, X (n, p), NaN where their sum moves along what the data leave open."""
    if not terms:
        return combined(fitted, x)
    values = Point(_modes(fitted), np.asarray(fitted.estimate.beta)).total(x, terms)
    for at, near in _comparisons(fitted):
        size = np.std(fitted.y - fitted.population)
        steady = settled(at.total(x, terms), [point.total(x, terms) for point in near], size)
        values = np.where(steady, values, np.nan)
    return values


def fitted_values(fitted: Fitted) -> np.ndarray:
    """Xβ̂ + Zb̂ + offset (n,), NaN where Xβ̂ + Zb̂ moves along a direction that the data leave open."""
    rows = [(k, term.z, term.codes) for k, term in enumerate(fitted.data.frame.random)]
    frame = fitted.data.frame
    return linear_part(fitted, frame.x, rows) + (0.0 if frame.offset is None else frame.offset)


def residuals(fitted: Fitted) -> np.ndarray:
    """Response less fitted values (n,)."""
    return fitted.y - fitted_values(fitted)


def scaled_residuals(fitted: Fitted) -> np.ndarray:
    """Pearson residuals (n,): (y − ŷ) over the standard deviation of the residual."""
    return residuals(fitted) / np.sqrt(variances(fitted.data.design, fitted.estimate.psi))


def normalized_residuals(fitted: Fitted) -> np.ndarray:
    """Residuals (n,) decorrelated by the Cholesky factor of their covariance, of unit variance."""
    return whitened(fitted.data.design, fitted.estimate.psi, residuals(fitted)[:, None])[:, 0]
