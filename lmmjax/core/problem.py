"""A problem: the data of one or many fits as a pytree, and the likelihood as functions of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, diagonal, eager_jit, namespace, record, static
from lmmjax.arrays.other_arguments import answered
from lmmjax.arrays.sparse_columns import HostColumns, pieces
from lmmjax.core import likelihood
from lmmjax.design import (
    Basis,
    Design,
    Origin,
    Rows,
    Structure,
    check_design,
    standardise,
    standardise_response,
    take_columns,
)
from lmmjax.gram import CrossProducts, Gram, Prepared, ResponseProducts, prepare
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.gram.whitened.prepare import WhitenedPrepared
from lmmjax.residual import units_of

MOST, KEPT = 32, 4
"""Responses that the units of rows are taken from, and makers in other units that are kept."""


@record
class Problem:
    """Everything a fit needs; rows are gone.

    Attributes
    ----------
    shared : cross-products of the design.
    response : cross-products of the response(s); arrays may have an axis of responses, first or, from
        `ProblemMaker.lanes`, last.
    origin : what was taken off the response(s).
    basis : maps between the user's coordinates and the internal ones.
    n : number of observations, as a floating-point scalar.
    reml : κ, 1 for REML and 0 for maximum likelihood, as a floating-point scalar.
    structure : covariance structure of the random terms and the residuals.
    known : σ² where it is known, in the units of the response, else None.
    """

    shared: CrossProducts
    response: ResponseProducts
    origin: Origin
    basis: Basis
    n: Array
    reml: Array
    structure: Structure = static()
    known: Array | None = None

    @property
    def nu(self) -> Array:
        """ν = n − κp, the divisor of σ̂²."""
        return self.n - self.reml * self.basis.x_factor.shape[0]

    @property
    def known_inside(self) -> Array | None:
        """σ² where it is known, in internal units."""
        return None if self.known is None else self.known / self.origin.scale**2


@answered
def response_axes(problem: Problem, axis: int | None = 0) -> Problem:
    """`in_axes` for `jax.vmap` over the responses of a problem: the leading axis, or -1 for lanes."""
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
        self.design, self.backend, self.options = design, backend, options
        rows, self.basis = standardise(design)
        self.prepared: Prepared = prepare(design, rows, backend, **options)
        self.rows = rows.take(self.prepared.order)
        self._onepass: Callable | None = None
        self._narrower: dict[bytes, ProblemMaker] = {}
        self._scaled: dict[bytes, ProblemMaker] = {}

    def __call__(self, y: Array, reml: bool = True, dtype=None) -> Problem:
        """The problem of responses y (..., n), NumPy or JAX, possibly traced."""
        own = self.in_units(y)
        problem = make_problem(own.rows, own.basis, own.prepared, self.design.structure, y, reml)
        problem = self._with_known(problem)
        return problem if dtype is None else cast(problem, dtype)

    def with_columns(self, kept: np.ndarray) -> ProblemMaker:
        """The maker for the columns of X at the positions `kept`: itself for all, others are kept."""
        if len(kept) == self.design.p:
            return self
        key = kept.tobytes()
        if key not in self._narrower:
            self._narrower[key] = ProblemMaker(take_columns(self.design, kept), self.backend)
        return self._narrower[key]

    def in_units(self, y: Array) -> ProblemMaker:
        """A maker for rows in the units of responses y (..., n), if their residuals differ much in size."""
        own = self.design.residual
        codes = None if own is None or not isinstance(y, np.ndarray) else own.classes
        if own is None or codes is None or own.units is not None or not isinstance(self.design.x, np.ndarray):
            return self
        units = units_of(codes, self.design.x, y.reshape(-1, y.shape[-1])[:MOST].T)
        if units is None:
            return self
        key = units.tobytes()
        if key not in self._scaled:
            if len(self._scaled) >= KEPT:
                self._scaled.clear()
            design = dataclasses.replace(self.design, residual=dataclasses.replace(own, units=units))
            self._scaled[key] = ProblemMaker(design, self.backend, **self.options)
        return self._scaled[key]

    @cached_property
    def expanded(self) -> ProblemMaker:
        """A maker that keeps the products of every group, for conditional modes: itself, if it does."""
        if not getattr(self.prepared, "compressed", False):
            return self
        return ProblemMaker(self.design, self.backend, compress=False)

    @cached_property
    def tangents(self) -> ProblemMaker:
        """A maker of problems that have `linear_jet`: with covariance matrices of groups, not row by row."""
        inner = getattr(self.prepared, "inner", self.prepared)
        if not isinstance(inner, WhitenedPrepared):
            return self
        return ProblemMaker(self.design, self.backend, markov=False)

    def _with_known(self, problem: Problem) -> Problem:
        if self.design.condensed is not None:
            problem = dataclasses.replace(problem, n=np.asarray(self.design.observations, problem.n.dtype))
        known = None if self.design.known is None else np.asarray(self.design.known, problem.n.dtype)
        return dataclasses.replace(problem, known=known)

    def lanes(self, y: HostColumns, reml: bool = True) -> Problem:
        """The problem of many responses y (n, T), finite NumPy; axes of responses trail.

        Sparse ones, of designs that are grouped, are never made dense but a few at a time.
        """
        if not isinstance(self.prepared, GroupedPrepared):
            y = np.asarray(y)
            own = self.in_units(y.T)
            return self._with_known(
                make_lanes(own.rows, own.basis, own.prepared, self.design.structure, y, reml)
            )
        if self._onepass is None:
            # imported here: scipy.sparse adds a warning filter, and a single fit has no use for it
            from lmmjax.gram.grouped.onepass import OnePass

            self._onepass = OnePass(self.prepared, self.rows, self.basis)
        response, origin, inexact = self._onepass(y)
        problem = Problem(
            self.prepared.shared,
            response,
            origin,
            self.basis,
            np.asarray(float(y.shape[0])),
            np.asarray(float(reml)),
            self.design.structure,
        )
        problem = self._with_known(problem)
        left = np.flatnonzero(inexact)
        for part, values in pieces(y[:, left]) if len(left) else ():
            exact = make_lanes(self.rows, self.basis, self.prepared, self.design.structure, values, reml)
            for name in ("response", "origin"):
                pairs = zip(*(jax.tree.leaves(getattr(p, name)) for p in (problem, exact)), strict=True)
                for mine, theirs in pairs:
                    mine[..., left[part]] = theirs
        return problem


def make_problem(
    rows: Rows,
    basis: Basis,
    prepared: Prepared,
    structure: Structure,
    y: Array,
    reml: bool = True,
) -> Problem:
    """Cross-products of y (..., n) with a prepared design."""
    xp = namespace(y, rows.x)
    y = xp.moveaxis(xp.asarray(y), -1, 0)
    problem = make_lanes(rows, basis, prepared, structure, y, reml)
    lanes = tuple(range(y.ndim - 1))

    def lead(a: Array) -> Array:
        return xp.moveaxis(a, tuple(k - len(lanes) for k in lanes), lanes) if lanes else a

    return dataclasses.replace(
        problem, response=jax.tree.map(lead, problem.response), origin=jax.tree.map(lead, problem.origin)
    )


def make_lanes(
    rows: Rows, basis: Basis, prepared: Prepared, structure: Structure, y: Array, reml: bool
) -> Problem:
    """The problem of responses y (n, ...): axes of responses trail in the result."""
    xp = namespace(y, rows.x)
    n = xp.asarray(float(y.shape[0]), dtype=rows.x.dtype)
    if prepared.order is not None:
        y = xp.take(y, prepared.order, axis=0)
    residual, origin, factor = standardise_response(rows, basis, y)
    residual, origin, factor = prepared.settle(rows, basis, residual, origin, factor)
    response = prepared.respond(residual, factor)
    kappa = xp.asarray(float(reml), dtype=rows.x.dtype)
    return Problem(prepared.shared, response, origin, basis, n, kappa, structure)


def cast(problem: Problem, dtype: Any) -> Problem:
    """The problem with floating-point arrays of another dtype."""
    kind = np.dtype(dtype)
    return jax.tree.map(lambda a: a.astype(kind) if np.issubdtype(a.dtype, np.floating) else a, problem)


def internal_entries(theta: Array, problem: Problem) -> Array:
    """d (m,) in internal coordinates for θ in the user's."""
    return problem.structure.decode_in(theta, problem.basis.inward)


