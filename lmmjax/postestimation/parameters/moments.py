"""Variance components of a model by MINQUE and MIVQUE."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from lmmjax.fitted import ModelData, require_choice
from lmmjax.inference.minque import components_jit, least_squares_jit, nearest_positive

KINDS = ("minque0", "minque1", "mivque")


@dataclasses.dataclass(frozen=True, eq=False)
class MomentEstimates:
    """Moment estimates of a model.

    Attributes
    ----------
    data : the model with its data; the others as in `Moments`.
    """

    data: ModelData
    psi: np.ndarray
    beta: np.ndarray
    cov_beta: np.ndarray
    n_iter: int
    converged: bool


def moments(
    data: ModelData,
    y: np.ndarray,
    kind: str,
    prior: Any,
    iterate: bool,
    truncate: bool,
    max_iter: int,
) -> MomentEstimates:
    """See `Model.moments`."""
    require_choice("kind", kind, KINDS)
    structure = data.design.structure
    if not structure.linear or structure.residual is not None or data.design.known is not None:
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
        problem = data.problem(y, True)
        while n_iter < (max_iter if iterate else 1):
            before, psi = psi, np.asarray(components_jit(problem, d))
            n_iter += 1
            d = nearest_positive(structure, psi)
            if np.all(np.abs(psi - before) <= 1e-10 * np.abs(psi).max()):
                settled = True
                break
        beta, cov = (np.asarray(a) for a in least_squares_jit(problem, d, psi[-1]))
    if truncate:
        psi = np.append(d * psi[-1], psi[-1])
    return MomentEstimates(data, psi, beta, cov, n_iter, settled)
