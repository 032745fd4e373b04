"""Shares of variance: intraclass correlation and R², as functions of β (..., p) and ψ (..., m + 1).

The variance of the fixed part is βᵀCβ, C the sample covariance of the columns of X, and that of a random term
the mean over the rows of zᵀΣz, ⟨Σ, ZᵀZ/n⟩ (Johnson 2014, doi:10.1111/2041-210X.12225).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace, record, static
from lmmjax.design import Design, TermStructure


@record
class Weights:
    """What the shares need of a design.

    Attributes
    ----------
    groups : (g, m) weights of the entries of Σ, all terms, in the variance of each grouping factor; where
        variances are not linear in ψ, None.
    fixed : (p, p) sample covariance C of the columns of X.
    variance : ψ (m + 1,) → variances (g + 1,) of the grouping factors and the residual, where not linear.
    """

    groups: Array | None
    fixed: Array
    variance: Callable[[Array], Array] | None = static(default=None)

    def split(self, psi: Array) -> tuple[Array, Array]:
        """Variances (..., g) of the grouping factors, and (..., 1) of the residual."""
        if self.groups is not None:
            return psi[..., :-1] @ self.groups.T, psi[..., -1:]
        assert self.variance is not None
        both = jnp.vectorize(self.variance, signature="(m)->(g)")(psi)
        return both[..., :-1], both[..., -1:]


def share_weights(design: Design, labels: list[str]) -> tuple[Weights, list[str]]:
    """The weights, and the grouping factors in order; `labels` names that of each random term."""
    names = list(dict.fromkeys(labels))
    x = np.asarray(design.x)
    centred = x - x.mean(axis=0)
    fixed = centred.T @ centred / (len(x) - 1)
    structure = design.structure
    if not structure.linear or structure.residual is not None:
        return Weights(None, fixed, _variances(design, [names.index(label) for label in labels])), names
    groups = np.zeros((len(names), structure.n_params))
    for term, label, own, at in zip(design.terms, labels, structure.terms, structure.slices(), strict=True):
        groups[names.index(label), at] = entry_weights(np.asarray(term.z), own)
    return Weights(groups, fixed), names


def _variances(design: Design, factor: list[int]) -> Callable[[Array], Array]:
    """ψ → ⟨Σ, ZᵀZ/n⟩ by grouping factor, and the mean variance of the residuals."""
    structure, own = design.structure, design.residual
    squares = [np.asarray(term.z).T @ np.asarray(term.z) / design.n for term in design.terms]

    def variance(psi: Array) -> Array:
        matrices = structure.absolute(psi)
        out = [jnp.zeros((), psi.dtype)] * (max(factor, default=-1) + 1)
        for k, square, matrix in zip(factor, squares, matrices, strict=True):
            out[k] = out[k] + jnp.sum(square * matrix)
        left = psi[-1]
        if own is not None:
            r = structure.relative(psi)[structure.tail]
            place = jnp.asarray(own.place)
            value = own.structure.correlation(r, place, place, jnp.ones(design.n, bool))
            sd = own.structure.sd(r, own.covariates)
            left = left * jnp.mean(value if sd is None else value * sd * sd)
        return jnp.stack([*out, left])

    return variance


def entry_weights(z: np.ndarray, term: TermStructure) -> np.ndarray:
    """Weights of the entries of Σ in ⟨Σ, ZᵀZ/n⟩."""
    square = z.T @ z / len(z)
    return np.array([square[i, j] * (1.0 if i == j else 2.0) for i, j in term.entries])


def group_shares(weights: Weights) -> Callable[[Array, Array], Array]:
    """(β, ψ) → shares of grouping factors in the variance beyond the fixed part, and the sum (..., g + 1)."""

    def shares(beta: Array, psi: Array) -> Array:
        xp = jnp if weights.groups is None else namespace(psi)
        between, left = weights.split(psi)
        total = xp.sum(between, axis=-1, keepdims=True)
        return xp.concatenate([between, total], axis=-1) / (total + left)

    return shares


def r_squared(weights: Weights) -> Callable[[Array, Array], Array]:
    """(β, ψ) → marginal and conditional R² (..., 2).

    Source: Nakagawa & Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; random slopes Johnson (2014).
    """

    def shares(beta: Array, psi: Array) -> Array:
        xp = jnp if weights.groups is None else namespace(psi)
        fixed = xp.sum((beta @ weights.fixed) * beta, axis=-1, keepdims=True)
        between, left = weights.split(psi)
        random = xp.sum(between, axis=-1, keepdims=True)
        return xp.concatenate([fixed, fixed + random], axis=-1) / (fixed + random + left)

    return shares
