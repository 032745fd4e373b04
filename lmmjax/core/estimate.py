"""`estimate`: the fit as a pure function of a problem."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, eager_jit, ldl, record, value_and_slopes
from lmmjax.core import (  # noqa: F401  register shortcuts
    criterion_crossed,
    criterion_families,
    criterion_grouped,
    criterion_schedule,
)
from lmmjax.core.criterion import (
    CriterionParts,
    Jet,
    chain,
    criterion,
    evaluate,
    no_parts,
    smooth,
)
from lmmjax.core.information import freely, information, outside, settled, slopes, spread_of_scale
from lmmjax.core.likelihood import profiled_deviance
from lmmjax.core.problem import Problem, deviance_shift
from lmmjax.core.start import moment_point, moment_start, prior
from lmmjax.design import solve_upper
from lmmjax.optimize import Status, advice, lbfgs, newton

BOUNDARY = 1e-4
"""A term is singular when a diagonal entry of its Λ, for columns of Z of unit mean square, is below this."""

FLAT = 1e-10
"""Pivots of the Hessian below this, relative to the largest, count as no curvature."""


@record
class Estimate:
    """A fitted model; every array may lead with an axis of responses.

    Attributes
    ----------
    theta : (m,) working values: of unstructured and diagonal terms the entries of the relative Cholesky
        factors, columns with diagonal ≥ 0.
    psi : (m + 1,) natural covariance parameters in the order of `varcorr()`; the last is σ².
    beta : (p,); cov_beta : (p, p) their covariance matrix Φ = (XᵀV⁻¹X)⁻¹.
    sigma2 : residual variance.
    cov_psi : (m + 1, m + 1) inverse observed information of ψ; rows of terms on the boundary, and of what
        the data do not identify, are NaN.
    cov_relative : (m + 1, m + 1) the same with ψ_c in units of σ̂^(2p_c), and without gaps: of lower rank on
        a boundary, a generalised inverse where parameters are not identified.
    deviance : the minimised criterion, −2ℓ or −2ℓᴿ.
    status : a `Status` code; grad_norm : max |∂f/∂θ| in internal coordinates; decrement : see
        `NewtonState`; n_iter : evaluations.
    singular : whether a variance is 0 or a correlation ±1.
    moves : (m + 1, m) directions of ψ, in the units of `cov_relative`, along which the criterion does not
        change, as columns; other columns are zero. Where along them ψ̂ lies is chance.
    """

    theta: Array
    psi: Array
    beta: Array
    sigma2: Array
    cov_beta: Array
    cov_psi: Array
    cov_relative: Array
    deviance: Array
    status: Array
    grad_norm: Array
    decrement: Array
    n_iter: Array
    singular: Array
    moves: Array

    @property
    def advice(self) -> str | np.ndarray:
        """What `status` means and what to do: a sentence, of many fits an array of them; not while traced."""
        return advice(self.status)

    @property
    def unidentified(self) -> Array:
        """(m + 1,) which entries of ψ the data do not identify."""
        return freely(self.moves)

    @property
    def n_unidentified(self) -> Array:
        """By how many directions the data fall short of identifying ψ."""
        return (self.moves != 0).any(axis=-2).sum(axis=-1)


METHODS = ("newton", "lbfgs")


@partial(eager_jit, static_argnames=("method", "max_iter"))
def estimate(
    problem: Problem, start: Array | None = None, *, method: str = "newton", max_iter: int = 100
) -> Estimate:
    """Fit by ML or REML: pure, float32 or float64 as the problem is; works under `jit` and `vmap`.

    Parameters
    ----------
    problem : one response; map over `response_axes(problem)` for many.
    start : (m,) starting θ; None, or NaN as its first entry, for the moment start.
    method : "newton" with exact Hessians, or "lbfgs" followed by Newton steps that certify the optimum;
        ValueError for another. All else is said by the `status` of the estimate.
    max_iter : most evaluations of the criterion by Newton; 0 evaluates it at the start.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of: {', '.join(METHODS)}")
    if problem.structure.n_params == 0:
        return finish(problem, jnp.zeros(0, problem.n.dtype), ())
    if max_iter == 0:
        theta, pivoting = moment_start(problem)
        if start is not None:
            begin, chosen = _given(problem, start)
            there = problem.structure.pivoted(begin)
            theta, pivoting = jax.tree.map(partial(jnp.where, chosen), there, (theta, pivoting))
        return finish(problem, theta, pivoting, Report(jnp.int32(Status.ITERATION_LIMIT), jnp.int32(0)))
    point, split, report = optimum(problem, start, method, max_iter)
    theta, pivoting = point
    found = finish(problem, theta, pivoting, report, split)
    # how the optimisation ended has no derivatives
    still = {name: jax.lax.stop_gradient(getattr(found, name)) for name in ("grad_norm", "decrement")}
    return dataclasses.replace(found, **still)


