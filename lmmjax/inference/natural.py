"""Derivatives of XᵀV⁻¹X and log|V| in the natural covariance parameters ψ = (σ²d, σ²).

V = σ²H(d) with H = R + Σ d_c V_c, so that V = sR + Σ Σ_c V_c is linear in Σ = sd and s = σ². With
F = XᵀV⁻¹X = Sxx(Σ/s)/s and Sxx′_c, Sxx″_ce the derivatives of Sxx in d,

    ∂_c F = Sxx′_c/s²,                      ∂_s F = −(Sxx + Σ d_cSxx′_c)/s²,
    ∂_ce F = Sxx″_ce/s³,                    ∂_cs F = −(2Sxx′_c + Σ d_eSxx″_ce)/s³,
    ∂_ss F = (2Sxx + 4Σ d_cSxx′_c + ΣΣ d_cd_eSxx″_ce)/s³,

and for log|V| = n log s + log|H|, with l′ and l″ the derivatives of log|H|,

    ∂_ce = l″_ce/s²,    ∂_cs = −(l′_c + Σ d_el″_ce)/s²,    ∂_ss = (−n + 2Σ d_cl′_c + ΣΣ d_cd_el″_ce)/s².

Everything is in the internal coordinates of the problem: tests do not depend on them, and X̃ is well
conditioned.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax._compile import quick_jit
from lmmjax._linalg import diagonal
from lmmjax._types import Array, record
from lmmjax.basis import solve_upper
from lmmjax.covariance import Structure
from lmmjax.criterion import Jet, chain, evaluate, variance_information
from lmmjax.estimate import BOUNDARY, entries, masked_inverse
from lmmjax.problem import Problem


@record
class Natural:
    """F = X̃ᵀV⁻¹X̃ and log|V| at one ψ, with derivatives in ψ (m + 1,), in internal coordinates.

    Attributes
    ----------
    xx : (p, p) F; first : (m + 1, p, p); second : (m + 1, m + 1, p, p).
    logdet_second : (m + 1, m + 1) second derivatives of log|V|, −tr(V⁻¹V_iV⁻¹V_j).
    outward : (p, p) the matrix that takes β̃ to β, less its origin: L in the user's coordinates is
        L · outward here.
    """

    xx: Array
    first: Array
    second: Array
    logdet_second: Array
    outward: Array


def internal_point(problem: Problem, psi: Array) -> tuple[Array, Array]:
    """d (m,) and σ² in internal coordinates of ψ (m + 1,) in the user's."""
    inward = problem.structure.entry_map(problem.basis.inward).astype(psi.dtype)
    return inward @ (psi[:-1] / psi[-1]), psi[-1] / problem.origin.scale**2


def natural(problem: Problem, psi: Array) -> Natural:
    """Derivatives at ψ (m + 1,), which is in the user's coordinates."""
    d, s = internal_point(problem, psi)
    jet = problem.shared.jet(d, problem.response)
    value, first, second = jet.value, jet.first, jet.second
    along, l_along = jnp.tensordot(d, second.xx, axes=1), d @ second.logdet
    slope, l_slope = jnp.tensordot(d, first.xx, axes=1), d @ first.logdet
    xx_first = jnp.concatenate([first.xx, -(value.xx + slope)[None]]) / s**2
    mixed = -(2.0 * first.xx + along)
    corner = 2.0 * value.xx + 4.0 * slope + jnp.tensordot(d, along, axes=1)
    ld_mixed = -(first.logdet + l_along)
    ld_corner = 2.0 * l_slope + l_along @ d - problem.n
    p = problem.basis.x_factor.shape[0]
    return Natural(
        xx=value.xx / s,
        first=xx_first,
        second=_bordered(second.xx, mixed, corner) / s**3,
        logdet_second=_bordered(second.logdet, ld_mixed, ld_corner) / s**2,
        outward=problem.origin.scale * solve_upper(problem.basis.x_factor, jnp.eye(p, dtype=d.dtype)),
    )


def _bordered(block: Array, edge: Array, corner: Array) -> Array:
    """(m + 1, m + 1, ...) from the block (m, m, ...), its edge (m, ...) and corner (...)."""
    top = jnp.concatenate([block, edge[:, None]], axis=1)
    return jnp.concatenate([top, jnp.concatenate([edge, corner[None]])[None]])


def inward_covariance(problem: Problem, cov_psi: Array) -> Array:
    """Covariance (m + 1, m + 1) of ψ̂ in internal coordinates; missing entries, those on a boundary, are 0."""
    m = cov_psi.shape[0] - 1
    inward = problem.structure.entry_map(problem.basis.inward).astype(cov_psi.dtype)
    scale = problem.origin.scale**2
    known = jnp.where(jnp.isnan(cov_psi), 0.0, cov_psi).astype(cov_psi.dtype) / scale**2
    block, edge = inward @ known[:m, :m] @ inward.T, inward @ known[:m, m]
    return _bordered(block, edge, known[m, m])


def at_estimate(problem: Problem, psi: Array, cov_psi: Array) -> tuple[Natural, Array]:
    """`natural` and `inward_covariance`."""
    return natural(problem, psi), inward_covariance(problem, cov_psi)


def boundary_covariance(problem: Problem, psi: Array) -> Array:
    """Asymptotic covariance (m + 1, m + 1) of ψ̂ in internal coordinates, of lower rank on a boundary.

    With φ = (θ, σ²), ψ = ψ(φ) and f the criterion, it is T(½ ∂²f/∂φ²)⁻¹Tᵀ, T = ∂ψ/∂φ. A θ in a column of Λ
    that is zero is held fixed: there T vanishes, as ψ is quadratic in it. Inside the parameter space this
    is the inverse observed information of ψ, and where a term is a single variance, zero fixes it.
    """
    structure = problem.structure
    d, _ = internal_point(problem, psi)
    split = evaluate(problem.shared, d, problem.response, problem.reml)
    information, s = variance_information(split, problem.nu, d)
    slope = (split.logdet.first + split.r2.first / s) / s
    jet = Jet(split.r2.value, jnp.concatenate([slope, -(slope @ d)[None]]), 2.0 * information)
    theta, turns = structure.pivoted(d)

    def outward(phi: Array) -> Array:
        return jnp.concatenate([phi[-1] * entries(problem, phi[:-1], turns), phi[-1:]])

    phi = jnp.concatenate([theta, s[None]])
    edges = [
        jnp.broadcast_to((jnp.abs(diagonal(f)) < BOUNDARY)[None, :], f.shape).astype(d.dtype)
        for f in structure.factors(theta)
    ]
    fixed = jnp.concatenate([structure.params(tuple(edges)).astype(d.dtype), jnp.zeros(1, d.dtype)]) > 0.5
    cov = masked_inverse(0.5 * chain(jet, outward, phi).second, fixed)
    tangent = jax.jacfwd(outward)(phi)
    return tangent @ cov @ tangent.T


def on_inner_boundary(structure: Structure, cov_psi: np.ndarray) -> np.ndarray:
    """Whether `boundary_covariance` is needed (...): a singular term has more than a single variance.

    Parameters
    ----------
    cov_psi : (..., m + 1, m + 1) with missing rows for terms on the boundary.
    """
    missing = np.isnan(np.diagonal(cov_psi, axis1=-2, axis2=-1))
    wide = np.concatenate([np.repeat(len(t.entries) > 1, len(t.entries)) for t in structure.terms] or [[]])
    return np.any(missing[..., :-1] & wide.astype(bool), axis=-1)


at_estimate_jit, boundary_covariance_jit = quick_jit(at_estimate), quick_jit(boundary_covariance)
