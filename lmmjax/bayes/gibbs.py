"""Gibbs sampling with conjugate conditionals, on the rows themselves: the Gram has no part in it.

With T = [X Z] and c = (β, b), a sweep draws, in this order,

    c | Σ, σ², y ~ N(C⁻¹(TᵀRy/σ² + Pm), C⁻¹),     C = TᵀRT/σ² + diag(P, I⊗Σ⁻¹),
    σ² | c, y ~ InverseGamma(a + n/2, s + ½‖y − Tc‖²_w),
    Σ | b ~ InverseWishart(ν + G, S + Σ_g b_g b_gᵀ), or τ² | b ~ InverseGamma(a + G/2, s + ½Σ_g b_g²),

where a, s, ν, S are those of the prior and R = diag(w). Where q columns share a variance it has
a + Gq/2. A half-t prior of τ, df d and scale A, is the mixture

    τ² | h ~ InverseGamma(d/2, d/h),     h ~ InverseGamma(½, 1/A²),

and h | τ² ~ InverseGamma((d + 1)/2, d/τ² + 1/A²) is drawn first.

Source: Gelfand & Smith (1990), doi:10.1080/01621459.1990.10476213; the mixture, Wand, Ormerod, Padoan &
Frühwirth (2011), doi:10.1214/11-BA631.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from lmmjax.arrays import Array, psd_cholesky, quick_jit, record, sweep
from lmmjax.bayes.coordinates import PriorSet, TermPrior
from lmmjax.bayes.patterns import PatternPrior
from lmmjax.bayes.priors import BlockPrior, HalfT, InverseGamma, Known, ScalarPrior
from lmmjax.design import Design, Structure

LARGEST = 2000
"""Most coefficients, fixed and random: a sweep factors a matrix of that size."""


@record
class GibbsData:
    """Rows multiplied by √w: t (n, p + ΣGq), y (n,); random columns group after group, term after term."""

    t: Array
    y: Array


@record
class GibbsDraws:
    """ψ (chains, draws, m + 1), β (chains, draws, p), b per term (chains, draws, G, q)."""

    psi: Array
    beta: Array
    b: tuple[Array, ...]


def rows(design: Design, y: np.ndarray) -> GibbsData:
    """The data of the sampler; ValueError where [X Z] is too wide."""
    if any(term.kernel is not None for term in design.terms):
        raise ValueError("the Gibbs sampler draws independent levels: with a kernel use method='nuts'")
    width = design.p + sum(term.n_groups * term.q for term in design.terms)
    if width > LARGEST:
        raise ValueError(
            f"the Gibbs sampler factors a matrix of all {width} coefficients and takes at most {LARGEST}: "
            "use method='nuts'"
        )
    columns = [np.asarray(design.x)]
    for term in design.terms:
        z = np.zeros((design.n, term.n_groups, term.q))
        z[np.arange(design.n), term.codes] = term.z
        columns.append(z.reshape(design.n, -1))
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    free = y if design.offset is None else y - design.offset
    return GibbsData(np.hstack(columns) * root[:, None], free * root)


@partial(quick_jit, short=0, static_argnames=("structure", "n_groups", "warmup", "draws"))
def run_chains(
    keys: Array,
    starts: Array,
    data: GibbsData,
    priors: PriorSet,
    structure: Structure,
    n_groups: tuple[int, ...],
    warmup: int,
    draws: int,
) -> GibbsDraws:
    """Chains from ψ = starts (chains, m + 1), one after the other: each sweep calls LAPACK."""
    product, moment = data.t.T @ data.t, data.t.T @ data.y

    def sweep_once(psi, key):
        return sweep_conditionals(key, psi, data, product, moment, priors, structure, n_groups)

    def chain(pair):
        first, second = jax.random.split(pair[0])
        psi, _ = jax.lax.scan(
            lambda psi, key: (sweep_once(psi, key).psi, None), pair[1], jax.random.split(first, warmup)
        )

        def step(psi, key):
            new = sweep_once(psi, key)
            return new.psi, new

        return jax.lax.scan(step, psi, jax.random.split(second, draws))[1]

    return jax.lax.map(chain, (keys, starts))


def sweep_conditionals(
    key: Array,
    psi: Array,
    data: GibbsData,
    product: Array,
    moment: Array,
    priors: PriorSet,
    structure: Structure,
    n_groups: tuple[int, ...],
) -> GibbsDraws:
    """One sweep from ψ (m + 1,); product: TᵀT, moment: Tᵀy."""
    key_c, key_sigma, *keys = jax.random.split(key, 2 + len(n_groups))
    p = priors.beta.mean.shape[0]
    matrices = structure.matrices(psi[:-1])
    # C = TᵀT/σ² + diag(P, I⊗Σ⁻¹)
    blocks = [jnp.diag(priors.beta.precision)]
    for matrix, groups in zip(matrices, n_groups, strict=True):
        blocks.append(jnp.kron(jnp.eye(groups, dtype=psi.dtype), scaled_inverse(matrix)))
    precision = product / psi[-1] + jax.scipy.linalg.block_diag(*blocks)
    pull = moment / psi[-1]
    pull = pull.at[:p].add(priors.beta.precision * priors.beta.mean)
    factor = jnp.linalg.cholesky(precision)
    noise = jax.random.normal(key_c, pull.shape, psi.dtype)
    c = solve_triangular(factor.T, solve_triangular(factor, pull, lower=True) + noise, lower=False)

    residual = data.y - data.t @ c
    squares, count = residual @ residual, residual.shape[0]
    sigma2 = psi[-1]
    if not isinstance(priors.sigma, Known):
        sigma2 = draw_variance(key_sigma, priors.sigma, sigma2, squares, count)

    effects, drawn, at = [], [], p
    for k, matrix, prior, groups in zip(keys, matrices, priors.terms, n_groups, strict=True):
        q = matrix.shape[0]
        b = c[at : at + groups * q].reshape(groups, q)
        at += groups * q
        effects.append(b)
        if isinstance(prior, BlockPrior):
            drawn.append(inverse_wishart(k, prior.block.df + groups, prior.block.scale + b.T @ b))
            continue
        if isinstance(prior, PatternPrior):
            # one variance for all columns
            common = draw_variance(k, prior.sds[0], matrix[0, 0], jnp.sum(b * b), b.size)
            drawn.append(common * jnp.eye(q, dtype=psi.dtype))
            continue
        one = [
            draw_variance(key_j, own, matrix[j, j], b[:, j] @ b[:, j], groups)
            for j, (key_j, own) in enumerate(zip(jax.random.split(k, q), prior.sds, strict=True))
        ]
        drawn.append(jnp.diag(jnp.stack(one)))
    natural = jnp.concatenate([structure.natural(tuple(drawn), psi.dtype), sigma2[None]])
    return GibbsDraws(natural, c[:p], tuple(effects))


def draw_variance(key: Array, prior: ScalarPrior, last: Array, squares: Array, count: int) -> Array:
    """τ² given `count` normal variables with that variance, sum of squares `squares`; `last` is τ² before."""
    key_h, key_v = jax.random.split(key)
    if isinstance(prior, HalfT):
        h = inverse_gamma(key_h, 0.5 * (prior.df + 1.0), prior.df / last + 1.0 / prior.scale**2)
        shape, scale = 0.5 * prior.df, prior.df / h
    elif isinstance(prior, InverseGamma):
        shape, scale = prior.shape, prior.scale
    else:
        raise TypeError(f"no conjugate conditional for {type(prior).__name__}")
    return inverse_gamma(key_v, shape + 0.5 * count, scale + 0.5 * squares)


def conjugate(priors: PriorSet) -> bool:
    """Whether the sampler covers these priors: half-t, inverse gamma, and inverse Wishart for blocks."""

    def simple(prior: ScalarPrior) -> bool:
        return isinstance(prior, HalfT | InverseGamma)

    def covered(prior: TermPrior) -> bool:
        if isinstance(prior, BlockPrior):
            return True
        if isinstance(prior, PatternPrior):
            return not prior.shape and len(prior.sds) == 1 and simple(prior.sds[0])
        return all(map(simple, prior.sds)) and (prior.correlation is None or len(prior.sds) == 1)

    residual = not priors.residual and (isinstance(priors.sigma, Known) or simple(priors.sigma))
    return residual and all(map(covered, priors.terms))


def inverse_gamma(key: Array, shape: Array, scale: Array) -> Array:
    """Draws of scale/Gamma(shape, 1)."""
    return scale / jax.random.gamma(key, shape)


def inverse_wishart(key: Array, df: Array, scale: Array) -> Array:
    """A draw of Σ (q, q) = K A⁻ᵀA⁻¹Kᵀ: scale = KKᵀ, A lower, A_ii² ~ χ²(df − i), normal below (Bartlett)."""
    q = scale.shape[0]
    key_chi, key_normal = jax.random.split(key)
    chi = 2.0 * jax.random.gamma(key_chi, 0.5 * (df - jnp.arange(q, dtype=scale.dtype)))
    below = jnp.tril(jax.random.normal(key_normal, (q, q), scale.dtype), -1)
    a = below + jnp.diag(jnp.sqrt(chi))
    root = solve_triangular(a, psd_cholesky(scale, 0.0).T, lower=True)
    return root.T @ root


def scaled_inverse(matrix: Array) -> Array:
    """Σ⁻¹ through that of the correlation matrix, whatever the units."""
    root = jnp.sqrt(jnp.diagonal(matrix))
    _, inverse = sweep(matrix / root[:, None] / root[None, :])
    return inverse / root[:, None] / root[None, :]
