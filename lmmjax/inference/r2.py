"""Shares of variance: intraclass correlation, R², every term; functions of β (..., p) and ψ (..., m + 1).

The variance of the fixed part is βᵀCβ, C the sample covariance of the columns of X, that of a random term
the mean over the rows of zᵀΣz, ⟨Σ, ZᵀZ/n⟩ (Johnson 2014, doi:10.1111/2041-210X.12225), with a kernel that of
K_gg zᵀΣz, g the level of the row, and that of the
residual the mean over the rows of σ²s²/w, with prior weights w (the reciprocals of known variances among
them) and standard deviations σs of a residual structure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace, record, static
from lmmjax.design import Design, RandomTerm, TermStructure


@record
class Weights:
    """What the shares need of a design; arrays lead with T where responses have rows or weights of their own.

    Attributes
    ----------
    groups : (g, m) weights of the entries of Σ, all terms, in the variance of each grouping factor; where
        variances are not linear in ψ, None.
    fixed : (p, p) sample covariance C of the columns of X.
    noise : mean of 1/w.
    rows : (n,) 1/w over the number of rows, 0 for a row that does not count; of structured residuals.
    squares : per term (q, q) ZᵀZ/n, where variances are not linear.
    variance : ψ (m + 1,), squares and rows → variances (g + 1,) of the grouping factors and the residual,
        where they are not linear.
    """

    groups: Array | None
    fixed: Array
    noise: Array
    rows: Array | None = None
    squares: tuple[Array, ...] = ()
    variance: Callable[..., Array] | None = static(default=None)

    def split(self, psi: Array) -> tuple[Array, Array]:
        """Variances (..., g) of the grouping factors, and (..., 1) of the residual."""
        if self.groups is not None:
            xp = namespace(psi, self.groups)
            between = xp.sum(psi[..., None, :-1] * self.groups, axis=-1)
            return between, psi[..., -1:] * xp.asarray(self.noise)[..., None]
        assert self.variance is not None
        shapes = ["(m)", *(f"(a{k},a{k})" for k in range(len(self.squares))), "(n)"]
        mapped = jnp.vectorize(self.variance, signature=f"{','.join(shapes)}->(g)")
        rows = jnp.asarray(self.noise)[..., None] if self.rows is None else self.rows
        both = mapped(psi, *self.squares, rows)
        return both[..., :-1], both[..., -1:]


SCALES = ("diagonal", "sample", "ratio")
"""What a variance of levels with a kernel counts for: K_gg, variances among the rows, or 1."""


def share_weights(
    design: Design, labels: list[str], own: np.ndarray | None = None, scale: str = "diagonal"
) -> tuple[Weights, list[str]]:
    """The weights, and the grouping factors in order; `labels` names that of each random term.

    Parameters
    ----------
    own : (n, T) weights of the responses beside the prior ones, 0 for rows that they lack.
    scale : "diagonal": means over the rows of K_gg zᵀΣz; "sample": the expected sample variance of the rows'
        effects, tr(C ZKZᵀ)/(n − 1) with C = I − 11ᵀ/n, for Σ a scalar; "ratio": K_gg is taken as 1.
    """
    names = list(dict.fromkeys(labels))
    if design.condensed is not None:
        if scale != "diagonal" and any(term.kernel is not None for term in design.terms):
            raise ValueError(
                f'scale={scale!r} needs all rows, and those of this fit are read by the chunk: use "diagonal"'
            )
        moments = design.condensed.covariance, design.condensed.squares, design.condensed.noise
        return _share_weights(design, labels, *moments), names
    one = np.ones((design.n, 1)) if own is None else own
    counted = one > 0
    total = np.where(counted, one, 1.0)
    if design.weights is not None:
        total = total * np.asarray(design.weights)[:, None]
    count = np.maximum(counted.sum(axis=0), 1)
    share = counted / count
    reciprocal = share / total

    def lead(a: np.ndarray) -> np.ndarray:
        """The trailing axis of responses first; dropped if there is one design."""
        return a[..., 0] if own is None else np.moveaxis(a, -1, 0)

    # centred as a whole: less is lost when the means of a response are taken off
    x = np.asarray(design.x) - np.asarray(design.x).mean(axis=0)
    mean = x.T @ share
    fixed = _products(x, share) - mean[:, None] * mean[None, :]
    fixed = fixed * (count / np.maximum(count - 1, 1))
    lengths = [1.0 if scale == "ratio" else term.lengths[:, None] for term in design.terms]
    columns = [np.asarray(term.z) * length for term, length in zip(design.terms, lengths, strict=True)]
    squares = tuple(lead(_products(z, share)) for z in columns)
    if scale == "sample":
        pairs = zip(squares, design.terms, strict=True)
        squares = tuple(_less_mean(square, term, lead(share), lead(count[None])) for square, term in pairs)
    noise = lead(reciprocal.sum(axis=0, keepdims=True))[..., 0] if own is not None else reciprocal.sum()
    rows = None if design.structure.residual is None else lead(reciprocal)
    return _share_weights(design, labels, lead(fixed), squares, noise, rows), names


def _share_weights(
    design: Design,
    labels: list[str],
    fixed: np.ndarray,
    squares: tuple[np.ndarray, ...],
    noise: Any,
    rows: np.ndarray | None = None,
) -> Weights:
    """The weights of a design of which the moments are known."""
    names, structure = list(dict.fromkeys(labels)), design.structure
    if not structure.linear or structure.residual is not None:
        variance = _variances(design, [names.index(label) for label in labels])
        return Weights(None, fixed, noise, rows, squares, variance)
    groups = np.zeros((*squares[0].shape[:-2], len(names), structure.n_params)) if squares else None
    if groups is None:
        groups = np.zeros((*np.shape(noise), 0, 0))
    terms = zip(squares, labels, structure.terms, structure.slices(), strict=True)
    for square, label, term, at in terms:
        groups[..., names.index(label), at] = entry_weights(square, term)
    return Weights(groups, fixed, noise)


def _products(columns: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Σ share_i c_i c_iᵀ (q, q, T) of columns (n, q)."""
    q = columns.shape[1]
    pairs = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), q * q)
    return (pairs.T @ share).reshape(q, q, share.shape[1])


