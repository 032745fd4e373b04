"""Henderson's mixed-model equations of a fit, sparse, with their factor: for what needs single rows.

The criterion needs sums over rows alone (`gram`). What is said of one combination of levels needs columns of

    C = [X*ᵀX*  X*ᵀZ*; Z*ᵀX*  Z*ᵀZ* + G⁻¹]⁻¹ = Var(β̂ − β, b̂ − b),     X* = WX, Z* = WZ, WᵀW = Var(ε)⁻¹.

With G = ΛΛᵀ, which may be singular, and M = ΛᵀZ*ᵀZ*Λ + I, it is

    C_bb|β = ΛM⁻¹Λᵀ,      T = ZᵀV⁻¹X = Z*ᵀ(X* − Z*ΛM⁻¹ΛᵀZ*ᵀX*),      Φ = cov(β̂).

Nothing cancels where G is large or zero. X and Z are in the internal coordinates of their basis.

Source: Henderson (1975), doi:10.2307/2529430.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from scipy.linalg import solve_triangular

from lmmjax.arrays import Array, psd_cholesky, quick_jit
from lmmjax.core.marginal import by_level, first_columns, solver
from lmmjax.core.residual_slopes import ResidualSlopes, residual_slopes
from lmmjax.core.residuals import decorrelating
from lmmjax.design import Basis, Design
from lmmjax.design.structure import TermStructure


@dataclass(frozen=True, eq=False)
class MixedEquations:
    """The equations of a design at ψ, N columns of Z in all; matrices (n, N) and (N, N) are sparse.

    Attributes
    ----------
    design, psi : the design and ψ (m + 1,).
    x_factor : (p, p) R with X = X̃R; inward, outward : per term (q, q) b and b⁻¹ with Z̃ = Zb⁻¹.
    starts : per term the first of its columns, and N; those of a level stand side by side.
    root : W; x : X* (n, p); z : Z*; factor : Λ; zz : Z*ᵀZ*; zx : Z*ᵀX* (N, p).
    phi : (p, p) Φ in internal coordinates.
    column_parts, row_parts : (N,) and (n,) which of the parts that are independent of each other.
    """

    design: Design
    psi: np.ndarray
    x_factor: np.ndarray
    inward: tuple[np.ndarray, ...]
    outward: tuple[np.ndarray, ...]
    starts: np.ndarray
    root: Any
    x: np.ndarray
    z: Any
    factor: Any
    zz: Any
    zx: np.ndarray
    phi: np.ndarray
    column_parts: np.ndarray
    row_parts: np.ndarray

    def __getstate__(self) -> dict[str, Any]:
        # factors of SuperLU do not pickle
        return {name: value for name, value in self.__dict__.items() if name != "solve"}

    @property
    def n_columns(self) -> int:
        """N."""
        return int(self.starts[-1])

    @cached_property
    def solve(self) -> Callable[[np.ndarray], np.ndarray]:
        """M⁻¹a for a (N, k)."""
        return solver(self.factor.T @ self.zz @ self.factor)

    @cached_property
    def _absorbed(self) -> np.ndarray:
        """ΛM⁻¹ΛᵀZ*ᵀX* (N, p)."""
        return self.factor @ self.solve(self.factor.T @ self.zx)

    @cached_property
    def tx(self) -> np.ndarray:
        """T = ZᵀV⁻¹X (N, p)."""
        return self.zx - self.zz @ self._absorbed

    @cached_property
    def weighted_x(self) -> np.ndarray:
        """X* − Z*ΛM⁻¹ΛᵀZ*ᵀX* (n, p): WᵀX° = V⁻¹X."""
        return self.x - self.z @ self._absorbed

    @cached_property
    def slopes(self) -> ResidualSlopes | None:
        """Derivatives of the covariance of the residuals."""
        return residual_slopes(self.design, self.psi, self.root)

    @cached_property
    def information_slopes(self) -> list[np.ndarray]:
        """−∂_c XᵀV⁻¹X (p, p) for every parameter c but σ²."""
        out = []
        for k, (_, units) in enumerate(self.covariance_slopes):
            t = self.tx[self.columns(k)].reshape(-1, units.shape[-1], len(self.phi))
            sums = np.einsum("gap,gbr->abpr", t, t, optimize=True)
            out += list(np.einsum("cab,abpr->cpr", units, sums))
        if self.slopes is not None:
            out += [self.weighted_x.T @ moved for moved in self.slopes.moved(self.weighted_x)]
        return out

    def within(self, rows: np.ndarray, columns: np.ndarray) -> MixedEquations:
        """The equations of some whole parts, their `rows` and `columns`, with Φ and T those of all."""
        design = self.design
        terms = tuple(replace(t, z=np.asarray(t.z)[rows], codes=t.codes[rows]) for t in design.terms)
        made = replace(
            self,
            design=replace(
                design,
                x=np.asarray(design.x)[rows],
                terms=terms,
                weights=None if design.weights is None else np.asarray(design.weights)[rows],
                offset=None,
                residual=None if design.residual is None else design.residual.at(rows),
                factors=(),
            ),
            starts=np.searchsorted(columns, self.starts),
            root=self.root[rows][:, rows],
            x=self.x[rows],
            z=self.z[rows][:, columns],
            factor=self.factor[columns][:, columns],
            zz=self.zz[columns][:, columns],
            zx=self.zx[columns],
            column_parts=self.column_parts[columns],
            row_parts=self.row_parts[rows],
        )
        made.__dict__.update(
            tx=self.tx[columns], weighted_x=self.weighted_x[rows], covariance_slopes=self.covariance_slopes
        )
        return made

    def columns(self, term: int) -> slice:
        """The columns of a term."""
        return slice(int(self.starts[term]), int(self.starts[term + 1]))

    @cached_property
    def covariance_slopes(self) -> tuple[tuple[slice, np.ndarray], ...]:
        """Per term where its parameters lie in ψ, and ∂_cG (c, q, q) of a level, in internal coordinates."""
        structure, psi, out = self.design.structure, self.psi, []
        d, units = structure.relative(psi), psi[-1] ** structure.powers
        for term, s, b in zip(structure.terms, structure.slices(), self.inward, strict=False):
            if term.family.linear:
                slopes = np.asarray(term.units)
            else:
                with jax.enable_x64(True):
                    slopes = np.moveaxis(np.asarray(_matrix_slopes(term, d[s])), -1, 0)
            out.append((s, psi[-1] / units[s][:, None, None] * (b @ slopes @ b.T)))
        return tuple(out)

    def covariance(self, term: int) -> np.ndarray:
        """G (q, q) of a level of a term, in internal coordinates."""
        b = self.inward[term]
        return b @ np.asarray(self.design.structure.absolute(self.psi)[term]) @ b.T

    def inner_x(self, x: np.ndarray) -> np.ndarray:
        """Rows x (k, p) in internal coordinates."""
        return solve_triangular(self.x_factor, x.T, trans=1, check_finite=False).T if x.size else x


def mixed_equations(design: Design, basis: Basis, psi: np.ndarray, cov_beta: np.ndarray) -> MixedEquations:
    """The equations at ψ (m + 1,), with the covariance matrix Φ (p, p) of β̂ in the user's coordinates.

    The basis is that of the design, without units of rows.
    """
    import scipy.sparse as sp

    root, x_factor = decorrelating(design, psi), np.asarray(basis.x_factor)
    inward, outward = ([np.asarray(b) for b in side] for side in (basis.inward, basis.outward))
    terms = list(zip(design.terms, inward, outward, design.structure.absolute(psi), strict=False))
    factors = [
        sp.kron(sp.eye_array(term.n_effects), psd_cholesky(b @ np.asarray(cov) @ b.T, 1e-13))
        for term, b, _, cov in terms
    ]
    z = root @ by_level(design, [np.asarray(term.z) @ back for term, _, back, _ in terms])
    x = root @ solve_triangular(x_factor, np.asarray(design.x).T, trans=1).T
    zz = (z.T @ z).tocsr()
    factor = sp.block_diag(factors, format="csr") if factors else sp.csr_array((0, 0))
    phi = x_factor @ cov_beta @ x_factor.T
    return MixedEquations(
        design,
        psi,
        x_factor,
        tuple(inward),
        tuple(outward),
        first_columns(design),
        root,
        x,
        z,
        factor,
        zz,
        z.T @ x,
        phi,
        *_parts(design, root),
    )


@partial(quick_jit, static_argnums=0)
def _matrix_slopes(term: TermStructure, d: Array) -> Array:
    return jax.jacfwd(lambda d: term.family.matrix(d, term.q))(d)


def _parts(design: Design, root: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of columns and rows: what residuals and levels connect, also where a row of Z is zero."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components

    if not design.terms:
        own = np.zeros(design.n, int) if design.residual is None else design.residual.codes
        return np.zeros(0, int), own
    levels = by_level(design, [np.ones((design.n, term.q)) for term in design.terms])
    square = sp.csr_array((levels.shape[1],) * 2)
    _, parts = connected_components(sp.block_array([[root, levels], [None, square]]), directed=False)
    return parts[design.n :], parts[: design.n]
