"""The random effects of a model together: θ ↔ d, the free entries of all relative covariances.

d (m,) stacks, term after term, the free entries of D = ΛΛᵀ in the order of `varcorr()`. It is the
scale on which every covariance backend works: V/σ² is linear in d.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from lmmjax._linalg import diagonal, pivot_order, psd_cholesky
from lmmjax._types import Array, namespace
from lmmjax.covariance.base import CovarianceFamily


@dataclasses.dataclass(frozen=True)
class TermStructure:
    """One term: its family and its number of columns q."""

    family: CovarianceFamily
    q: int

    @property
    def n_params(self) -> int:
        return self.family.n_params(self.q)

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return self.family.entries(self.q)


@dataclasses.dataclass(frozen=True)
class Structure:
    """The covariance structure of all terms: static, hashable."""

    terms: tuple[TermStructure, ...]

    @property
    def n_params(self) -> int:
        return sum(term.n_params for term in self.terms)

    @property
    def n_entries(self) -> int:
        return sum(len(term.entries) for term in self.terms)

    def theta_slices(self) -> list[slice]:
        """Where each term's parameters lie in θ."""
        return _slices([term.n_params for term in self.terms])

    def entry_slices(self) -> list[slice]:
        """Where each term's entries lie in d."""
        return _slices([len(term.entries) for term in self.terms])

    def factors(self, theta: Array) -> tuple[Array, ...]:
        """Λ (q, q) of each term."""
        return tuple(
            term.family.factor(theta[s], term.q)
            for term, s in zip(self.terms, self.theta_slices(), strict=True)
        )

    def params(self, factors: tuple[Array, ...]) -> Array:
        """θ from the factor of each term."""
        return jnp.concatenate(
            [t.family.params(f) for t, f in zip(self.terms, factors, strict=True)] or [jnp.zeros(0)]
        )

    def covariances(self, theta: Array) -> tuple[Array, ...]:
        """D = ΛΛᵀ (q, q) of each term."""
        return tuple(factor @ factor.T for factor in self.factors(theta))

    def entries(self, covariances: tuple[Array, ...], dtype=None) -> Array:
        """d (m,) from the matrices D."""
        picked = [
            matrix[np.array([i for i, _ in term.entries]), np.array([j for _, j in term.entries])]
            for term, matrix in zip(self.terms, covariances, strict=True)
        ]
        xp = namespace(*covariances)
        return xp.concatenate(picked) if picked else xp.zeros(0, dtype)

    def matrices(self, d: Array) -> tuple[Array, ...]:
        """The symmetric matrices D (q, q) from d (m,)."""
        xp = namespace(d)
        return tuple(
            xp.tensordot(d[s], xp.asarray(unit_entries(term), dtype=d.dtype), axes=1)
            for term, s in zip(self.terms, self.entry_slices(), strict=True)
        )

    def turned(self, factors: tuple[Array, ...], turns: tuple[Array, ...]) -> tuple[Array, ...]:
        """t D tᵀ for D = ΛΛᵀ and the coordinates t (q, q) of each term."""
        out = []
        for factor, turn in zip(factors, turns, strict=True):
            moved = turn @ factor
            out.append(moved @ moved.T)
        return tuple(out)

    def start(self, d: Array, floor: Array) -> tuple[Array, tuple[Array, ...]]:
        """`pivoted` for positive definite matrices near d: variances ≥ floor (m,), |correlations| ≤ 0.9."""
        positive = []
        for matrix, least in zip(self.matrices(d), self.matrices(floor), strict=True):
            root = jnp.sqrt(jnp.maximum(diagonal(matrix), diagonal(least)))
            eye = jnp.eye(matrix.shape[0], dtype=d.dtype)
            off = matrix / (root[:, None] * root[None, :]) * (1 - eye)
            reach = jnp.max(jnp.sum(jnp.abs(off), axis=1))
            shrink = jnp.minimum(1.0, 0.9 / jnp.maximum(reach, 0.1))
            positive.append((off * shrink + eye) * (root[:, None] * root[None, :]))
        return self.pivoted(self.entries(tuple(positive), d.dtype))

    def pivoted(self, d: Array) -> tuple[Array, tuple[Array, ...]]:
        """θ and coordinates of positive semi-definite matrices d.

        An unstructured term is taken in pivoted order: with the largest variance first a singular D has
        its zero in the last rows of Λ, where the criterion is smooth and well conditioned.
        """
        factors, turns = [], []
        for term, matrix in zip(self.terms, self.matrices(d), strict=True):
            turn = jnp.eye(term.q, dtype=d.dtype)
            if term.family.basis == "triangular" and term.q > 1:
                turn = pivot_order(matrix)
                matrix = turn.T @ matrix @ turn
            factors.append(psd_cholesky(matrix, 1e-15))
            turns.append(turn)
        return self.params(tuple(factors)).astype(d.dtype), tuple(turns)

    def upright(self, factors: tuple[Array, ...], turns: tuple[Array, ...]) -> tuple[Array, ...]:
        """Lower triangular factors, diagonal ≥ 0, of t ΛΛᵀ tᵀ."""
        return tuple(psd_cholesky(matrix, 1e-13) for matrix in self.turned(factors, turns))

    def change_basis(self, theta: Array, bases: tuple[Array, ...]) -> Array:
        """θ′ with Λ(θ′) = bΛ(θ) for a lower triangular b a term that its family allows."""
        return self.params(
            tuple(b.astype(theta.dtype) @ f for b, f in zip(bases, self.factors(theta), strict=True))
        ).astype(theta.dtype)

    def entry_map(self, bases: tuple[Array, ...]) -> Array:
        """The (m, m) matrix that takes the entries of D to those of b D bᵀ."""
        m = self.n_entries
        dtype = bases[0].dtype if bases else None
        columns = []
        for unit in np.eye(m):
            moved = [b @ e @ b.T for b, e in zip(bases, self.matrices(jnp.asarray(unit, dtype)), strict=True)]
            columns.append(self.entries(tuple(moved), dtype))
        return jnp.stack(columns, axis=1) if m else jnp.zeros((0, 0), dtype)


def unit_entries(term: TermStructure) -> np.ndarray:
    """The symmetric unit matrices E (m, q, q) with D = Σ d_c E_c."""
    units = np.zeros((len(term.entries), term.q, term.q))
    for c, (i, j) in enumerate(term.entries):
        units[c, i, j] = units[c, j, i] = 1.0
    return units


def _slices(sizes: list[int]) -> list[slice]:
    ends = np.cumsum([0, *sizes])
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