def internal_parameters(problem: Problem, psi: Array) -> Array:
    """d (m,) in internal coordinates for ψ (m + 1,) in the user's."""
    return problem.structure.entry_map(problem.basis.inward).astype(psi.dtype) @ problem.structure.relative(
        psi
    )


def log_x_factor(basis: Basis) -> Array:
    """log|R| of X = X̃R."""
    return jnp.sum(jnp.log(jnp.abs(diagonal(basis.x_factor))))


@eager_jit
def gram(theta: Array, problem: Problem) -> Gram:
    """(log|H|, S = WᵀH⁻¹W) for W = [X y] at θ.

    Parameters
    ----------
    theta : (m,) working values of the covariance parameters: of unstructured and diagonal terms the
        entries of the relative Cholesky factors Λ, term after term, by columns.
    problem : of one response, as of `Model.problem` and `problem_from_arrays`.
    """
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    r, beta, scale = problem.basis.x_factor, problem.origin.beta, problem.origin.scale
    shift = r @ beta
    # y = X β₀ + s ỹ and X = X̃R
    tilted = inner.xx @ shift + scale * inner.xy
    yy = shift @ inner.xx @ shift + 2.0 * scale * (shift @ inner.xy) + scale**2 * inner.yy
    return Gram(inner.logdet, r.T @ inner.xx @ r, r.T @ tilted, yy)


