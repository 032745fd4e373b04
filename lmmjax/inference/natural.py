"""Derivatives of XᵀV⁻¹X and log|V| in the natural covariance parameters ψ = (σ^(2p) d, σ²).

V = sH(d) with s = σ² and d_c = ψ_c s^(−p_c). Along the tangent of V at ψ, in direction τ,

    V + Σ τ_iV_i = s(1 + u)[H + Σ t_cH_c/(1 + u)],   u = τ_s/s,   t_c = s^(−p_c)τ_c − p_cd_cτ_s/s,

so that with S = XᵀH⁻¹X and l = log|H|, and their derivatives along the tangent of H, the first and second
derivatives in (t, u) of F = XᵀV⁻¹X, times s, and the second ones of log|V| are

    S_c,  −S;    S_ce,  −2S_c,  2S;        l_ce,  −l_c,  −n,

and the map τ → (t, u) is linear. Where V is not linear in ψ, R_ij = XᵀV⁻¹(∂_ijV)V⁻¹X is the difference
between the second derivatives of F along the tangent and its own; it depends on the parameters in which V is
written. In others φ(ψ), with G = ∂φ/∂ψ and P_k = ∂_kF, it becomes, in the coordinates of ψ,

    R_kl + Σ_m (∂²φ_m/∂ψ_k∂ψ_l) Σ_j (G⁻¹)_jm P_j.

Everything is in the internal coordinates of the problem: tests do not depend on them, and X̃ is well
conditioned.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace, quick_jit, record
from lmmjax.core import Problem
from lmmjax.core.problem import internal_parameters
from lmmjax.design import solve_upper
from lmmjax.gram import Curve, GramCurve
from lmmjax.inference.sas_parameters import sas_curvature


@record
class Natural:
    """F = X̃ᵀV⁻¹X̃ and log|V| at one ψ, with derivatives in ψ (m + 1,), in internal coordinates.

    Attributes
    ----------
    xx : (p, p) F; first : (m + 1, p, p); second : those in m + 1 directions along the tangent of V.
    logdet_second : (m + 1, m + 1) second derivatives of log|V| along it, −tr(V⁻¹V_iV⁻¹V_j).
    bend : (m + 1, m + 1, p, p) R in the parameters of PROC MIXED; None where V is linear in ψ.
        Second derivatives are for Kenward & Roger, and None if not asked for.
    outward : (p, p) the matrix that takes β̃ to β, less its origin: L in the user's coordinates is
        L · outward here.
    sigma2 : the last element of ψ.
    """

    xx: Array
    first: Array
    second: Curve | None
    logdet_second: Array | None
    bend: Array | None
    outward: Array
    sigma2: Array


@record
class MovedCurve(Curve):
    """Second derivatives of F in ψ, from those of Sxx in d: its directions, Sxx and its first derivatives.

    `to` (m + 1, m + 1) is the map from τ to (t, u), `scale` is s.
    """

    inner: Curve
    value: Array
    first: Array
    to: Array
    scale: Array

    def traced(self, phi: Array) -> Array:
        xp = namespace(phi)
        edge = -2.0 * xp.sum(phi[None] * self.first, axis=(-2, -1))
        bordered = _bordered(self.inner.traced(phi), edge, 2.0 * xp.sum(phi * self.value))
        return self.to.T @ bordered @ self.to / self.scale

    def weighted(self, w: Array) -> Array:
        moved = self.to @ w @ self.to.T
        edge = namespace(w).tensordot(moved[:-1, -1], self.first, axes=1)
        return (
            self.inner.weighted(moved[:-1, :-1]) - 4.0 * edge + 2.0 * moved[-1, -1] * self.value
        ) / self.scale


def internal_point(problem: Problem, psi: Array) -> tuple[Array, Array]:
    """d (m,) and σ² in internal coordinates of ψ (m + 1,) in the user's."""
    return internal_parameters(problem, psi), psi[-1] / problem.origin.scale**2


