"""Shares of variance: intraclass correlation and R², as functions of β (..., p) and ψ (..., m + 1).

The variance of the fixed part is βᵀCβ, C the sample covariance of the columns of X, and that of a random term
the mean over the rows of zᵀΣz, ⟨Σ, ZᵀZ/n⟩ (Johnson 2014, doi:10.1111/2041-210X.12225).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmjax._types import Array, namespace, record
from lmmjax.covariance.structure import TermStructure
from lmmjax.design import Design


@record
class Weights:
    """What the shares need of a design.

    Attributes
    ----------
    groups : (g, m) weights of the entries of Σ, all terms, in the variance of each grouping factor.
    fixed : (p, p) sample covariance C of the columns of X.
    """

    groups: Array
    fixed: Array


def share_weights(design: Design, labels: list[str]) -> tuple[Weights, list[str]]:
    """The weights, and the grouping factors in order; `labels` names that of each random term."""
    names = list(dict.fromkeys(labels))
    groups = np.zeros((len(names), design.structure.n_params))
    pairs = zip(design.terms, labels, design.structure.terms, design.structure.slices(), strict=True)
    for term, label, own, at in pairs:
        groups[names.index(label), at] = entry_weights(np.asarray(term.z), own)
    x = np.asarray(design.x)
    centred = x - x.mean(axis=0)
    return Weights(groups, centred.T @ centred / (len(x) - 1)), names


def entry_weights(z: np.ndarray, term: TermStructure) -> np.ndarray:
    """Weights of the entries of Σ in ⟨Σ, ZᵀZ/n⟩."""
    square = z.T @ z / len(z)
    return np.array([square[i, j] * (1.0 if i == j else 2.0) for i, j in term.entries])


def group_shares(weights: Weights) -> Callable[[Array, Array], Array]:
    """(β, ψ) → shares of grouping factors in the variance beyond the fixed part, and the sum (..., g + 1)."""

    def shares(beta: Array, psi: Array) -> Array:
        xp = namespace(psi)
        between = psi[..., :-1] @ weights.groups.T
        total = xp.sum(between, axis=-1, keepdims=True)
        return xp.concatenate([between, total], axis=-1) / (total + psi[..., -1:])

    return shares


def r_squared(weights: Weights) -> Callable[[Array, Array], Array]:
    """(β, ψ) → marginal and conditional R² (..., 2).

    Source: Nakagawa & Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; random slopes Johnson (2014).
    """

    def shares(beta: Array, psi: Array) -> Array:
        xp = namespace(psi)
        fixed = xp.sum((beta @ weights.fixed) * beta, axis=-1, keepdims=True)
        random = xp.sum(psi[..., :-1] @ weights.groups.T, axis=-1, keepdims=True)
        return xp.concatenate([fixed, fixed + random], axis=-1) / (fixed + random + psi[..., -1:])

    return shares
