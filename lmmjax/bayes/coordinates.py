"""Variance parameters on the real line: u ↔ standard deviations, correlations, σ; their prior density.

u stacks the blocks, random terms and then those of the residual structure, and last a coordinate of σ: of
free matrices as in `bayes.matrices`, of patterns as in `bayes.patterns`. σ is the first standard deviation of
an unstructured residual matrix; where it is known it has no coordinate.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, quick_jit, record
from lmmjax.bayes import matrices
from lmmjax.bayes.matrices import Block
from lmmjax.bayes.patterns import PatternPrior
from lmmjax.bayes.priors import BetaPrior, BlockPrior, Known, ScalarPrior, SeparatePrior
from lmmjax.bayes.random import standard_normal
from lmmjax.covariance import CovarianceFamily
from lmmjax.covariance.toeplitz import Toeplitz
from lmmjax.design import Structure
from lmmjax.residual import ARMA
from lmmjax.residual import Toeplitz as Lags

TermPrior = SeparatePrior | BlockPrior | PatternPrior

SHRUNK = 0.8
"""Factor of the correlations of matrices that chains start from."""


@record
class PriorSet:
    """Priors of all parameters of a model: one a term, σ, β, and one a block of the residual structure."""

    terms: tuple[TermPrior, ...]
    sigma: ScalarPrior | Known
    beta: BetaPrior
    residual: tuple[TermPrior, ...] = ()


@record
class Shape:
    """A pattern: standard deviations (v,) and the parameters after them (k,)."""

    sds: Array
    values: Array


@record
class Components:
    """All variance parameters: a block a term, then a block of the residual structure, and σ."""

    blocks: tuple[Block | Shape, ...]
    sigma: Array


@dataclasses.dataclass(frozen=True)
class Place:
    """A block among the parameters ψ.

    Attributes
    ----------
    at : where its parameters lie.
    q : size of a free matrix, 0 of a pattern.
    residual : whether it is one of the residuals: its first standard deviation is σ if `anchored`, all are 1
        if `correlations`.
    lags, orders : of a pattern, see `PatternPrior`.
    """

    at: slice
    q: int
    residual: bool = False
    anchored: bool = False
    correlations: bool = False
    lags: int = 0
    orders: tuple[int, int] = (0, 0)

    @property
    def known(self) -> int:
        """How many standard deviations of the matrix come from elsewhere."""
        return self.q if self.correlations else int(self.anchored)

    def lead(self, sigma: Array) -> Array:
        """Those (known,)."""
        return jnp.ones(self.q, sigma.dtype) if self.correlations else sigma[None][: self.known]


def places(structure: Structure) -> list[Place]:
    """The blocks in the order of ψ."""
    pairs = zip(structure.terms, structure.slices(), strict=True)
    out = [
        Place(s, term.q if term.family.linear else 0, lags=_lags(term.family, term.q)) for term, s in pairs
    ]
    own, first = structure.residual, structure.tail.start
    for index, block in enumerate(own.blocks if own is not None else ()):
        assert own is not None
        family, at = own.residual.correlation, slice(first + block.at.start, first + block.at.stop)
        if family is None or block.part != 0:
            out.append(Place(at, 0, True))
        elif not family.framed:
            lags = len(block.own) if isinstance(family, Lags) else 0
            orders = (family.p, family.q) if isinstance(family, ARMA) else (0, 0)
            out.append(Place(at, 0, True, lags=lags, orders=orders))
        elif family.variances:
            out.append(Place(at, own.space.size, True, anchored=index == 0))
        elif block.scale:
            # the ratio of a level, then its correlations
            out += [Place(slice(at.start, at.start + 1), 0, True)]
            out += [Place(slice(at.start + 1, at.stop), own.space.size, True, correlations=True)]
        else:
            out.append(Place(at, own.space.size, True, correlations=True))
    return out


def _lags(family: CovarianceFamily, q: int) -> int:
    return len(family.correlations(q)) if isinstance(family, Toeplitz) else 0


def components(u: Array, structure: Structure, priors: PriorSet) -> tuple[Components, Array]:
    """What u (k,) stands for, and log |d(τ, ρ, r, σ)/du|."""
    jacobian = jnp.zeros((), u.dtype)
    if isinstance(priors.sigma, Known):
        sigma = jnp.asarray(priors.sigma.value, u.dtype)
    else:
        sigma, jacobian = priors.sigma.from_line(u[-1])
    blocks, at = [], 0
    for place, prior in zip(places(structure), (*priors.terms, *priors.residual), strict=True):
        if isinstance(prior, PatternPrior):
            sds, values, slope = prior.from_line(u[at : at + prior.size])
            blocks.append(Shape(sds, values))
            at += prior.size
        else:
            count = matrices.width(prior, place.q, place.known)
            block, slope = matrices.from_line(u[at : at + count], prior, place.q, place.lead(sigma))
            blocks.append(block)
            at += count
        jacobian = jacobian + slope
    return Components(tuple(blocks), sigma), jacobian


def log_prior(parts: Components, priors: PriorSet) -> Array:
    """log p(τ, ρ, r, σ): the density in standard deviations, partial correlations and other parameters."""
    total = jnp.zeros_like(parts.sigma)
    if not isinstance(priors.sigma, Known):
        total = priors.sigma.log_density(parts.sigma)
    for block, prior in zip(parts.blocks, (*priors.terms, *priors.residual), strict=True):
        if isinstance(prior, PatternPrior):
            assert isinstance(block, Shape)
            total = total + prior.log_density(block.sds, block.values)
        else:
            assert isinstance(block, Block)
            total = total + matrices.log_density(block, prior)
    return total


def natural(parts: Components, structure: Structure) -> Array:
    """ψ (m + 1,) in the order of `varcorr()`: variances, covariances and other parameters, then σ²."""
    out = []
    for k, (place, block) in enumerate(zip(places(structure), parts.blocks, strict=True)):
        if isinstance(block, Shape):
            out += [block.sds**2, block.values]
        elif not place.residual:
            out.append(structure.terms[k].family.natural(block.covariance))
        else:
            below, matrix = np.triu_indices(place.q, k=1)[::-1], block.covariance
            variances = jnp.diagonal(matrix)[place.known :]
            out += [variances, matrix[below]]
    return jnp.concatenate([*out, parts.sigma[None] ** 2])


def from_natural(psi: Array, structure: Structure, priors: PriorSet) -> Components:
    """The inverse of `natural`, for ψ (m + 1,) inside its range."""
    psi, blocks = jnp.asarray(psi), []
    for k, (place, prior) in enumerate(
        zip(places(structure), (*priors.terms, *priors.residual), strict=True)
    ):
        own = psi[place.at]
        if isinstance(prior, PatternPrior):
            count = len(prior.sds)
            blocks.append(Shape(jnp.sqrt(own[:count]), own[count:]))
        elif not place.residual:
            blocks.append(matrices.of_covariance(structure.terms[k].family.matrix(own, place.q)))
        else:
            blocks.append(matrices.of_covariance(_matrix(own, place, psi[-1])))
    return Components(tuple(blocks), jnp.sqrt(psi[-1]))


def _matrix(own: Array, place: Place, sigma2: Array) -> Array:
    """The matrix (q, q) of residual parameters: variances that are there, then what is below the diagonal."""
    count = place.q * (place.q - 1) // 2
    split = own.shape[0] - count
    lead = place.lead(jnp.sqrt(sigma2)) ** 2
    off = jnp.zeros((place.q, place.q), own.dtype).at[np.triu_indices(place.q, k=1)[::-1]].set(own[split:])
    return off + off.T + jnp.diag(jnp.concatenate([lead, own[:split]]))


@partial(quick_jit, static_argnames=("structure",))
def _line(psi: Array, priors: PriorSet, structure: Structure) -> Array:
    parts, out = from_natural(psi, structure, priors), []
    everything = zip(places(structure), parts.blocks, (*priors.terms, *priors.residual), strict=True)
    for place, block, prior in everything:
        if isinstance(prior, PatternPrior):
            assert isinstance(block, Shape)
            out.append(prior.to_line(block.sds, block.values))
        else:
            assert isinstance(block, Block)
            out.append(matrices.to_line(block, prior, place.known))
    if not isinstance(priors.sigma, Known):
        out.append(priors.sigma.to_line(parts.sigma)[None])
    return jnp.concatenate([*out, psi[:0]])


def to_line(psi: np.ndarray, structure: Structure, priors: PriorSet) -> np.ndarray:
    """u (k,) for ψ (m + 1,) inside its range: the inverse of `components`."""
    return np.asarray(_line(np.asarray(psi, float), priors, structure))


def scattered(
    key: Array, psi: np.ndarray, floor: np.ndarray, structure: Structure, priors: PriorSet, chains: int
) -> np.ndarray:
    """Starting points u (chains, k) about ψ (m + 1,): normal with standard deviation ½ in every coordinate.

    Variances are taken to be at least those of `floor` (m + 1,), correlations are shrunk by a fifth and other
    parameters taken off the ends of their range, so that a singular ψ has a place on the line.
    """
    inside, sigma2 = [], max(psi[-1], floor[-1])
    for k, (place, prior) in enumerate(
        zip(places(structure), (*priors.terms, *priors.residual), strict=True)
    ):
        own, least = psi[place.at], floor[place.at]
        if isinstance(prior, PatternPrior):
            count = len(prior.sds)
            inside += [np.maximum(own[:count], least[:count]), prior.inside(own[count:])]
        elif not place.residual:
            family = structure.terms[k].family
            wide = _opened(family.matrix(own, place.q), np.diagonal(family.matrix(least, place.q)))
            inside.append(family.natural(wide))
        else:
            split = len(own) - place.q * (place.q - 1) // 2
            inside += [np.maximum(own[:split], 0.0), SHRUNK * own[split:]]
    centre = to_line(np.concatenate([*inside, [sigma2]]), structure, priors)
    return centre + 0.5 * standard_normal(key, (chains, len(centre)))


@partial(quick_jit, static_argnames=("structure",))
def natural_of(lines: Array, priors: PriorSet, structure: Structure) -> Array:
    """ψ (N, m + 1) of u (N, k)."""
    return jax.vmap(lambda u: natural(components(u, structure, priors)[0], structure))(lines)


def _opened(matrix: np.ndarray, least: np.ndarray) -> np.ndarray:
    """A positive definite (q, q) near a matrix: variances of at least `least` (q,), smaller correlations."""
    root = np.sqrt(np.diagonal(matrix))
    safe, eye = np.where(root > 0, root, 1.0), np.eye(len(root))
    wide = np.sqrt(np.maximum(np.diagonal(matrix), least))
    return (SHRUNK * matrix / np.outer(safe, safe) * (1 - eye) + eye) * np.outer(wide, wide)


@partial(quick_jit, static_argnames=("structure",))
def log_priors(psi: Array, beta: Array, priors: PriorSet, structure: Structure) -> Array:
    """log p(τ, ρ, r, σ) + log p(β) of draws ψ (N, m + 1) and β (N, p), (N,)."""

    def one(row: Array, coefficients: Array) -> Array:
        parts = from_natural(row, structure, priors)
        return log_prior(parts, priors) + priors.beta.log_density(coefficients)

    return jax.vmap(one)(psi, beta)