def natural(problem: Problem, psi: Array, tangent: bool = True, bend: bool = False) -> Natural:
    """Derivatives at ψ (m + 1,), in the user's coordinates; second ones if `tangent`, R if `bend`."""
    d, s = internal_point(problem, psi)
    structure = problem.structure
    powers = structure.powers.astype(d.dtype)
    pick = problem.shared.curve if tangent else problem.shared.jet
    found = pick(d, problem.response)
    value, first = found.value, found.first
    # rows (t, u), columns τ
    to = jnp.concatenate([jnp.diag(s**-powers), (-powers * d / s)[:, None]], axis=1)
    to = (
        jnp.concatenate([to, jnp.zeros_like(to[:1]).at[0, -1].set(1.0 / s)])
        if len(d)
        else 1.0 / s[None, None]
    )

    xx_first = jnp.concatenate([first.xx, -value.xx[None]])
    p, f_first = problem.basis.x_factor.shape[0], jnp.tensordot(to.T, xx_first, axes=1) / s
    outward = problem.origin.scale * solve_upper(problem.basis.x_factor, jnp.eye(p, dtype=d.dtype))
    if not isinstance(found, GramCurve):
        return Natural(value.xx / s, f_first, None, None, None, outward, s)
    twice, curvature = partial(_congruence, to), None
    if bend and not structure.linear:
        second = problem.shared.linear_jet(d, problem.response).second
        straight = twice(_bordered(second.xx, -2.0 * first.xx, 2.0 * value.xx)) / s
        # the second derivatives of F = S(d)/s itself, with the curvature of d in ψ
        own = problem.shared.jet(d, problem.response)
        true = twice(_bordered(own.second.xx, -own.first.xx, 2.0 * value.xx))
        edge = (-powers * s ** (-powers - 1.0))[:, None, None] * own.first.xx
        corner = jnp.tensordot(powers * (powers + 1.0) * d / s**2, own.first.xx, axes=1)
        true = true + _bordered(jnp.zeros_like(second.xx), edge, corner)
        inside = jnp.concatenate([s**powers * d, s[None]])
        turned = jnp.tensordot(sas_curvature(structure, inside), f_first, axes=((0,), (0,)))
        curvature = straight - true / s + turned
    return Natural(
        xx=value.xx / s,
        first=f_first,
        second=MovedCurve(found.xx, value.xx, first.xx, to, s),
        logdet_second=twice(_bordered(found.logdet, -first.logdet, -problem.n)),
        bend=curvature,
        outward=outward,
        sigma2=s,
    )


def _congruence(to: Array, a: Array) -> Array:
    """toᵀ a to over the leading axes of a (m + 1, m + 1, ...)."""
    once = jnp.tensordot(to.T, a, axes=1)
    return jnp.moveaxis(jnp.tensordot(to.T, once, axes=((1,), (1,))), 0, 1)


def _bordered(block: Array, edge: Array, corner: Array) -> Array:
    """(m + 1, m + 1, ...) from the block (m, m, ...), its edge (m, ...) and corner (...)."""
    xp = namespace(block, corner)
    top = xp.concatenate([block, edge[:, None]], axis=1)
    return xp.concatenate([top, xp.concatenate([edge, corner[None]])[None]])


def inward_covariance(problem: Problem, psi: Array, cov: Array) -> Array:
    """Covariance (m + 1, m + 1) of ψ̂ in internal coordinates from `Estimate.cov_relative`."""
    _, s = internal_point(problem, psi)
    unit = problem.structure.units(s).astype(cov.dtype)
    inward = problem.structure.entry_map(problem.basis.inward).astype(cov.dtype)
    inward = jnp.eye(len(unit), dtype=cov.dtype).at[:-1, :-1].set(inward)
    return (inward @ cov @ inward.T) * unit[:, None] * unit[None, :]


def outward_covariance(problem: Problem, psi: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Covariance (m + 1, m + 1) of ψ̂, in units of `cov_relative`, from one in internal coordinates."""
    structure, outward = problem.structure, np.eye(len(psi))
    outward[:-1, :-1] = np.asarray(structure.entry_map(problem.basis.outward))
    unit = 1.0 / structure.units(psi[-1] / np.asarray(problem.origin.scale) ** 2)
    return outward @ (cov * unit[:, None] * unit[None, :]) @ outward.T


def at_estimate(problem: Problem, psi: Array, cov: Array) -> tuple[Natural, Array]:
    """`natural` without second derivatives where V is not linear, and `inward_covariance`."""
    return natural(problem, psi, problem.structure.linear), inward_covariance(problem, psi, cov)


at_estimate_jit = quick_jit(at_estimate)
natural_jit, natural_bent_jit = quick_jit(natural), quick_jit(partial(natural, bend=True))
