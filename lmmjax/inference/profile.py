"""Profile likelihood: the criterion minimised over all parameters but one or two.

Unprofiled in σ² (τ = log σ²), and minimised over β, the criterion is

    F(d, τ) = ν(log 2π + τ) + log|H| + κ log|Sxx| + r² e^−τ.

A `Chart` chooses coordinates in which the parameters of interest are coordinates themselves, so that holding
them fixed is leaving them out of Newton's step. With coefficient i of a term taken first, Σ = LLᵀ has
sd_i = L₁₁; with i, j first and row 2 in polar form, L₂₁ = r sin a and L₂₂ = r cos a, it has sd_j = r and
cor_ij = sin a. A fixed β_j is a linear constraint on β, which restricts the Gram to a plane.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit, record
from lmmjax.core import Problem
from lmmjax.core.criterion import Jet, chain, parts
from lmmjax.core.problem import deviance_shift
from lmmjax.gram import Gram, GramJet
from lmmjax.optimize import newton

LN2PI = float(np.log(2.0 * np.pi))

TOLERANCE = 1e-12
"""Newton decrement of a constrained optimum, in units of the criterion."""


@record
class Chart:
    """Coordinates x (m + 1,): entries of L for all terms, then τ.

    Attributes
    ----------
    inward : per term (q, q), from the coordinates of L to internal ones.
    radius, angle : (m + 1,) unit vectors of the two polar coordinates; zero if there are none.
    plane : (p, p) projector on the directions of β̃ that are free.
    point : (p,) the rest of β̃.
    """

    inward: tuple[Array, ...]
    radius: Array
    angle: Array
    plane: Array
    point: Array


@record
class Point:
    """A constrained optimum: coordinates x (m + 1,), β̃ (p,), criterion f, status.

    Derivatives leave the constraint out: `gradient` (m + 1,) and `hessian` (m + 1, m + 1) in x, `score` (p,)
    in β̃.
    """

    x: Array
    beta: Array
    f: Array
    gradient: Array
    hessian: Array
    score: Array
    status: Array


def natural(x: Array, chart: Chart, problem: Problem) -> Array:
    """(d, τ) at the coordinates x (m + 1,)."""
    r, a = x @ chart.radius, x @ chart.angle
    raw = x + chart.radius * (r * jnp.sin(a) - r) + chart.angle * (r * jnp.cos(a) - a)
    d = problem.structure.decode(raw[:-1], chart.inward)
    return jnp.concatenate([d * jnp.exp(-raw[-1]), raw[-1:]])


def on_plane(gram: Gram, chart: Chart) -> Gram:
    """The Gram of y − X̃ point and X̃ plane; leading axes of derivatives are kept."""
    p, c = chart.plane, chart.point
    xc = gram.xx @ c
    xx = jnp.einsum("ij,...jk,kl->...il", p, gram.xx, p)
    return Gram(gram.logdet, xx, (gram.xy - xc) @ p, gram.yy - 2.0 * (gram.xy @ c) + xc @ c)


def unprofiled(x: Array, chart: Chart, problem: Problem) -> tuple[Jet, Array, Array]:
    """F with its derivatives in x (m + 1,); the β̃ (p,) that minimises it on the plane, and its score (p,)."""
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
    return chain(Jet(value, first, second), lambda t: natural(t, chart, problem), x), beta, score


def constrained(problem: Problem, chart: Chart, x: Array, fixed: Array, max_iter: int = 100) -> Point:
    """Minimise F over the coordinates that are not fixed: pure, starts at x (m + 1,).

    Parameters
    ----------
    fixed : (m + 1,) booleans.
    """
    constant = fixed.astype(x.dtype)
    free = 1.0 - constant

    def objective(x, _):
        jet, beta, score = unprofiled(x, chart, problem)
        hessian = jet.second * (free[:, None] * free[None, :]) + jnp.diag(constant)
        return jet.value, jet.first * free, hessian, (jet.first, jet.second, beta, score)

    entry = jnp.asarray(np.arange(x.shape[0]) < x.shape[0] - 1) & ~fixed & (chart.angle == 0.0)

    def snap(below):
        return lambda x: jnp.where(entry & (jnp.abs(x) < below), 0.0, x).astype(x.dtype)

    aux = jnp.zeros_like(x), jnp.diag(x), chart.point, chart.point
    snaps = snap(0.05), snap(1e-4)
    state = newton(objective, x, max_iter=max_iter, tol=TOLERANCE, projections=snaps, aux=aux)
    gradient, hessian, beta, score = state.aux
    f = state.f + deviance_shift(problem)
    return Point(state.x, beta, f, gradient, hessian, score, state.status)


constrained_jit = quick_jit(constrained, static_argnames="max_iter")