@record
class Report:
    """How an optimisation ended, and after how many evaluations."""

    status: Array
    n_iter: Array


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def optimum(
    problem: Problem, start: Array | None, method: str, max_iter: int
) -> tuple[tuple[Array, tuple[Array, ...]], CriterionParts, Report]:
    """θ̂ (m,) in internal coordinates with these, the parts of the criterion there, and the report.

    Differentiable in the problem, forward and backward, to any order: θ̂ solves ∂f/∂θ = 0, so that
    dθ̂ = −(∂²f/∂θ²)⁻¹ d(∂f/∂θ). No iteration is differentiated. A component of Λ that vanishes at a
    boundary stays there, as the criterion is even in it: the derivative is that of the smaller model.
    """
    structure, dtype = problem.structure, problem.n.dtype
    eyes = no_pivoting(problem)

    def refine(theta, pivoting, split: CriterionParts, n_iter: Array) -> tuple[Array, tuple[Array, ...]]:
        first = moment_point(problem, split)
        if method == "lbfgs":
            first = lbfgs(lambda t: value(problem, t, first[1]), first[0]), first[1]
        d, again = entries(problem, theta, pivoting), n_iter > 0
        if start is not None:
            begin, chosen = _given(problem, start)
            d, again = jnp.where(n_iter == 0, begin, d), again | chosen
        return jax.tree.map(partial(jnp.where, again), structure.pivoted(d), first)

    state = newton(
        lambda theta, pivoting: objective(problem, theta, pivoting),
        structure.encode(prior(problem)),
        eyes,
        max_iter=max_iter,
        refine=refine,
        projections=(snap(problem),),
        columns=structure.columns,
        aux=no_parts(structure.n_params, problem.basis.x_factor.shape[0], dtype),
    )
    report = Report(state.status, state.n_iter)
    return (state.x, state.context), state.aux, report


def _given(problem: Problem, start: Array) -> tuple[Array, Array]:
    """d (m,) in internal coordinates of `start` (m,), the user's θ; whether it is given, and not NaN."""
    structure = problem.structure
    given, none = jnp.asarray(start, problem.n.dtype), structure.encode(prior(problem))
    chosen = ~jnp.isnan(given[0])
    theta = structure.change_basis(jnp.where(chosen, given, none), problem.basis.inward)
    begin = jnp.where(chosen, theta, none)
    return entries(problem, begin, no_pivoting(problem)), chosen


