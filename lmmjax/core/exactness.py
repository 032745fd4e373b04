"""Responses that X and Z explain wholly, whatever the backend: their likelihood has no bound.

Backends that form squares within groups see it in the products (`gram/grouped/settle.py`); others descend to
where rounding stops them. Whoever ends there is looked at again: e = y − Wγ with W = [X Z], rows times √w,

    γ ← γ + (WᵀW + δI)⁻¹Wᵀe,

until what is left of e is orthogonal to W, or nothing. Residuals that are correlated perfectly are seen by
the criterion.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmjax.arrays.sparse_columns import Columns, finite_columns, pieces
from lmmjax.core.estimate import Estimate
from lmmjax.core.marginal import by_level
from lmmjax.core.problem import ProblemMaker
from lmmjax.core.residuals import covariance, relative_variances
from lmmjax.design import Design
from lmmjax.gram.block.prepare import BlockPrepared
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.optimize import Status

TINY = 1e-9
"""A residual variance below this share of that of the response asks for a look."""

NOTHING, SINGULAR = 1e-10, 1e-9
"""A mean variance below this share of that of the response, where no descent converges, is none, in
directions of which residuals have less than `SINGULAR` of theirs."""

LARGEST = 300
"""Rows of a group whose correlations are looked at."""

FAR, DEPENDENT = 1e8, 1e-6
"""Ratio of variances, and variance of a residual given others as a share of its own, beyond which rounding
hides optima."""

SOON = 8
"""Evaluations up to which a limit has been set so low."""

ROUNDING = (64 * np.finfo(float).eps) ** 2
"""Share of the squares of a response that rounding leaves where X and Z explain all of it."""

RIDGE, STEPS = 1e-8, 30
"""δ, for columns of unit length, and steps: components of W below 1e-4 of its length need most."""

ROOM = 1e-12
"""Share of the squares of any response that W leaves, below which it spans everything."""


def exact_lanes(
    maker: ProblemMaker, y: Columns, estimate: Estimate, reml: bool, spread: np.ndarray | None = None
) -> np.ndarray:
    """Which responses y (n, T) are fitted perfectly, of those that did not converge or hardly have residuals.

    Parameters
    ----------
    estimate : their fits, arrays that lead with T.
    spread : (T,) variances of the responses, where they are known.
    """
    status, design = np.asarray(estimate.status), maker.design
    if design.known is not None:
        return np.zeros(y.shape[1], bool)
    # those of which nothing is asked are not read
    stopped = _finite(y, np.isin(status, (Status.STALLED, Status.ITERATION_LIMIT)))
    out = np.zeros(y.shape[1], bool)
    if stopped.any() and design.residual is not None:
        where = np.flatnonzero(stopped)
        psi, deviance = (np.asarray(a)[stopped] for a in (estimate.psi, estimate.deviance))
        shares = singular_shares(design, psi)
        for part, values in pieces(y[:, where]):
            out[where[part]] = unbounded(maker, values, deviance[part], reml, shares[part])
    if isinstance(maker.prepared, GroupedPrepared | SpectralPrepared | BlockPrepared) or not design.terms:
        return out
    with np.errstate(all="ignore"):
        if spread is None:
            spread = np.concatenate([np.var(values, axis=0) for _, values in pieces(y)])
        small = np.asarray(estimate.sigma2) <= TINY * spread
    suspect = (stopped | small | (status == Status.NOT_FINITE)) & ~out & (status != Status.PERFECT_FIT)
    where = np.flatnonzero(_finite(y, suspect))
    for part, values in pieces(y[:, where]) if len(where) else ():
        out[where[part]] = spanned(design, values)
    return out


def _finite(y: Columns, those: np.ndarray) -> np.ndarray:
    """Which of `those` responses (T,) are finite (T,); only these are read."""
    out, where = np.zeros(len(those), bool), np.flatnonzero(those)
    if len(where):
        out[where] = finite_columns(y if len(where) == len(those) else y[:, where])
    return out


def singular_shares(design: Design, psi: np.ndarray) -> np.ndarray:
    """Shares (T,) of the directions of the largest group in which residuals have no variance at ψ (T, m + 1).

    1 where these are none, as where residuals are independent.
    """
    out = np.ones(len(psi))
    if design.residual is None:
        return out
    for j in range(len(psi)):
        if not np.all(np.isfinite(psi[j])):
            continue
        r = _correlations(design, psi[j])
        none = np.linalg.eigvalsh(r) < SINGULAR
        out[j] = np.mean(none) if none.any() and len(r) > 1 else 1.0
    return out


def without_digits(design: Design, estimate: Estimate) -> np.ndarray:
    """Which descents (T,) stopped where doubles have too few digits for the criterion.

    Residuals of the largest group all but dependent, or variances far apart, those of random effects too.
    """
    status = np.asarray(estimate.status)
    long = np.asarray(estimate.n_iter) > SOON
    out = (status == Status.STALLED) | ((status == Status.ITERATION_LIMIT) & long)
    structure, n = design.structure, design.n
    squares = [np.asarray(t.z, float).T @ np.asarray(t.z, float) / n for t in design.terms]
    for j in np.flatnonzero(out):
        psi = np.asarray(estimate.psi)[j]
        out[j] = np.all(np.isfinite(psi))
        if not out[j]:
            continue
        with np.errstate(all="ignore"):
            matrices = structure.matrices(structure.relative(psi))
            far = sum(np.sum(np.asarray(m) * s) for m, s in zip(matrices, squares, strict=True)) > FAR
            if not far and design.residual is not None:
                sizes = relative_variances(design, psi, design.residual)
                r = _correlations(design, psi)
                far = sizes.max() > FAR * sizes.min() or not np.linalg.eigvalsh(r)[0] > DEPENDENT
        out[j] = far
    return out


def _correlations(design: Design, psi: np.ndarray) -> np.ndarray:
    """Correlations (k, k) of the residuals of the largest group at ψ (m + 1,)."""
    assert design.residual is not None
    codes = design.residual.codes
    rows = np.flatnonzero(codes == np.argmax(np.bincount(codes)))[:LARGEST]
    r = covariance(design, psi, rows)
    sd = np.sqrt(np.diagonal(r))
    return r / sd[:, None] / sd if np.all(sd > 0.0) else np.zeros((1, 1))


def unbounded(
    maker: ProblemMaker, y: np.ndarray, deviance: np.ndarray, reml: bool, shares: np.ndarray
) -> np.ndarray:
    """Which criteria (T,) at which descents stopped say that V is singular in the direction of y (n, T).

    (f − κ log|RᵀR|)/ν = 1 + log 2π + the mean log variance, R of X = X̃R, beside that of what X leaves of y;
    of which a share of the directions has none, as where y is constant within groups of free covariances.
    """
    n, p = maker.design.x.shape
    r = np.asarray(maker.basis.x_factor)
    nu = n - reml * p
    shift = 2.0 * reml * np.sum(np.log(np.abs(np.diagonal(r))))
    x = np.asarray(maker.design.x, float)
    with np.errstate(all="ignore"):
        left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        size = np.max(np.abs(left), axis=0)
        spread = 2.0 * np.log(size) + np.log(np.mean((left / size) ** 2, axis=0))
        return (deviance - shift) / nu - 1.0 - np.log(2.0 * np.pi) < spread + shares * np.log(NOTHING)


def spanned(design: Design, y: np.ndarray) -> np.ndarray:
    """Which responses y (n, T) lie in the columns of X and Z, where these leave room for others."""
    # imported here: scipy.sparse adds a warning filter, and most fits have no use for it
    import scipy.sparse as sp
    from scipy.sparse.linalg import splu

    n = design.n
    root = np.ones(n) if design.weights is None else np.sqrt(np.asarray(design.weights, float))
    z = by_level(design, [np.asarray(term.z, float) for term in design.terms])
    blocks = [sp.csr_array(np.asarray(design.x, float)), z]
    w: Any = sp.csr_array(sp.diags_array(root) @ sp.csr_array(sp.hstack(blocks)))
    length = np.sqrt(np.asarray(w.multiply(w).sum(axis=0))).ravel()
    w = sp.csr_array(w.multiply(1.0 / np.where(length > 0, length, 1.0)))
    gram = sp.csc_array(w.T @ w + RIDGE * sp.eye_array(w.shape[1]))
    solve = splu(gram).solve
    # a response that no design has in mind
    probe = np.cos(np.arange(n) ** 2 + 1.0)[:, None]
    values = y if design.offset is None else y - np.asarray(design.offset).reshape(-1, 1)
    e = np.concatenate([values * root[:, None], probe], axis=1)
    total = np.einsum("nt,nt->t", e, e)
    for _ in range(STEPS):
        e = e - w @ solve(w.T @ e)
    left = np.einsum("nt,nt->t", e, e)
    return (left[:-1] <= ROUNDING * total[:-1]) & (left[-1] > ROOM * total[-1])
