"""Prediction errors of many responses that share a design, as variances of fixed effects of added rows.

For t = xᵀβ + aᵀb give the design a row of response 0 that has zᵀ = aᵀ, nothing of X, weight w and a
coefficient γ of its own. It is fitted exactly, so that β̂, the criterion and the information on ψ are as
before, and

    γ̂ = −aᵀb̂,     xᵀβ̂ − γ̂ = t̂,     Var(xᵀβ̂ − γ̂) = Var(t̂ − t) + σ²/w.

Contrasts of β and γ thus have the prediction errors, their derivatives in ψ and what Kenward and Roger add to
them, for all responses in one program. Several targets are several rows. A row with s⁻¹aᵀ, s of the size of a
beside the rows of the design, leaves the internal coordinates as they are: its γ̂ is taken s times.

Source: Henderson (1975), doi:10.2307/2529430, for Var(t̂ − t); the row added is that of the missing-plot
method.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.core import ProblemMaker
from lmmjax.design import Design


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """k combinations aᵀb of random effects: per term z (k, q), in the user's coordinates, and levels (k,)."""

    z: tuple[np.ndarray, ...]
    codes: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.codes[0]) if self.codes else 0

    def take(self, some: np.ndarray) -> Effects:
        """Some of the combinations."""
        return Effects(tuple(z[some] for z in self.z), tuple(codes[some] for codes in self.codes))


def sizes(maker: ProblemMaker, effects: Effects) -> np.ndarray:
    """s (k,), at least 1: the length of a in the internal coordinates of a term, in lengths of rows."""
    rows = np.sqrt(maker.design.n * weight_of(maker.design))
    out = np.ones(len(effects))
    terms = zip(maker.design.terms, effects.z, effects.codes, maker.basis.outward, strict=False)
    for term, z, codes, outward in terms:
        size = 1.0 if term.kernel is None else np.sqrt(term.kernel.diagonal[codes])
        out = np.maximum(out, rows * size * np.linalg.norm(z @ np.asarray(outward), axis=1))
    return out


def weight_of(design: Design) -> float:
    """w: about that of a row, so that σ²/w neither covers what it is added to nor outweighs a level."""
    return 1.0 if design.weights is None else float(np.mean(design.weights))


def with_effects(maker: ProblemMaker, effects: Effects, size: np.ndarray) -> ProblemMaker:
    """The maker of the design with a row and a coefficient, after those of X, for each of k combinations.

    Rows are over their `size` (k,).

    Raises
    ------
    ValueError : the residuals have a structure.
    """
    design, k = maker.design, len(effects)
    if design.residual is not None:
        raise ValueError("rows are added to designs of independent residuals only")
    x = np.zeros((design.n + k, design.p + k))
    x[: design.n, : design.p] = design.x
    x[design.n :, design.p :] = np.eye(k)
    terms = []
    for term, z, codes in zip(design.terms, effects.z, effects.codes, strict=True):
        whole = np.concatenate([np.asarray(term.z), z / size[:, None]])
        terms.append(dataclasses.replace(term, z=whole, codes=np.concatenate([term.codes, codes])))
    weights = np.ones(design.n) if design.weights is None else np.asarray(design.weights)
    added = np.concatenate([weights, np.full(k, weight_of(design))])
    weights = None if design.weights is None else added
    return ProblemMaker(Design(x, tuple(terms), weights, known=design.known), maker.backend)