def _less_mean(square: np.ndarray, term: RandomTerm, share: np.ndarray, count: np.ndarray) -> np.ndarray:
    """n/(n − 1) times (mean of K_gg zzᵀ − the same of the mean row): (..., q, q), share (..., n) of rows."""
    total = share @ term.expand(np.asarray(term.z))
    mean = total.reshape(*share.shape[:-1], -1, term.q)
    n = count.reshape(*np.shape(share)[:-1], 1, 1)
    return (square - np.swapaxes(mean, -1, -2) @ mean) * (n / np.maximum(n - 1, 1))


def _variances(design: Design, factor: list[int]) -> Callable[..., Array]:
    """(ψ, squares, rows) → ⟨Σ, ZᵀZ/n⟩ by grouping factor, and the mean variance of the residuals."""
    structure, own = design.structure, design.residual

    def variance(psi: Array, *means: Array) -> Array:
        *squares, rows = means
        matrices = structure.absolute(psi)
        out = [jnp.zeros((), psi.dtype)] * (max(factor, default=-1) + 1)
        for k, square, matrix in zip(factor, squares, matrices, strict=True):
            out[k] = out[k] + jnp.sum(square * matrix)
        each = rows
        if own is not None:
            r = structure.relative(psi)[structure.tail]
            place, level = jnp.asarray(own.place), own.structure.group_level(own.covariates)
            each = each * own.structure.correlation(r, place, place, jnp.ones(design.n, bool), level)
            sd = own.structure.sd(r, own.covariates)
            each = each if sd is None else each * sd * sd
        return jnp.stack([*out, psi[-1] * jnp.sum(each)])

    return variance


def entry_weights(square: np.ndarray, term: TermStructure) -> np.ndarray:
    """Weights (..., m) of the entries of Σ in ⟨Σ, ZᵀZ/n⟩, `square` ZᵀZ/n (..., q, q)."""
    return np.stack([square[..., i, j] * (1.0 if i == j else 2.0) for i, j in term.entries], axis=-1)


def group_shares(weights: Weights, beta: Array, psi: Array) -> Array:
    """Shares of grouping factors in the variance beyond the fixed part, and their sum (..., g + 1)."""
    between, left = weights.split(psi)
    xp = namespace(between, left)
    total = xp.sum(between, axis=-1, keepdims=True)
    return xp.concatenate([between, total], axis=-1) / (total + left)


def r_squared(weights: Weights, beta: Array, psi: Array) -> Array:
    """Marginal and conditional R² (..., 2).

    Source: Nakagawa & Schielzeth (2013), doi:10.1111/j.2041-210x.2012.00261.x; random slopes Johnson (2014).
    """
    between, left = weights.split(psi)
    xp = namespace(between, left, beta)
    fixed = xp.sum(xp.sum(beta[..., None] * weights.fixed, axis=-2) * beta, axis=-1, keepdims=True)
    random = xp.sum(between, axis=-1, keepdims=True)
    return xp.concatenate([fixed, fixed + random], axis=-1) / (fixed + random + left)


def term_shares(weights: Weights, members: np.ndarray, beta: Array, psi: Array) -> Array:
    """Shares of the fixed terms, the random terms and the residual in their sum (..., f + g + 1).

    Of a fixed term it is the variance of its part of xᵀβ, β_tᵀC_ttβ_t, without the covariances of terms, so
    that a share depends on its own term alone.

    Parameters
    ----------
    members : (f, p) of 0 and 1, which coefficients are those of each fixed term.

    Source: Hoffman & Schadt (2016), doi:10.1186/s12859-016-1323-z.
    """
    between, left = weights.split(psi)
    xp = namespace(between, left, beta)
    own = beta[..., None, :] * members
    fixed = xp.sum((own @ xp.asarray(weights.fixed)) * own, axis=-1)
    parts = xp.concatenate([fixed, between, left], axis=-1)
    return parts / xp.sum(parts, axis=-1, keepdims=True)
