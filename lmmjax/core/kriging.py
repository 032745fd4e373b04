"""New residuals beside those of the rows: their variances and covariances, with derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmjax.core.residuals import of_pairs, relative_variances, residual_root
from lmmjax.design import Design, ResidualDesign


@dataclass(frozen=True, eq=False)
class NewResiduals:
    """k residuals to come, of m_r parameters; sparse matrices (k, n).

    Attributes
    ----------
    variance : (k,) Var(ε_new); cross : Cov(ε_new, ε), or None where it is not asked for.
    variance_slopes : (k, m_r), cross_slopes : per parameter, their derivatives in ψ.
    """

    variance: np.ndarray
    variance_slopes: np.ndarray
    cross: Any = None
    cross_slopes: tuple[Any, ...] = ()


def new_residuals(
    design: Design, psi: np.ndarray, new: ResidualDesign | None, weights: np.ndarray, linked: bool
) -> NewResiduals:
    """New residuals at ψ (m + 1,), with weights (k,), at places of the structure if there is one.

    `linked` ones correlate with those of their group; codes of −1 are new groups.
    """
    scale = psi[-1] / weights
    if new is None or design.residual is None:
        return NewResiduals(scale, np.zeros((len(scale), 0)))
    units = psi[-1] ** design.structure.powers[design.structure.tail]
    each = np.arange(len(scale))
    variance = relative_variances(design, psi, new) * scale
    slopes = of_pairs(design, psi, new, new, each, each, True, True) * scale[:, None] / units
    if not linked:
        return NewResiduals(variance, slopes)
    import scipy.sparse as sp

    own = design.residual
    one, two = _pairs(new.codes, own.codes, own.n_groups)
    root = np.sqrt(scale)[one] * residual_root(design, psi)[two]
    shape = (len(scale), design.n)
    values = of_pairs(design, psi, new, own, one, two, False) * root
    moved = of_pairs(design, psi, new, own, one, two, False, True) * root[:, None] / units
    made = [sp.coo_array((v, (one, two)), shape=shape).tocsr() for v in (values, *moved.T)]
    return NewResiduals(variance, slopes, made[0], tuple(made[1:]))


def n_pairs(new: np.ndarray, own: np.ndarray, n_groups: int) -> np.ndarray:
    """How many rows share the group of each new one, by codes (k,) and (n,)."""
    sizes = np.bincount(own, minlength=n_groups)
    return np.where(new >= 0, sizes[new], 0)


def _pairs(new: np.ndarray, own: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """New rows with every row of their group."""
    order, sizes = np.argsort(own, kind="stable"), np.bincount(own, minlength=n_groups)
    starts, counts = np.cumsum(sizes) - sizes, n_pairs(new, own, n_groups)
    one = np.repeat(np.arange(len(new)), counts)
    within = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    return one, order[starts[new[one]] + within] if len(one) else one