@optimum.defjvp
def _optimum_jvp(method: str, max_iter: int, primals: tuple, tangents: tuple) -> tuple:
    problem, start = primals
    (theta, pivoting), split, report = optimum(problem, start, method, max_iter)

    def inner(t: Array) -> Array:
        return entries(problem, t, pivoting)

    d, jacobian = value_and_slopes(inner, theta)
    second = chain(criterion(split, problem.nu, problem.known_inside), inner, theta).second
    # ∂f/∂d at d fixed, moved along the tangent of the data
    _, moved = jax.jvp(lambda p: plain_criterion(p, d).first, (problem,), (tangents[0],))
    l_inv, pivots = ldl(second)
    # a direction without curvature is one the criterion does not depend on
    flat = jnp.abs(pivots) <= FLAT * jnp.max(jnp.abs(pivots))
    step = -l_inv.T @ jnp.where(flat, 0.0, (l_inv @ (moved @ jacobian)) / pivots)
    _, d_split = jax.jvp(plain_parts, (problem, d), (tangents[0], jacobian @ step))
    still = jax.tree.map(_no_tangent, (pivoting, report))
    return ((theta, pivoting), split, report), ((step, still[0]), d_split, still[1])


def plain_parts(problem: Problem, d: Array) -> CriterionParts:
    """The parts of the criterion by what can be differentiated."""
    return smooth(problem.shared, d, problem.response, problem.reml, keep_all=False)


def plain_criterion(problem: Problem, d: Array) -> Jet:
    """The criterion from `plain_parts`."""
    return criterion(plain_parts(problem, d), problem.nu, problem.known_inside)


def _no_tangent(a: Array) -> Array:
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jnp.zeros_like(a)
    return np.zeros(a.shape, jax.dtypes.float0)


def entries(problem: Problem, theta: Array, pivoting: tuple[Array, ...]) -> Array:
    """d (m,) for θ (m,) in the coordinates that `pivoting` describes: (q, q) a term, then frames of R."""
    return problem.structure.decode(theta, pivoting)


def objective(problem: Problem, theta: Array, pivoting: tuple[Array, ...]):
    """The criterion at θ with gradient (m,) and Hessian (m, m), and its parts as functions of d."""
    split = evaluate(problem.shared, entries(problem, theta, pivoting), problem.response, problem.reml)
    jet = chain(
        criterion(split, problem.nu, problem.known_inside), lambda t: entries(problem, t, pivoting), theta
    )
    return jet.value, jet.first, jet.second, split


def value(problem: Problem, theta: Array, pivoting: tuple[Array, ...]) -> Array:
    """The criterion at θ."""
    gram = problem.shared.gram(entries(problem, theta, pivoting), problem.response)
    return profiled_deviance(gram, problem.n, problem.reml, problem.known_inside)


def no_pivoting(problem: Problem) -> tuple[Array, ...]:
    """The internal coordinates as they are."""
    return tuple(jnp.asarray(eye) for eye in problem.structure.eyes(problem.n.dtype))


def snap(problem: Problem) -> Callable[[Array], Array]:
    """Sets columns of Λ to exactly zero, from the diagonal on, whose entries are below `BOUNDARY`."""
    columns = itertools.chain(*problem.structure.columns)
    lead = np.arange(problem.structure.n_params)
    may = np.zeros(len(lead), bool)
    for column in columns:
        lead[column], may[column] = column[0], True

    def apply(theta: Array) -> Array:
        small = jnp.abs(theta) < BOUNDARY
        return jnp.where(small & small[lead] & may, 0.0, theta).astype(theta.dtype)

    return apply


