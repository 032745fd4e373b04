"""Derivatives of V in every covariance parameter ψ_j, applied to rows: V_j w = Σ ZĊ_jZᵀw + Ṙ_jw.

Ċ_j is the derivative of the covariance of a term's effects in ψ_j, Ṙ_j that of the residuals.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.core.residuals import group_pairs, of_pairs
from lmmjax.design import Design, Structure


@partial(quick_jit, static_argnums=0)
def _term_slopes(structure: Structure, psi: Array) -> tuple[Array, ...]:
    return jax.jacfwd(structure.absolute)(psi)


class CovarianceSlopes:
    """V_j of t responses that share a design, at their ψ (t, m + 1).

    Raises
    ------
    ValueError : several responses where the residuals have a structure.
    """

    def __init__(self, design: Design, psi: np.ndarray):
        import scipy.sparse as sp

        self.design, self.lanes, self.m = design, len(psi), psi.shape[1]
        structure = design.structure
        if structure.linear and design.residual is None:
            # ψ are entries of the covariances: the same derivatives for all
            own = [(term.units.reshape(-1, term.q, term.q), s) for term, s in _parts(structure)]
            self.terms = [_widened(units, s, self.m)[None] for units, s in own]
        else:
            with jax.enable_x64(True):
                found = [_term_slopes(structure, row) for row in psi]
            self.terms = [
                np.stack([np.moveaxis(np.asarray(f[k]), -1, 0) for f in found])
                for k in range(len(design.terms))
            ]
        self.columns = [sp.csr_array(term.expand(np.asarray(term.z))) for term in design.terms]
        self.weights = np.ones(design.n) if design.weights is None else np.asarray(design.weights)
        if design.residual is not None and self.lanes > 1:
            raise ValueError("derivatives of structured residuals are those of one response at a time")
        self.residual = None if design.residual is None else _residual_slopes(design, psi[0])

    def __call__(self, w: np.ndarray) -> Iterator[np.ndarray]:
        """Yields V_j w (t, n, r) for rows w (t, n, r), parameter after parameter."""
        t, n, r = w.shape
        flat = np.moveaxis(w, 0, 1).reshape(n, -1)
        pairs = list(zip(self.columns, self.terms, strict=True))
        inside = [(z.T @ flat).reshape(-1, c.shape[-1], t, r) for z, c in pairs]
        for j in range(self.m):
            out = np.zeros((n, t * r))
            for (z, c), own in zip(pairs, inside, strict=True):
                if np.any(c[:, j]):
                    moved = np.einsum("tab,gbtr->gatr", np.broadcast_to(c[:, j], (t, *c.shape[2:])), own)
                    out += z @ moved.reshape(-1, t * r)
            if self.residual is not None:
                out += self.residual[j] @ flat
            elif j == self.m - 1 and self.design.known is None:
                out += flat / self.weights[:, None]
            yield np.moveaxis(out.reshape(n, t, r), 1, 0)


def _parts(structure: Structure) -> list[Any]:
    return list(zip(structure.terms, structure.slices(), strict=True))


def _widened(units: np.ndarray, where: slice, m: int) -> np.ndarray:
    out = np.zeros((m, *units.shape[1:]))
    out[where] = units
    return out


def _residual_slopes(design: Design, psi: np.ndarray) -> list[Any]:
    """Ṙ_j (n, n), sparse, of R = σ²W^(−½)C(r)W^(−½) with r_c = ψ_c/σ^(2p_c), p_c the power of parameter c."""
    import scipy.sparse as sp

    own, structure, s = design.residual, design.structure, float(psi[-1])
    assert own is not None
    tail, n = structure.tail, design.n
    root = np.ones(n) if design.weights is None else 1.0 / np.sqrt(np.asarray(design.weights))
    pairs = group_pairs(own)
    value = of_pairs(design, psi, own, own, pairs.one, pairs.two, pairs.same)
    slope = of_pairs(design, psi, own, own, pairs.one, pairs.two, pairs.same, slopes=True)
    r, powers = np.asarray(structure.relative(psi))[tail], structure.powers[tail]
    tables = {tail.start + c: s ** (1.0 - powers[c]) * slope[:, c] for c in range(len(r))}
    # ∂R/∂σ² = C − Σ_c p_c r_c ∂C/∂r_c
    tables[len(psi) - 1] = value - slope @ (powers * r)
    out = []
    for j in range(len(psi)):
        entries, left, right = [], [], []
        for rows, at in zip(pairs.rows, pairs.at, strict=True):
            if j in tables:
                scale = root[rows][:, :, None] * root[rows][:, None, :]
                entries.append((tables[j][at] * scale).ravel())
                left.append(np.repeat(rows, rows.shape[1], axis=1).ravel())
                right.append(np.tile(rows, (1, rows.shape[1])).ravel())
        empty = sp.csr_array((n, n))
        where = (np.concatenate(left), np.concatenate(right)) if entries else None
        out.append(sp.coo_array((np.concatenate(entries), where), shape=(n, n)).tocsr() if entries else empty)
    if design.known is not None:
        out[-1] = sp.csr_array((n, n))
    return out