@eager_jit
def profiled_deviance(theta: Array, problem: Problem) -> Array:
    """−2ℓ or −2ℓᴿ at θ (m,), with β and σ² profiled out: the function that `estimate` minimises.

    Parameters
    ----------
    theta, problem : as of `gram`.

    Raises
    ------
    ValueError : θ is not of the shape (m,).
    """
    if jnp.shape(theta) != (problem.structure.n_params,):
        raise ValueError(
            f"theta has shape {jnp.shape(theta)}; this problem has {problem.structure.n_params} covariance "
            f"parameters: pass an array of shape ({problem.structure.n_params},)"
        )
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    value = likelihood.profiled_deviance(inner, problem.n, problem.reml, problem.known_inside)
    return value + deviance_shift(problem)


def deviance_shift(problem: Problem) -> Array:
    """What the internal coordinates leave out of the criterion: κ log|RᵀR| + ν log s²."""
    return 2.0 * (problem.reml * log_x_factor(problem.basis) + problem.nu * jnp.log(problem.origin.scale))


@eager_jit
def loglik(problem: Problem, beta: Array, sigma2: Array, theta: Array) -> Array:
    """ℓ(β, σ², θ), the log density of y; for REML problems too, where β is (p,) as well.

    Parameters
    ----------
    problem, theta : as of `gram`. beta : (p,); sigma2 : the residual variance, in the units of y.
    """
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    scale = problem.origin.scale
    moved = problem.basis.x_factor @ ((beta - problem.origin.beta) / scale)
    value = likelihood.deviance(inner, moved, sigma2 / scale**2, problem.n)
    return -0.5 * (value + 2.0 * problem.n * jnp.log(scale))


@eager_jit
def restricted_loglik(problem: Problem, sigma2: Array, theta: Array) -> Array:
    """ℓᴿ(σ², θ), the restricted log likelihood (Patterson & Thompson 1971, doi:10.1093/biomet/58.3.545).

    Parameters
    ----------
    problem, theta : as of `gram`. sigma2 : the residual variance, in the units of y.
    """
    inner = problem.shared.gram(internal_entries(theta, problem), problem.response)
    scale = problem.origin.scale
    value = likelihood.restricted_deviance(inner, sigma2 / scale**2, problem.n)
    nu = problem.n - problem.basis.x_factor.shape[0]
    return -0.5 * (value + 2.0 * (nu * jnp.log(scale) + log_x_factor(problem.basis)))
