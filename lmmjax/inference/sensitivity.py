"""Derivatives of estimates in every response, weight and group, from reverse passes through the fit.

A case weight ω counts a row, or a group, ω times: in the likelihood a row of prior weight w has precision ωw
and adds ω to n; a group adds ω times its own part. With all ω = 1 the estimate is the ordinary one, and ω = 0
leaves out. So ∂φ̂/∂ω is the infinitesimal version of deletion, and

    V = Σ (∂φ̂/∂ω)(∂φ̂/∂ω)ᵀ

over independent groups the infinitesimal jackknife, for ML the sandwich estimator: valid whatever the
distribution within groups is.

Source: Jaeckel (1972), The infinitesimal jackknife; Efron (1982), doi:10.1137/1.9781611970319.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, record
from lmmjax.core import Problem, ProblemMaker, estimate
from lmmjax.design import Design, standardise_response
from lmmjax.gram import grouping_factors
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.gram.grouped.products import GroupedResponse


@record
class RowDerivatives:
    """Derivatives (k, n) in responses, in prior weights, and in case weights of rows."""

    y: Array
    weights: Array
    cases: Array


def row_derivatives(
    design: Design, y: Array, theta: Array, reml: Array, backend: str | None = None
) -> RowDerivatives:
    """Derivatives of β̂ and ψ̂, k = p + m + 1, in what every row holds, at the optimum θ (m,).

    Prior weights are moved with n as it is, Var(ε) = σ²/w; case weights move n too. `reml` is κ, 1 or 0.
    """
    w = jnp.ones(design.n, y.dtype) if design.weights is None else jnp.asarray(design.weights)

    def fitted(y: Array, w: Array, n: Array) -> Array:
        problem = ProblemMaker(dataclasses.replace(design, weights=w), backend)(y)
        return _parameters(dataclasses.replace(problem, n=n, reml=reml), theta)

    in_y, in_w, in_n = _reverse(fitted, jnp.asarray(y), w, jnp.asarray(float(design.n), y.dtype))
    return RowDerivatives(in_y, in_w, in_w * w[None] + in_n[:, None])


def group_derivatives(design: Design, y: Array, theta: Array, reml: Array) -> Array:
    """The same (k, G) in case weights of the groups of the coarsest factor, whose factors are nested."""
    problem, groups = weighted_groups(design, y, reml), grouping_factors(design)[-1].n_groups
    return _reverse(lambda cases: _parameters(problem(cases), theta), jnp.ones(groups, y.dtype))[0]


def chained(jacobian: np.ndarray, derivatives: np.ndarray) -> np.ndarray:
    """Derivatives (k, n) of functions of the parameters, from theirs: J (k, p + m + 1) and (p + m + 1, n).

    Parameters that a function does not depend on are left out: their derivatives may be missing.
    """
    uses = jacobian != 0.0
    return np.stack([row[own] @ derivatives[own] for row, own in zip(jacobian, uses, strict=True)])


def weighted_groups(design: Design, y: Array, reml: bool | Array) -> Callable[[Array], Problem]:
    """The problem as a function of the case weights (G,) of the coarsest factor's groups.

    Raises
    ------
    ValueError : grouping factors that are not nested, so that no groups are independent.
    """
    maker = ProblemMaker(design, "grouped", compress=False)
    prepared, rows = maker.prepared, maker.rows
    assert isinstance(prepared, GroupedPrepared)
    problem = dataclasses.replace(maker(y), reml=jnp.asarray(reml, float))
    order = slice(None) if prepared.order is None else prepared.order
    residual, _, factor = standardise_response(rows, maker.basis, y[order])
    residual = residual * factor
    for column in prepared.columns:
        residual = residual - column.spread(column.sum(residual))
    codes, sizes = prepared.segments.codes, np.bincount(prepared.segments.codes, minlength=prepared.k)
    x, shared, response = prepared.x_within, prepared.shared, problem.response
    assert isinstance(response, GroupedResponse)

    def weighted(cases: Array) -> Problem:
        own, root = cases[codes], prepared.pad(jnp.sqrt(cases), 0)
        xw = x * own[None]
        return dataclasses.replace(
            problem,
            shared=dataclasses.replace(
                shared,
                count=prepared.pad(cases, 0),
                within_xx=xw @ x.T,
                between_xx=shared.between_xx * root[None, None],
            ),
            response=dataclasses.replace(
                response,
                within_xy=xw @ residual,
                within_yy=jnp.sum(own * residual**2),
                between_xy=response.between_xy * root[None],
            ),
            n=jnp.asarray(sizes, cases.dtype) @ cases,
        )

    return weighted


def infinitesimal_jackknife(derivatives: Array) -> Array:
    """Covariance (k, k) from the derivatives (k, G) in case weights of independent units."""
    return derivatives @ derivatives.T


def _parameters(problem: Problem, theta: Array) -> Array:
    fit = estimate(problem, theta)
    return jnp.concatenate([fit.beta, fit.psi])


def _reverse(function: Callable[..., Array], *at: Array) -> tuple[Array, ...]:
    """The Jacobian (k, ...) in every argument, a reverse pass a value."""
    value, pull = jax.vjp(function, *at)
    return jax.vmap(pull)(jnp.eye(value.shape[0], dtype=value.dtype))
