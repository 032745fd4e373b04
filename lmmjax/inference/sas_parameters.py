"""The parameters in which PROC MIXED writes a covariance, as functions of ψ.

Equal variances with free correlations (CS, TOEP) are variances and covariances, in which V is linear; unequal
ones (CSH, TOEPH, ARH(1), UNR) are variances and correlations; autoregressions and functions of distance have
σ² and their own ρ or range; ARMA(1, 1) has ρ and γ, the correlation at distance 1; a nugget is a variance.
Structures that PROC MIXED does not have keep their own parameters.

Source: SAS/STAT User's Guide, The MIXED Procedure, table of covariance structures (REPEATED statement).
"""

from __future__ import annotations

import jax.numpy as jnp

from lmmjax.arrays import Array, derivatives
from lmmjax.design import Structure
from lmmjax.residual import ARMA, Correlation, ResidualStructure, VarIdent


def sas_parameters(structure: Structure, psi: Array) -> Array:
    """φ (m + 1,) in the order of ψ (m + 1,), up to a linear map."""
    out = []
    for term, at in zip(structure.terms, structure.slices(), strict=True):
        own = psi[at]
        out.append(jnp.concatenate([own[:1], own[0] * own[1:]]) if term.family.covariances else own)
    if structure.residual is not None:
        out.append(_residual(structure.residual, psi[structure.tail], psi[-1]))
    return jnp.concatenate([*out, psi[-1:]])


def _residual(structure: ResidualStructure, own: Array, sigma2: Array) -> Array:
    residual, out = structure.residual, []
    for block in structure.blocks:
        part = residual.parts[block.part]
        scale, r = block.split(own)
        variance = sigma2 * scale[0] ** 2 if block.scale else sigma2
        if isinstance(part, Correlation) and not residual.variances:
            if part.covariances:
                r = variance * r
            elif getattr(part, "nugget", False):
                r = jnp.concatenate([r[:-1], variance * r[-1:]])
            elif isinstance(part, ARMA) and (part.p, part.q) == (1, 1):
                gamma = (1.0 + r[0] * r[1]) * (r[0] + r[1]) / (1.0 + 2.0 * r[0] * r[1] + r[1] ** 2)
                r = jnp.stack([r[0], gamma])
        elif isinstance(part, VarIdent):
            r = variance * r**2
        out += [sigma2 * scale**2, r]
    return jnp.concatenate([*out, own[:0]])


def sas_curvature(structure: Structure, psi: Array) -> Array:
    """C (m + 1, m + 1, m + 1) with C_jkl = Σ_m (G⁻¹)_jm ∂²φ_m/∂ψ_k∂ψ_l, G = ∂φ/∂ψ."""

    def phi(psi: Array) -> Array:
        return sas_parameters(structure, psi)

    _, g, curve = derivatives(phi, psi)
    # a correlation beside a variance of zero is held fixed: its covariance is zero, whatever stands here
    scale = jnp.diagonal(g)
    scale = jnp.where(scale == 0.0, 1.0, scale)
    # G = D(I + N), N³ = 0: a parameter involves variances, and these no more than σ²
    n = g / scale[:, None] - jnp.eye(len(psi), dtype=psi.dtype)
    once = curve / scale[:, None, None]
    twice = jnp.tensordot(n, once, axes=1)
    return once - twice + jnp.tensordot(n, twice, axes=1)
