"""A problem: the data of one or many fits as a pytree, and the likelihood as functions of it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax import likelihood
from lmmjax._linalg import diagonal
from lmmjax._types import Array, namespace, record, static
from lmmjax.basis import Basis, Origin, Rows, standardise, standardise_response
from lmmjax.covariance import Structure
from lmmjax.design import Design, check_design
from lmmjax.gram import CrossProducts, Gram, Prepared, ResponseProducts, prepare


@record
class Problem:
    """Everything a fit needs; rows are gone.

    Attributes
    ----------
    shared : cross-products of the design.
    response : cross-products of the response(s); arrays may lead with an axis of responses.
    origin : what was taken off the response(s).
    basis : maps between the user's coordinates and the internal ones.
    n : number of observations, as a floating-point scalar.
    reml : κ, 1 for REML and 0 for maximum likelihood, as a floating-point scalar.
    structure : covariance structure of the random terms.
    """

    shared: CrossProducts
    response: ResponseProducts
    origin: Origin
    basis: Basis
    n: Array
    reml: Array
    structure: Structure = static()

    @property
    def nu(self) -> Array:
        """ν = n − κp, the divisor of σ̂²."""
        return self.n - self.reml * self.basis.x_factor.shape[0]

    def with_reml(self, reml: bool) -> Problem:
        """The same data under REML or maximum likelihood."""
        return dataclasses.replace(self, reml=np.asarray(reml, self.n.dtype))


def response_axes(problem: Problem, axis: int | None = 0) -> Problem:
    """`in_axes` for `jax.vmap` over the leading axis of the responses of a problem."""
    everything = jax.tree.map(lambda _: None, problem)
    return dataclasses.replace(
        everything,
        response=jax.tree.map(lambda _: axis, problem.response),
        origin=jax.tree.map(lambda _: axis, problem.origin),
    )


class ProblemMaker:
    """The rows of a design, made ready once; gives a `Problem` for any response.

    Parameters
    ----------
    design : validated here.
    backend : name of a covariance backend, or None for the cheapest that covers the design.
    options : passed on to the backend.
    """

    def __init__(self, design: Design, backend: str | None = None, **options):
        check_design(design)
        self.design = design
        self.rows, self.basis = standardise(design)
        self.prepared: Prepared = prepare(design, self.rows, backend, **options)

    def __call__(self, y: Array, reml: bool = True, dtype=None) -> Problem:
        """The problem of responses y (..., n), NumPy or JAX, possibly traced."""
        return make_problem(self.rows, self.basis, self.prepared, self.design.structure, y, reml, dtype)


def make_problem(
    rows: Rows,
    basis: Basis,
    prepared: Prepared,
    structure: Structure,
    y: Array,
    reml: bool = True,
    dtype=None,
) -> Problem:
    """Cross-products of y (..., n) with a prepared design; `dtype` casts the result."""
    standard, origin = standardise_response(rows, basis, y)
    response = prepared.respond(standard)
    kind = standard.dtype if dtype is None else np.dtype(dtype)
    xp = namespace(standard)
    n = xp.asarray(float(y.shape[-1]), dtype=kind)
    problem = Problem(
        prepared.shared, response, origin, basis, n, xp.asarray(float(reml), dtype=kind), structure
    )
    if dtype is None:
        return problem
    return jax.tree.map(lambda a: a.astype(kind) if np.issubdtype(a.dtype, np.floating) else a, problem)


def internal_entries(theta: Array, problem: Problem) -> Array:
    """d (m,) in internal coordinates for θ in the user's."""
    inner = problem.structure.change_basis(theta, problem.basis.inward)
    return problem.structure.entries(problem.structure.covariances(inner), inner.dtype)


def log_x_factor(basis: Basis) -> Array:
    """log|R| of X = X̃R."""
    return jnp.sum(jnp.log(jnp.abs(diagonal(basis.x_factor))))


def gram(theta: Array, problem: Problem) -> Gram:
    """(log|H|, S = WᵀH⁻¹W) for W = [X y] at θ.

    Parameters
    ----------
    theta : (m,) entries of the relative Cholesky factors Λ, term after term, by columns.
    """
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    r, beta, scale = problem.basis.x_factor, problem.origin.beta, problem.origin.scale
    shift = r @ beta
    # y = X β₀ + s ỹ and X = X̃R
    tilted = inner.xx @ shift + scale * inner.xy
    yy = shift @ inner.xx @ shift + 2.0 * scale * (shift @ inner.xy) + scale**2 * inner.yy
    return Gram(inner.logdet, r.T @ inner.xx @ r, r.T @ tilted, yy)


def profiled_deviance(theta: Array, problem: Problem) -> Array:
    """−2ℓ or −2ℓᴿ at θ (m,), with β and σ² profiled out: the function that `estimate` minimises."""
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    return likelihood.profiled_deviance(inner, problem.n, problem.reml) + deviance_shift(problem)


def deviance_shift(problem: Problem) -> Array:
    """What the internal coordinates leave out of the criterion: κ log|RᵀR| + ν log s²."""
    return 2.0 * (problem.reml * log_x_factor(problem.basis) + problem.nu * jnp.log(problem.origin.scale))


def loglik(problem: Problem, beta: Array, sigma2: Array, theta: Array) -> Array:
    """ℓ(β, σ², θ), the log density of y; for REML problems too, where β is (p,) as well."""
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    scale = problem.origin.scale
    moved = problem.basis.x_factor @ ((beta - problem.origin.beta) / scale)
    value = likelihood.deviance(inner, moved, sigma2 / scale**2, problem.n)
    return -0.5 * (value + 2.0 * problem.n * jnp.log(scale))


def restricted_loglik(problem: Problem, sigma2: Array, theta: Array) -> Array:
    """ℓᴿ(σ², θ), the restricted log likelihood (Patterson & Thompson 1971, doi:10.1093/biomet/58.3.545)."""
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    scale = problem.origin.scale
    value = likelihood.restricted_deviance(inner, sigma2 / scale**2, problem.n)
    nu = problem.n - problem.basis.x_factor.shape[0]
    return -0.5 * (value + 2.0 * (nu * jnp.log(scale) + log_x_factor(problem.basis)))
