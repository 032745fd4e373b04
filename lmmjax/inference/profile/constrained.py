"""Profile likelihood: the criterion minimised over all parameters but one or two.

Unprofiled in σ² (τ = log σ²), and minimised over β, the criterion is

    F(d, τ) = ν(log 2π + τ) + log|H| + κ log|Sxx| + r² e^−τ.

A `Chart` chooses coordinates in which the parameters of interest are coordinates themselves, so that holding
them fixed is leaving them out of Newton's step (`layout.py`). A fixed β_j is a linear constraint on β, which
restricts the Gram to a plane.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit, record
from lmmjax.core import Problem
from lmmjax.core.criterion import Jet, chain, parts
from lmmjax.core.problem import deviance_shift
from lmmjax.covariance.toeplitz import Toeplitz
from lmmjax.design import Structure
from lmmjax.gram import Gram, GramJet
from lmmjax.optimize import newton
from lmmjax.residual import ARMA, Unstructured
from lmmjax.residual import Toeplitz as Lags

LN2PI = float(np.log(2.0 * np.pi))

TOLERANCE = 1e-12
"""Newton decrement of a constrained optimum, in units of the criterion."""

MOST = 100
"""Evaluations on the way to one."""


@record
class Bends:
    """Which coordinate of a residual or patterned structure stands for a parameter itself; all (m + 1,).

    Attributes
    ----------
    tangent : the coordinate is arcsin of a correlation r, its working value r/√(1 − r²).
    product, lead : the coordinate is a covariance L₁₁L₂₁, its working value L₂₁; `lead` picks L₁₁.
    solved : the coordinate is arcsin((r − middle)/half) of a parameter that is affine in the sine of its own
        working value: an autocorrelation, or a coefficient of an autoregression, in its partial one.
    """

    tangent: Array
    product: Array
    lead: Array
    solved: Array
    middle: Array
    half: Array


@record
class Chart:
    """Coordinates x (m + 1,): entries of L for unstructured and diagonal terms, working values, then τ.

    Attributes
    ----------
    maps : per term (q, q), from the coordinates of L to internal ones; per frame of the residuals an order.
    radius, angle : (m + 1,) unit vectors of the two polar coordinates; zero if there are none.
    bends : None where all terms are unstructured or diagonal and residuals independent.
    plane : (p, p) projector on the directions of β̃ that are free.
    point : (p,) the rest of β̃.
    """

    maps: tuple[Array, ...]
    radius: Array
    angle: Array
    bends: Bends | None
    plane: Array
    point: Array


@record
class Point:
    """A constrained optimum: coordinates x (m + 1,), what they stand for, β̃ (p,), criterion f, status.

    `natural` (m + 1,) are d and τ in internal units. Derivatives leave the constraint out: `gradient`
    (m + 1,) and `hessian` (m + 1, m + 1) in x, `score` (p,) in β̃. `decrement` is Newton's, of the free
    coordinates.
    """

    x: Array
    natural: Array
    beta: Array
    f: Array
    gradient: Array
    hessian: Array
    score: Array
    decrement: Array
    status: Array


def anchored(structure: Structure) -> bool:
    """Whether σ² is a variance of the free covariance matrix of the residuals."""
    own = structure.residual
    return own is not None and isinstance(own.residual.correlation, Unstructured)


def framed(structure: Structure) -> bool:
    """Whether residuals have a free matrix of covariances or correlations."""
    own = structure.residual
    return own is not None and own.residual.correlation is not None and own.residual.correlation.framed


def affine(structure: Structure) -> bool:
    """Whether working values are of partial autocorrelations, in a term or the residuals."""
    own = structure.residual
    terms = any(isinstance(term.family, Toeplitz) for term in structure.terms)
    return terms or (own is not None and isinstance(own.residual.correlation, Lags | ARMA))


def working(x: Array, chart: Chart, structure: Structure) -> Array:
    """Working values (m + 1,), τ last, at the coordinates x (m + 1,)."""
    r, a = x @ chart.radius, x @ chart.angle
    raw = x + chart.radius * (r * jnp.sin(a) - r) + chart.angle * (r * jnp.cos(a) - a)
    b = chart.bends
    if b is None:
        return raw
    if framed(structure):
        tangent, product = b.tangent > 0, b.product > 0
        raw = jnp.where(tangent, jnp.tan(jnp.where(tangent, x, 0.0)), raw)
        raw = jnp.where(product, x / jnp.where(jnp.any(product), x @ b.lead, 1.0), raw)
    if affine(structure):
        chosen, some = b.solved > 0, jnp.any(b.solved > 0)
        # r = A + B sin θ
        low, high = (
            b.solved[:-1] @ structure.decode(jnp.where(chosen, end, raw)[:-1], chart.maps)
            for end in (0.0, 0.5 * np.pi)
        )
        inside = (b.middle + b.half * jnp.sin(b.solved @ x) - low) / jnp.where(some, high - low, 1.0)
        raw = jnp.where(chosen, jnp.arcsin(jnp.where(some, inside, 0.0)), raw)
    return raw.astype(x.dtype)


def natural(x: Array, chart: Chart, problem: Problem) -> Array:
    """(d, τ) at the coordinates x (m + 1,)."""
    structure = problem.structure
    raw = working(x, chart, structure)
    psi, tau = structure.decode(raw[:-1], chart.maps), raw[-1]
    own = structure.residual
    if own is not None and isinstance(own.residual.correlation, Unstructured):
        # LLᵀ is the covariance matrix itself, whose first variance is σ²
        at = structure.tail.start + np.arange(own.n_params)[own.blocks[0].at]
        entries = jnp.concatenate([raw[-1:], raw[at]])
        whole = own.residual.correlation.decode(entries, own.space, chart.maps[len(structure.terms)])
        psi, tau = psi.at[at].set(whole[1:]), jnp.log(whole[0])
    powers = structure.powers.astype(x.dtype)
    return jnp.concatenate([psi * jnp.exp(-powers * tau), tau[None]])


def on_plane(gram: Gram, chart: Chart) -> Gram:
    """The Gram of y − X̃ point and X̃ plane; leading axes of derivatives are kept."""
    p, c = chart.plane, chart.point
    xc = gram.xx @ c
    xx = jnp.einsum("ij,...jk,kl->...il", p, gram.xx, p)
    return Gram(gram.logdet, xx, (gram.xy - xc) @ p, gram.yy - 2.0 * (gram.xy @ c) + xc @ c)


def unprofiled(x: Array, chart: Chart, problem: Problem) -> tuple[Jet, Array, Array, Array]:
    """F with its derivatives in x (m + 1,); β̃ (p,) that minimises it on the plane, its score; (d, τ)."""
    at = natural(x, chart, problem)
    free = problem.shared.jet(at[:-1], problem.response)
    jet = GramJet(*(on_plane(g, chart) for g in (free.value, free.first, free.second)))
    # the fixed directions get a unit block, so that Sxx keeps its shape
    block = jnp.eye(chart.plane.shape[0], dtype=x.dtype) - chart.plane
    jet = dataclasses.replace(jet, value=dataclasses.replace(jet.value, xx=jet.value.xx + block))
    split = parts(jet, problem.reml)
    precision, ld, r2 = jnp.exp(-at[-1]), split.logdet, split.r2
    mixed = -r2.first * precision
    corner = r2.value * precision
    value = problem.nu * (LN2PI + at[-1]) + ld.value + corner
    first = jnp.concatenate([ld.first - mixed, (problem.nu - corner)[None]])
    top = jnp.concatenate([ld.second + r2.second * precision, mixed[:, None]], axis=1)
    second = jnp.concatenate([top, jnp.concatenate([mixed, corner[None]])[None]])
    beta = split.fit.beta + chart.point
    score = 2.0 * (free.value.xx @ beta - free.value.xy) * precision
    return chain(Jet(value, first, second), lambda t: natural(t, chart, problem), x), beta, score, at


def constrained(problem: Problem, chart: Chart, x: Array, fixed: Array) -> Point:
    """Minimise F over the coordinates that are not fixed: pure, starts at x (m + 1,).

    Parameters
    ----------
    fixed : (m + 1,) booleans.
    """
    constant = fixed.astype(x.dtype)
    free = 1.0 - constant

    def objective(x, _):
        jet, beta, score, at = unprofiled(x, chart, problem)
        hessian = jet.second * (free[:, None] * free[None, :]) + jnp.diag(constant)
        # what F does not depend on, as a correlation where its variance is fixed at zero, stays
        idle = jnp.all(hessian == 0.0, axis=1).astype(x.dtype)
        hessian = hessian + jnp.diag(idle)
        return jet.value, jet.first * free, hessian, (jet.first, jet.second, beta, score, at)

    entry = jnp.asarray(may_vanish(problem.structure)) & ~fixed & (chart.angle == 0.0)

    def snap(below):
        return lambda x: jnp.where(entry & (jnp.abs(x) < below), 0.0, x).astype(x.dtype)

    aux = jnp.zeros_like(x), jnp.diag(x), chart.point, chart.point, x
    snaps = snap(0.05), snap(1e-4)
    state = newton(objective, x, max_iter=MOST, tol=TOLERANCE, projections=snaps, aux=aux)
    gradient, hessian, beta, score, at = state.aux
    f = state.f + deviance_shift(problem)
    return Point(state.x, at, beta, f, gradient, hessian, score, state.decrement, state.status)


def may_vanish(structure: Structure) -> np.ndarray:
    """(m + 1,) coordinates of which an exact zero may be tried: entries of L, and smooth variances."""
    smooth = np.array([p.smooth for p in structure.parameters], bool)
    smooth[structure.components] = True
    return np.append(smooth, False)


constrained_jit = quick_jit(constrained)