def finish(
    problem: Problem,
    inner: Array,
    pivoting: tuple[Array, ...],
    report: Report | None = None,
    split: CriterionParts | None = None,
    bound: Array | None = None,
) -> Estimate:
    """The record of a fit at θ in internal coordinates; evaluates the criterion's parts unless given.

    A report of convergence stands where no direction has negative curvature and, with `bound`, the decrement
    is below it.
    """
    structure, basis, known = problem.structure, problem.basis, problem.known_inside
    m, dtype = structure.n_params, inner.dtype
    d = entries(problem, inner, pivoting)
    if split is None:
        split = evaluate(problem.shared, d, problem.response, problem.reml)
    sigma2 = split.r2.value / problem.nu if known is None else known
    jet, outward = criterion(split, problem.nu, known), outward_map(problem)
    status = jnp.asarray(Status.CONVERGED if report is None else report.status, jnp.int32)
    # what is flat is seen here, as what is not identified
    status = jnp.where(status == Status.FLAT, Status.CONVERGED, status)
    if m:
        there = settled(jet, lambda t: entries(problem, t, pivoting), inner, structure.spans(inner))
        found = information(problem, there, split, d)
        cov, moves = outward @ found.cov @ outward.T, outside(found.moves, structure.sizes(d), outward)
        grad, decrement = jnp.max(jnp.abs(there.gradient)), there.decrement
        certified = ~(there.at.curved | slopes(there))
        if bound is not None:
            certified = certified & (decrement <= bound)
        status = jnp.where((status == Status.CONVERGED) & ~certified, Status.ITERATION_LIMIT, status)
        # along flat directions Newton's steps are rounding: beside them there is nothing left to gain
        at_rest = jnp.any(there.at.flat) & certified & (decrement <= 4 * float(jnp.finfo(dtype).eps) ** 0.875)
        stopped = (status == Status.STALLED) | (status == Status.ITERATION_LIMIT)
        status = jnp.where(stopped & at_rest, Status.CONVERGED, status)
    else:
        cov = spread_of_scale(problem)[None, None]
        moves, grad, decrement = jnp.zeros((1, 0), dtype), 0.0, 0.0
    on_edge = structure.margins(inner, pivoting) < BOUNDARY
    sigma2 = sigma2 * problem.origin.scale**2
    # ψ_c = σ^(2p_c) d_c
    unit = structure.units(sigma2)
    psi = unit * (outward @ jnp.concatenate([d, jnp.ones(1, dtype)]))
    fixed = jnp.logical_or(freely(moves), jnp.append(on_edge, known is not None))
    missing = jnp.logical_or(fixed[:, None], fixed[None, :])
    beta = problem.origin.beta + problem.origin.scale * solve_upper(basis.x_factor, split.fit.beta)
    half = solve_upper(basis.x_factor, split.fit.xx_inv)
    cov_beta = solve_upper(basis.x_factor, half.T) * sigma2
    # no residual variation: rounding leaves ν·eps² of the size of R; known residual variance needs none
    size = 1.0 if structure.residual is None else jnp.exp(split.logdet.value / problem.n)
    exact = split.r2.value * size <= 1e2 * problem.n * float(jnp.finfo(dtype).eps) ** 2
    exact = exact & (known is None) & jnp.isfinite(problem.origin.scale)
    status = jnp.where(exact, Status.PERFECT_FIT, status)
    # nothing is left to estimate where X and Z fit perfectly
    nothing = exact | (status == Status.NOT_FINITE)
    void = jnp.where(nothing, jnp.nan, 0.0).astype(dtype)
    upright = structure.upright(inner, pivoting)
    return Estimate(
        theta=structure.change_basis(upright, basis.outward).astype(dtype) + void,
        psi=psi + void,
        beta=beta + void,
        sigma2=sigma2 + void,
        cov_beta=cov_beta + void,
        cov_psi=jnp.where(missing, jnp.nan, cov * unit[:, None] * unit[None, :]) + void,
        cov_relative=cov + void,
        deviance=jet.value + deviance_shift(problem) + void,
        status=status,
        grad_norm=jnp.asarray(grad, dtype) + void,
        decrement=jnp.asarray(decrement, dtype) + void,
        n_iter=jnp.asarray(1 if report is None else report.n_iter),
        singular=jnp.any(on_edge) & ~nothing,
        moves=jnp.where(nothing, 0.0, moves).astype(dtype),
    )


def outward_map(problem: Problem) -> Array:
    """The (m + 1, m + 1) matrix that takes ψ/σ^(2p) in internal coordinates to the user's."""
    structure, dtype = problem.structure, problem.n.dtype
    m = structure.n_params
    out = jnp.eye(m + 1, dtype=dtype)
    return out.at[:m, :m].set(structure.entry_map(problem.basis.outward).astype(dtype))


estimate_jit = estimate.alone  # type: ignore[attr-defined]
