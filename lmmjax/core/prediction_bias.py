"""What the estimation of variance parameters adds to the variance of a prediction error, in second order.

With k_c = ∂_c Cov(y, t) − (∂_cV)λ the best linear unbiased predictor moves by yᵀPk_c with parameter c. The
variance of its error at ψ̂ is larger than at ψ by tr(AK), K_cd = k_cᵀPk_d, A = cov(ψ̂), and what
is computed at ψ̂ is smaller than at ψ by as much in expectation, so that 2 tr(AK) is added. For functions
of β alone this is what Kenward and Roger add. In whitened vectors

    k*_c = Z*(∂_cG)w,  or  W∂_cρ − K_cζ,       P* = H*⁻¹ − X°ΦX°ᵀ,   H*⁻¹ = I − Z*ΛM⁻¹ΛᵀZ*ᵀ,

and that of σ² follows from the others, because V is proportional to all: σ²Pk_σ² = −Σ p_cψ_cPk_c.

Sources: Kackar & Harville (1984, doi:10.1080/01621459.1984.10477102); Prasad & Rao (1990,
doi:10.1080/01621459.1990.10475320); Kenward & Roger (2009, doi:10.1016/j.csda.2008.12.013).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lmmjax.core.mixed_equations import MixedEquations
from lmmjax.core.targets import Local, Targets, blocks, given_residuals, near

FLAT = 1e-14
"""Eigenvalues of A below this share of the largest are rounding."""


def estimation_errors(equations: MixedEquations, targets: Targets, cov_psi: np.ndarray) -> np.ndarray:
    """2 tr(AK) (k,) of targets, for the covariance A (m + 1, m + 1) of ψ̂."""
    e, ways = equations, _directions(equations, cov_psi)
    given = given_residuals(e, targets)
    h = given.x.copy()
    # −k*_c = Y_cg outside the part of a target
    fixed = _combined(_moved(e, e.tx, e.weighted_x), ways)
    solved = [_in_metric(e, y) for y in fixed]
    crossed = [e.weighted_x.T @ y for y in fixed]
    out, beside = np.zeros(len(targets)), near(e, given)
    inside = beside.equations
    for block in blocks(inside, beside.given, layers=2 * (1 + len(fixed))):
        at, local, rows = block.targets, Local(inside, block, beside.given), block.rows
        h[at] -= block.columns.products(inside.zx, local.absorbed)
        g = h[at] @ e.phi
        own = _combined(_own(local, [slope[at][:, beside.rows] for slope in targets.cross_slopes]), ways)
        for k, y, s in zip(own, solved, crossed, strict=True):
            apart = rows.products(y[beside.rows], k)
            out[at] += rows.sum(k * _in_metric(inside, k)) - 2.0 * np.sum(apart * g, axis=1)
            fixed_part, rest = rows.products(inside.weighted_x, k), g @ s.T
            out[at] -= np.einsum("kp,pr,kr->k", fixed_part, e.phi, fixed_part - 2.0 * rest)
    g = h @ e.phi
    for y, there, s in zip(fixed, solved, crossed, strict=True):
        out += np.einsum("kp,pr,kr->k", g, y.T @ there - s.T @ e.phi @ s, g)
    return 2.0 * out


def _directions(e: MixedEquations, cov_psi: np.ndarray) -> np.ndarray:
    """B (m, r) with BBᵀ the covariance of ψ̂ as seen by the k of all parameters but σ²."""
    rest = -(e.design.structure.powers * e.psi[:-1]) / e.psi[-1]
    to = np.column_stack([np.eye(len(rest)), rest])
    # in units of each parameter's own spread
    cov = to @ cov_psi @ to.T
    unit = np.sqrt(np.maximum(np.diagonal(cov), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(cov / unit[:, None] / unit[None, :])
    kept = values > FLAT * values.max(initial=0.0)
    return unit[:, None] * vectors[:, kept] * np.sqrt(values[kept])


def _combined(moved: Iterator[np.ndarray], ways: np.ndarray) -> list[np.ndarray]:
    """Σ_c B_cr k_c (n, k) for every direction r."""
    out: list[np.ndarray] = []
    for k, row in zip(moved, ways, strict=True):
        out = [w * k for w in row] if not out else [o + w * k for o, w in zip(out, row, strict=True)]
    return out


def _moved(e: MixedEquations, w: np.ndarray, zeta: np.ndarray) -> Iterator[np.ndarray]:
    """Z*(∂_cG)w for w (N, k), then K_cζ for ζ (n, k): one parameter after the other."""
    for k, (_, units) in enumerate(e.covariance_slopes):
        own = w[e.columns(k)].reshape(-1, units.shape[-1], w.shape[1])
        for unit in units:
            yield e.z[:, e.columns(k)] @ (unit @ own).reshape(-1, w.shape[1])
    if e.slopes is not None:
        yield from e.slopes.moved(zeta)


def _own(local: Local, crossed: list[Any]) -> Iterator[np.ndarray]:
    """k*_c (n, width) in the parts of the targets, without Tg and X°g; `crossed` (k, n) are ∂_cρᵀ."""
    e = local.equations
    n_random = e.design.structure.tail.start
    zeta = local.zeta if e.slopes is not None else np.zeros((0, 0))
    for c, moved in enumerate(_moved(e, local.w, zeta)):
        if c < n_random:
            yield moved
        elif crossed:
            yield local.block.rows.spread(crossed[c - n_random] @ e.root.T) - moved
        else:
            yield -moved


def _in_metric(e: MixedEquations, k: np.ndarray) -> np.ndarray:
    """H*⁻¹k (n, ...)."""
    return k - e.z @ (e.factor @ e.solve(e.factor.T @ (e.z.T @ k)))
