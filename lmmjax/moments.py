"""Variance components by quadratic moments, and fixed effects by feasible generalised least squares.

Neither needs normality, and both are one evaluation of the criterion's derivatives. No likelihood is claimed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from lmmjax import varcomp
from lmmjax.arrays import Array, quick_jit
from lmmjax.core import Problem
from lmmjax.core.criterion import evaluate
from lmmjax.core.likelihood import profile
from lmmjax.core.start import mivque
from lmmjax.design import solve_upper

if TYPE_CHECKING:
    from lmmjax.model import Model

KINDS = ("minque0", "minque1", "mivque")


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Moment estimates; made by `Model.moments`.

    Attributes
    ----------
    model : the `Model`.
    psi : (m + 1,) components as the moment equations give them, variances possibly negative; the last is σ².
    beta : (p,) generalised least squares at the components, negative ones taken as zero; cov_beta (p, p) its
        covariance, the components taken as known.
    n_iter : solutions of the moment equations.
    converged : of an iterated estimate, whether it settled.
    """

    model: Model
    psi: np.ndarray
    beta: np.ndarray
    cov_beta: np.ndarray
    n_iter: int
    converged: bool

    def varcorr(self) -> pd.DataFrame:
        """Variance components: group, term1, term2, vcov, sdcor (missing where a variance is negative)."""
        with np.errstate(invalid="ignore"):
            table = varcomp.varcorr_table(
                self.model.components, self.psi, np.full((len(self.psi),) * 2, np.nan)
            )
        return table.drop(columns="se")

    @property
    def params(self) -> pd.Series:
        """Fixed effects by feasible generalised least squares."""
        return pd.Series(self.beta, index=list(self.model.frame.x_names), name="estimate")

    @property
    def bse(self) -> pd.Series:
        """Their standard errors."""
        values = np.sqrt(np.diagonal(self.cov_beta))
        return pd.Series(values, index=list(self.model.frame.x_names), name="se")

    def __repr__(self) -> str:
        return f"Moments({self.model.formula!r}, n_iter={self.n_iter})"


def moments(
    model: Model,
    y: np.ndarray,
    kind: str,
    prior: Any,
    iterate: bool,
    truncate: bool,
    max_iter: int,
) -> Moments:
    """See `Model.moments`."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose one of: {', '.join(KINDS)}")
    structure = model.design.structure
    if not structure.linear or structure.residual is not None or model.design.known is not None:
        raise ValueError(
            "moment estimates need variances that are linear in the parameters, none of them known"
        )
    if (prior is not None) != (kind == "mivque"):
        raise ValueError(
            "prior= belongs to kind='mivque', which needs it: components in the order of varcorr()"
        )
    if kind == "mivque":
        start = np.asarray(prior, dtype=float)
        if start.shape != (structure.n_params + 1,) or not start[-1] > 0:
            raise ValueError(
                f"prior has shape {start.shape}: pass {structure.n_params + 1} components in the order of "
                "varcorr(), the residual variance, which must be positive, last"
            )
        start = start[:-1] / start[-1]
    else:
        unit = tuple(np.eye(term.q) * (kind == "minque1") for term in structure.terms)
        start = np.asarray(structure.natural(unit, dtype=float))
    d, psi, n_iter, settled = start, np.full(structure.n_params + 1, np.nan), 0, not iterate
    with jax.enable_x64(True):
        problem = model.problem(y, True)
        while n_iter < (max_iter if iterate else 1):
            before, psi = psi, np.asarray(_components(problem, d))
            n_iter += 1
            d = _nearest(structure, psi)
            if np.all(np.abs(psi - before) <= 1e-10 * np.abs(psi).max()):
                settled = True
                break
        beta, cov = (np.asarray(a) for a in _least_squares(problem, d, psi[-1]))
    if truncate:
        psi = np.append(d * psi[-1], psi[-1])
    return Moments(model, psi, beta, cov, n_iter, settled)


def components(problem: Problem, d: Array) -> Array:
    """ψ (m + 1,) by the moment equations at the prior d (m,), in the user's coordinates; see `mivque`."""
    inner = _inward(problem, d)
    split = evaluate(problem.shared, inner, problem.response, jnp.ones_like(problem.reml))
    sigma2, found = mivque(split, problem.n - problem.basis.x_factor.shape[0], inner)
    outward = problem.structure.entry_map(problem.basis.outward).astype(d.dtype) @ found
    return jnp.concatenate([outward, sigma2[None]]) * problem.origin.scale**2


def least_squares(problem: Problem, d: Array, sigma2: Array) -> tuple[Array, Array]:
    """β̂ (p,) and σ²(XᵀH⁻¹X)⁻¹ (p, p) at relative components d (m,)."""
    fit = profile(problem.shared.gram(_inward(problem, d), problem.response))
    factor, origin = problem.basis.x_factor, problem.origin
    half = solve_upper(factor, fit.xx_inv)
    beta = origin.beta + origin.scale * solve_upper(factor, fit.beta)
    return beta, sigma2 * solve_upper(factor, half.T)


def _inward(problem: Problem, d: Array) -> Array:
    return problem.structure.entry_map(problem.basis.inward).astype(d.dtype) @ d


def _nearest(structure: Any, psi: np.ndarray) -> np.ndarray:
    """Relative components d (m,), each term's matrix with its negative eigenvalues set to zero."""
    positive = []
    for matrix in structure.matrices(psi[:-1] / psi[-1]):
        values, vectors = np.linalg.eigh(matrix)
        positive.append((vectors * np.maximum(values, 0.0)) @ vectors.T)
    return np.asarray(structure.natural(tuple(positive), float))


_components, _least_squares = quick_jit(components), quick_jit(least_squares)
