"""Variance parameters on the real line: u ↔ standard deviations, correlations, σ; their prior density.

u stacks, term after term, a coordinate a standard deviation and, for a term with correlations, one a partial
correlation ρ = tanh z of coefficients i > k given the first k, k outermost; the last is that of σ. The
correlation matrix is R = LLᵀ with rows of L

    L_ik = ρ_ik Π_{l<k} √(1 − ρ_il²),     L_ii = Π_{l<i} √(1 − ρ_il²),     |R| = Π (1 − ρ²),

so that Σ = (SL)(SL)ᵀ, S = diag(τ). The Jacobians are

    |dΣ/d(τ, R)| = Π 2τ_i^q,     |dR/dρ| = Π (1 − ρ_ik²)^((q−2−k)/2),     dρ/dz = 1 − ρ².

Source: Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, diagonal, psd_cholesky, quick_jit, record
from lmmjax.bayes.priors import BlockPrior, PriorSet, SeparatePrior
from lmmjax.design import Structure


@record
class Block:
    """Σ of one term: standard deviations (q,), correlations (q, q), log(1 − ρ²) of every pair (i, k)."""

    sds: Array
    correlation: Array
    rests: tuple[Array, ...]

    @property
    def covariance(self) -> Array:
        """Σ (q, q)."""
        return self.correlation * (self.sds[:, None] * self.sds[None, :])


@record
class Components:
    """All variance parameters: a block a term, and σ."""

    blocks: tuple[Block, ...]
    sigma: Array


def pairs(q: int) -> list[tuple[int, int]]:
    """The partial correlations (i, k) of q coefficients in the order of u."""
    return [(i, k) for k in range(q) for i in range(k + 1, q)]


def has_correlations(prior: SeparatePrior | BlockPrior) -> bool:
    """Whether the covariance of the term is unstructured."""
    return isinstance(prior, BlockPrior) or prior.correlation is not None


def components(u: Array, structure: Structure, priors: PriorSet) -> tuple[Components, Array]:
    """What u (k,) stands for, and log |d(τ, ρ, σ)/du|."""
    blocks, jacobian, at = [], jnp.zeros((), u.dtype), 0
    for term, prior in zip(structure.terms, priors.terms, strict=True):
        q = term.q
        moved = [scalar.from_line(u[at + j]) for j, scalar in enumerate(prior.scalars(q))]
        tau = jnp.stack([value for value, _ in moved])
        jacobian = jacobian + sum(slope for _, slope in moved)
        at += q
        matrix, rests = jnp.eye(q, dtype=u.dtype), ()
        if has_correlations(prior) and q > 1:
            count = len(pairs(q))
            matrix, rests = correlation(u[at : at + count], q)
            # dρ/dz = 1 − ρ²
            jacobian = jacobian + sum(rests)
            at += count
        blocks.append(Block(tau, matrix, rests))
    sigma, slope = priors.sigma.from_line(u[at])
    return Components(tuple(blocks), sigma), jacobian + slope


def log_prior(parts: Components, priors: PriorSet) -> Array:
    """log p(τ, ρ, σ): the density in standard deviations and partial correlations."""
    total = priors.sigma.log_density(parts.sigma)
    for block, prior in zip(parts.blocks, priors.terms, strict=True):
        q = block.sds.shape[0]
        places = [k for _, k in pairs(q)]
        if isinstance(prior, SeparatePrior):
            total = total + sum(p.log_density(t) for p, t in zip(prior.sds, block.sds, strict=True))
            if prior.correlation is not None and q > 1:
                rests = zip(places, block.rests, strict=True)
                total = total + sum(prior.correlation.log_density(k, q, rest) for k, rest in rests)
            continue
        # |dΣ/d(τ, R)| |dR/dρ|
        total = total + q * np.log(2.0) + q * jnp.sum(jnp.log(block.sds))
        total = total + sum(0.5 * (q - 2 - k) * rest for k, rest in zip(places, block.rests, strict=True))
        log_det = sum(block.rests) + jnp.zeros_like(total)
        total = total + prior.block.log_density(block.sds, block.correlation, log_det)
    return total


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


def natural(parts: Components, structure: Structure) -> Array:
    """ψ (m + 1,) in the order of `varcorr()`: variances and covariances, then σ²."""
    sigma2 = parts.sigma[None] ** 2
    if not parts.blocks:
        return sigma2
    entries = structure.natural(tuple(block.covariance for block in parts.blocks), sigma2.dtype)
    return jnp.concatenate([entries, sigma2])


def from_natural(psi: Array, structure: Structure) -> Components:
    """The inverse of `natural`, for positive definite ψ (m + 1,)."""
    psi, blocks = jnp.asarray(psi), []
    for matrix in structure.matrices(psi[:-1]):
        q = matrix.shape[0]
        tau = jnp.sqrt(diagonal(matrix))
        scaled = matrix / (tau[:, None] * tau[None, :])
        factor = psd_cholesky(scaled, 0.0)
        # 1 − ρ_ik² = (1 − Σ_{l≤k} L_il²)/(1 − Σ_{l<k} L_il²)
        left = jnp.concatenate(
            [jnp.ones((q, 1), psi.dtype), jnp.maximum(1.0 - jnp.cumsum(factor**2, axis=1), 1e-300)], axis=1
        )
        rests = tuple(jnp.log(left[i, k + 1]) - jnp.log(left[i, k]) for i, k in pairs(q))
        blocks.append(Block(tau, scaled, rests))
    return Components(tuple(blocks), jnp.sqrt(psi[-1]))


def to_line(psi: np.ndarray, structure: Structure, priors: PriorSet) -> np.ndarray:
    """u (k,) for positive definite ψ (m + 1,): the inverse of `components`."""
    parts, out = from_natural(psi, structure), []
    for block, prior in zip(parts.blocks, priors.terms, strict=True):
        q = block.sds.shape[0]
        out += [scalar.to_line(t) for scalar, t in zip(prior.scalars(q), block.sds, strict=True)]
        if has_correlations(prior):
            factor = psd_cholesky(block.correlation, 0.0)
            for i, k in pairs(q):
                out.append(jnp.arctanh(factor[i, k] / jnp.sqrt(1.0 - jnp.sum(factor[i, :k] ** 2))))
    return np.array([float(v) for v in [*out, priors.sigma.to_line(parts.sigma)]])


def scattered(
    key: Array, psi: np.ndarray, floor: np.ndarray, structure: Structure, priors: PriorSet, chains: int
) -> np.ndarray:
    """Starting points u (chains, k) about ψ (m + 1,): normal with standard deviation ½ in every coordinate.

    Variances are taken to be at least those of `floor` (m + 1,), correlations are shrunk by a fifth, so that
    a singular ψ has a place on the line.
    """
    inside = []
    for matrix, least in zip(structure.matrices(psi[:-1]), structure.matrices(floor[:-1]), strict=True):
        root = np.sqrt(np.diagonal(matrix))
        safe = np.where(root > 0, root, 1.0)
        eye = np.eye(len(root))
        wide = np.sqrt(np.maximum(np.diagonal(matrix), np.diagonal(least)))
        inside.append((0.8 * matrix / np.outer(safe, safe) * (1 - eye) + eye) * np.outer(wide, wide))
    entries = structure.natural(tuple(inside), float)
    centre = to_line(np.append(entries, max(psi[-1], floor[-1])), structure, priors)
    return centre + 0.5 * np.asarray(jax.random.normal(key, (chains, len(centre)), float))


@partial(quick_jit, static_argnames=("structure",))
def log_priors(psi: Array, beta: Array, priors: PriorSet, structure: Structure) -> Array:
    """log p(τ, ρ, σ) + log p(β) of draws ψ (N, m + 1) and β (N, p), (N,)."""

    def one(row: Array, coefficients: Array) -> Array:
        return log_prior(from_natural(row, structure), priors) + priors.beta.log_density(coefficients)

    return jax.vmap(one)(psi, beta)
