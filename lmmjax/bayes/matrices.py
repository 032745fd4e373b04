"""Free covariance matrices on the real line: standard deviations, partial correlations; their prior density.

Coordinates are one a standard deviation and one a partial correlation ρ = tanh z of coefficients i > k given
the first k, k outermost. The correlation matrix is R = LLᵀ with rows of L

    L_ik = ρ_ik Π_{l<k} √(1 − ρ_il²),     L_ii = Π_{l<i} √(1 − ρ_il²),     |R| = Π (1 − ρ²),

so that Σ = (SL)(SL)ᵀ, S = diag(τ). The Jacobians are

    |dΣ/d(τ, R)| = Π 2τ_i^q,     |dR/dρ| = Π (1 − ρ_ik²)^((q−2−k)/2),     dρ/dz = 1 − ρ².

Source: Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, diagonal, psd_cholesky, record
from lmmjax.bayes.priors import BlockPrior, SeparatePrior


@record
class Block:
    """A covariance matrix: standard deviations (q,), correlations (q, q), log(1 − ρ²) of every pair."""

    sds: Array
    correlation: Array
    rests: tuple[Array, ...]

    @property
    def covariance(self) -> Array:
        """Σ (q, q)."""
        return self.correlation * (self.sds[:, None] * self.sds[None, :])


MatrixPrior = SeparatePrior | BlockPrior


def pairs(q: int) -> list[tuple[int, int]]:
    """The partial correlations (i, k) of q coefficients in the order of u."""
    return [(i, k) for k in range(q) for i in range(k + 1, q)]


def has_correlations(prior: MatrixPrior) -> bool:
    """Whether the matrix is unstructured, not diagonal."""
    return isinstance(prior, BlockPrior) or prior.correlation is not None


def width(prior: MatrixPrior, q: int, known: int) -> int:
    """Number of coordinates of a matrix of which `known` standard deviations come from elsewhere."""
    return q - known + (len(pairs(q)) if has_correlations(prior) else 0)


def from_line(u: Array, prior: MatrixPrior, q: int, lead: Array) -> tuple[Block, Array]:
    """The matrix of u (k,) and log |d(τ, ρ)/du|; its first standard deviations are `lead` (l,)."""
    moved = [scalar.from_line(u[j]) for j, scalar in enumerate(prior.scalars(q - len(lead)))]
    tau = jnp.concatenate([lead, *(value[None] for value, _ in moved)])
    jacobian = sum([slope for _, slope in moved], jnp.zeros((), u.dtype))
    matrix, rests = jnp.eye(q, dtype=u.dtype), ()
    if has_correlations(prior) and q > 1:
        matrix, rests = correlation(u[q - len(lead) :], q)
        # dρ/dz = 1 − ρ²
        jacobian = jacobian + sum(rests)
    return Block(tau, matrix, rests), jacobian


def to_line(block: Block, prior: MatrixPrior, known: int) -> Array:
    """u (k,), the inverse of `from_line` for `known` standard deviations that come from elsewhere."""
    q = block.sds.shape[0]
    scalars = prior.scalars(q - known)
    out = [scalar.to_line(t) for scalar, t in zip(scalars, block.sds[known:], strict=True)]
    if has_correlations(prior):
        factor = psd_cholesky(block.correlation, 0.0)
        for i, k in pairs(q):
            out.append(jnp.arctanh(factor[i, k] / jnp.sqrt(1.0 - jnp.sum(factor[i, :k] ** 2))))
    return jnp.concatenate([*(u[None] for u in out), block.sds[:0]])


def of_covariance(matrix: Array) -> Block:
    """The record of a positive definite Σ (q, q)."""
    q, tau = matrix.shape[0], jnp.sqrt(diagonal(matrix))
    scaled = matrix / (tau[:, None] * tau[None, :])
    factor = psd_cholesky(scaled, 0.0)
    # 1 − ρ_ik² = (1 − Σ_{l≤k} L_il²)/(1 − Σ_{l<k} L_il²)
    left = jnp.concatenate(
        [jnp.ones((q, 1), matrix.dtype), jnp.maximum(1.0 - jnp.cumsum(factor**2, axis=1), 1e-300)], axis=1
    )
    rests = tuple(jnp.log(left[i, k + 1]) - jnp.log(left[i, k]) for i, k in pairs(q))
    return Block(tau, scaled, rests)


def log_density(block: Block, prior: MatrixPrior) -> Array:
    """log p(τ, ρ) of the standard deviations that have a prior, and partial correlations."""
    q = block.sds.shape[0]
    places = [k for _, k in pairs(q)]
    if isinstance(prior, SeparatePrior):
        own = block.sds[q - len(prior.sds) :]
        zero = jnp.zeros((), block.sds.dtype)
        total = sum([p.log_density(t) for p, t in zip(prior.sds, own, strict=True)], zero)
        if prior.correlation is not None and q > 1:
            rests = zip(places, block.rests, strict=True)
            total = total + sum(prior.correlation.log_density(k, q, rest) for k, rest in rests)
        return total
    # |dΣ/d(τ, R)| |dR/dρ|
    total = q * np.log(2.0) + q * jnp.sum(jnp.log(block.sds))
    total = total + sum(0.5 * (q - 2 - k) * rest for k, rest in zip(places, block.rests, strict=True))
    log_det = sum(block.rests) + jnp.zeros_like(total)
    return total + prior.block.log_density(block.sds, block.correlation, log_det)


def correlation(z: Array, q: int) -> tuple[Array, tuple[Array, ...]]:
    """R (q, q) from z (q(q−1)/2,), and log(1 − ρ²) of every pair."""
    at = {pair: j for j, pair in enumerate(pairs(q))}
    # log(1 − tanh² z) = 2(log 2 − z − log(1 + e⁻²ᶻ))
    rests = tuple(2.0 * (np.log(2.0) - v - jnp.logaddexp(0.0, -2.0 * v)) for v in z)
    rows = []
    for i in range(q):
        left, row = jnp.zeros((), z.dtype), []
        for k in range(i):
            row.append(jnp.tanh(z[at[i, k]]) * jnp.exp(0.5 * left))
            left = left + rests[at[i, k]]
        rows.append(jnp.stack([*row, jnp.exp(0.5 * left), *[jnp.zeros((), z.dtype)] * (q - 1 - i)]))
    factor = jnp.stack(rows)
    matrix = factor @ factor.T
    # ones on the diagonal exactly
    eye = jnp.eye(q, dtype=z.dtype)
    return matrix * (1.0 - eye) + eye, rests
