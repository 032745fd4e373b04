"""Prediction errors of linear functions of β, b and residuals that are yet to come, with derivatives.

For t = xᵀβ + aᵀb + e, with a residual e of variance τ and covariances ρ with those of the rows, the best
linear unbiased predictor t̂ = λᵀy has, by the inverse C of the mixed-model equations (`mixed_equations`),

    Var(t̂ − t) = κ + (x̃, ã)ᵀC(x̃, ã),     x̃ = x − X*ᵀρ*,  ã = a − Z*ᵀρ*,  κ = τ − ρ*ᵀρ*,  ρ* = Wρ,
               = κ + ãᵀΛM⁻¹Λᵀã + hᵀΦh,      h = x̃ − X*ᵀZ*ΛM⁻¹Λᵀã.

λ makes it least among unbiased predictors, so that its derivatives in ψ are those at λ held,

    ∂_c Var(t̂ − t) = wᵀ(∂_cG)w + λᵀ(∂_cR)λ − 2λᵀ∂_cρ + ∂_cτ,
    w = a − Zᵀλ = ã − Z*ᵀZ*Λs − Tg,     λ = Wᵀζ,   ζ = ρ* + Z*Λs + X°g,     s = M⁻¹Λᵀã,  g = Φh,

and the one in σ² follows from all being proportional to V: Σ p_cψ_c∂_c + σ²∂_σ² = 1 · Var(t̂ − t).

Tg and X°g have entries in all parts of the data; those in others than the target's enter by sums made once.

Sources: Henderson (1975), doi:10.2307/2529430; Robinson (1991), doi:10.1214/ss/1177011926.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmmjax.core.mixed_equations import MixedEquations
from lmmjax.core.targets import Local, Targets, blocks, given_residuals, near


@dataclass(frozen=True, eq=False)
class Errors:
    """Variances of prediction errors (k,) and their derivatives (k, m) in ψ, without the last, σ²."""

    variance: np.ndarray
    slopes: np.ndarray

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.variance + other.variance, self.slopes + other.slopes)

    def gradient(self, psi: np.ndarray, powers: np.ndarray) -> np.ndarray:
        """Derivatives (k, m + 1) in ψ, for variances that are proportional to V."""
        rest = self.variance - self.slopes @ (powers * psi[:-1])
        return np.column_stack([self.slopes, rest / psi[-1]])


def prediction_errors(equations: MixedEquations, targets: Targets) -> Errors:
    """Variances of t̂ − t and their derivatives."""
    e, k, m = equations, len(targets), equations.design.structure.n_params
    given = given_residuals(e, targets)
    h, inner, slopes = given.x.copy(), np.zeros(k), np.zeros((k, m))
    beside = near(e, given)
    for block in blocks(beside.equations, beside.given):
        at, local = block.targets, Local(beside.equations, block, beside.given)
        inner[at] = block.columns.sum(local.b * local.s)
        h[at] -= block.columns.products(beside.equations.zx, local.absorbed)
        crossed = [slope[at][:, beside.rows] for slope in targets.cross_slopes]
        slopes[at] = _local_slopes(local, crossed, h[at] @ e.phi)
    g = h @ e.phi
    slopes += _everywhere(e, g)
    if targets.variance_slopes is not None:
        slopes[:, e.design.structure.tail] += targets.variance_slopes
    return Errors(given.variance + inner + np.sum(h * g, axis=1), slopes)


def marginal_errors(equations: MixedEquations, term: int, z: np.ndarray) -> Errors:
    """Variances zᵀGz of a level that nothing is known of, for z (k, q) in the user's coordinates."""
    z = z @ equations.outward[term]
    s, units = equations.covariance_slopes[term]
    slopes = np.zeros((len(z), equations.design.structure.n_params))
    slopes[:, s] = np.einsum("ka,cab,kb->kc", z, units, z)
    return Errors(np.einsum("ka,ab,kb->k", z, equations.covariance(term), z), slopes)


def _local_slopes(local: Local, crossed: list[Any], g: np.ndarray) -> np.ndarray:
    """Derivatives (k, m) for the block, less those of Tg and X°g alone, which `_everywhere` has.

    `crossed` are the derivatives (k, n) of ρᵀ in the parameters of residuals.
    """
    e, columns, rows = local.equations, local.block.columns, local.block.rows
    out = np.zeros((len(g), e.design.structure.n_params))
    own = columns.combined(e.tx, g)
    w = local.w - own
    for k, (s, units) in enumerate(e.covariance_slopes):
        q, at = units.shape[-1], e.columns(k)
        parts = replace(columns, parts=columns.parts[at][::q])
        inside, alone = (v[at].reshape(-1, q, v.shape[1]) for v in (w, own))
        for i in range(q):
            for j in range(i + 1):
                sums = parts.sum(inside[:, i] * inside[:, j] - alone[:, i] * alone[:, j])
                twice = 1.0 if i == j else 2.0
                out[:, s] += twice * sums[:, None] * units[:, i, j]
    if e.slopes is None:
        return out
    own = rows.combined(e.weighted_x, g)
    zeta, tail = local.zeta + own, e.design.structure.tail
    for c, (moved, alone) in enumerate(
        zip(e.slopes.moved(zeta), e.slopes.moved(own), strict=True), tail.start
    ):
        out[:, c] += rows.sum(zeta * moved - own * alone)
    if crossed:
        weights = e.root.T @ zeta
        for c, slope in enumerate(crossed, tail.start):
            slope = slope.tocoo()
            row, at = slope.coords
            out[:, c] -= 2.0 * np.bincount(row, slope.data * weights[at, rows.slot[row]], minlength=len(out))
    return out


def _everywhere(e: MixedEquations, g: np.ndarray) -> np.ndarray:
    """gᵀTᵀ(∂_cG)Tg and (X°g)ᵀK_c(X°g), (k, m)."""
    out = np.zeros((len(g), len(e.information_slopes)))
    for c, slope in enumerate(e.information_slopes):
        out[:, c] = np.sum((g @ slope) * g, axis=1)
    return out
