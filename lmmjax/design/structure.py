"""The covariance structure of a model: θ ↔ d, the natural parameters relative to σ².

d (m,) stacks, term after term, the natural parameters of D in the order of `varcorr()`, and then those of the
residual structure. With V = σ²H(d), parameter c on the scale of V is ψ_c = σ^(2·power_c) d_c. Where every
structure is linear d are the free entries of the matrices D, and H is linear in d.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, block_diagonal, diagonal, namespace, pivot_order, psd_cholesky, traced_once
from lmmjax.covariance import CovarianceFamily, FactorFamily, Parameter, Unstructured
from lmmjax.residual import ResidualStructure


@dataclasses.dataclass(frozen=True)
class TermStructure:
    """One term: its family and its number of columns q."""

    family: CovarianceFamily
    q: int

    @property
    def n_params(self) -> int:
        return self.family.n_params(self.q)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.family.parameters(self.q)

    @property
    def starts(self) -> tuple[np.ndarray, ...]:
        return self.family.starts(self.q)

    @property
    def linear(self) -> FactorFamily:
        """The family, which is known to be linear."""
        assert isinstance(self.family, FactorFamily)
        return self.family

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        """Positions of the free entries of D, of a linear family."""
        return self.linear.entries(self.q)

    @property
    def units(self) -> np.ndarray:
        """The symmetric unit matrices E (m, q, q) with D = Σ d_c E_c, of a linear family."""
        return self.linear.units(self.q)


@dataclasses.dataclass(frozen=True)
class Structure:
    """The covariance structure of all terms and of the residuals (None: independent); static, hashable."""

    terms: tuple[TermStructure, ...]
    residual: ResidualStructure | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The m parameters in order."""
        own = () if self.residual is None else self.residual.parameters
        return (*(p for term in self.terms for p in term.parameters), *own)

    @property
    def n_params(self) -> int:
        return len(self.parameters)

    @property
    def linear(self) -> bool:
        """Whether V is linear in the parameters, on its own scale."""
        return all(t.family.linear for t in self.terms) and (self.residual is None or self.residual.linear)

    @property
    def several(self) -> bool:
        """Whether the criterion is known to have several optima with any number of groups."""
        own = None if self.residual is None else self.residual.residual.correlation
        return any(not term.family.linear for term in self.terms) or (own is not None and own.several)

    @property
    def powers(self) -> np.ndarray:
        """(m,) `power` of every parameter."""
        return np.array([p.power for p in self.parameters])

    @property
    def columns(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """Positions in θ of the columns of every Λ, diagonal entry first, and of variances alone.

        The criterion is even and smooth in the common sign of each. Those of one unstructured Λ make a
        group: in pivoted order the last of them are the first to vanish.
        """
        out = []
        for term, s in zip(self.terms, self.slices(), strict=True):
            family, first = term.family, s.start
            if isinstance(family, FactorFamily):
                of = family.params(np.broadcast_to(np.arange(term.q), (term.q, term.q)))
                columns = [first + np.flatnonzero(of == j) for j in range(term.q)]
                out += [tuple(columns)] if family.basis == "triangular" else [(c,) for c in columns]
            else:
                out += [(np.array([first + k]),) for k, p in enumerate(term.parameters) if p.smooth]
        own = self.residual.parameters if self.residual else ()
        return (*out, *((np.array([self.tail.start + k]),) for k, p in enumerate(own) if p.smooth))

    def slices(self) -> list[slice]:
        """Where each term's parameters lie in θ and in d."""
        return _slices([term.n_params for term in self.terms])

    @property
    def tail(self) -> slice:
        """Where the residual's parameters lie."""
        return slice(sum(term.n_params for term in self.terms), self.n_params)

    @property
    def by_moments(self) -> np.ndarray:
        """Positions in d of what moments estimate: given the others H is linear in them."""
        if self.residual is None:
            return self.components
        own = self.tail.start + np.flatnonzero(self.residual.by_moments)
        return np.concatenate([self.components, own])

    def eyes(self, dtype) -> tuple[Array, ...]:
        """The neutral coordinates: per term, then per frame of the residual structure, an identity."""
        own = () if self.residual is None else self.residual.eyes(dtype)
        return (*(np.eye(term.q, dtype=dtype) for term in self.terms), *own)

    @property
    def components(self) -> np.ndarray:
        """Positions in d of the entries of linear terms: given the others H is linear in them."""
        pairs = zip(self.terms, self.slices(), strict=True)
        return np.array([k for t, s in pairs if t.family.linear for k in range(s.start, s.stop)], dtype=int)

    @traced_once("self")
    def decode(self, theta: Array, pivoting: tuple[Array, ...] | None = None) -> Array:
        """d (m,) from θ (m,): of P D Pᵀ, `pivoting` P (q, q) of each linear term, then the frames of R."""
        xp = namespace(theta)
        out = []
        for k, (term, s) in enumerate(zip(self.terms, self.slices(), strict=True)):
            if pivoting is None or not isinstance(term.family, FactorFamily):
                out.append(term.family.decode(theta[s], term.q))
            else:
                moved = pivoting[k] @ term.family.factor(theta[s], term.q)
                out.append(term.family.natural(moved @ moved.T))
        if self.residual is not None:
            out.append(self.residual.decode(theta[self.tail], self._frames(pivoting)))
        return xp.concatenate(out).astype(theta.dtype) if out else theta

    def _frames(self, pivoting: tuple[Array, ...] | None) -> tuple[Array, ...]:
        return () if pivoting is None else pivoting[len(self.terms) :]

    @traced_once("self")
    def encode(self, d: Array) -> Array:
        """θ (m,) from d (m,)."""
        pairs = zip(self.terms, self.slices(), strict=True)
        out = [term.family.encode(d[s], term.q) for term, s in pairs]
        if self.residual is not None:
            out.append(self.residual.encode(d[self.tail]))
        return namespace(d).concatenate(out).astype(d.dtype) if out else d

    def natural(self, covariances: tuple[Array, ...], dtype=None) -> Array:
        """d from the matrices D, without the residual's part."""
        xp = namespace(*covariances)
        out = [term.family.natural(matrix) for term, matrix in zip(self.terms, covariances, strict=True)]
        return xp.concatenate(out) if out else xp.zeros(0, dtype)

    def matrices(self, d: Array) -> tuple[Array, ...]:
        """The symmetric matrices D (q, q) from d (m,)."""
        pairs = zip(self.terms, self.slices(), strict=True)
        return tuple(term.family.matrix(d[s], term.q) for term, s in pairs)

    @property
    def free(self) -> Structure:
        """The same with structured families made unstructured."""
        general = (
            t if t.family.linear else dataclasses.replace(t, family=Unstructured()) for t in self.terms
        )
        return Structure(tuple(general), self.residual)

    @property
    def random(self) -> Structure:
        """The same terms with independent residuals."""
        return Structure(self.terms)

    def free_entries(self, d: Array) -> Array:
        """The parameters of `free`, the entries of every D: not linear in d (m,), of structured families."""
        xp, out = namespace(d), []
        for term, s in zip(self.terms, self.slices(), strict=True):
            own = d[s]
            out.append(own if term.family.linear else Unstructured().natural(term.family.matrix(own, term.q)))
        return xp.concatenate([*out, d[self.tail]]).astype(d.dtype)

    def absolute(self, psi: Array) -> tuple[Array, ...]:
        """The covariance matrices σ²D (q, q) from ψ (m + 1,), whose last is σ²."""
        return tuple(psi[-1] * matrix for matrix in self.matrices(self.relative(psi)))

    def relative(self, psi: Array) -> Array:
        """d (..., m) from ψ (..., m + 1)."""
        return psi[..., :-1] / psi[..., -1:] ** self.powers.astype(psi.dtype)

    def units(self, sigma2: Array) -> Array:
        """σ^(2·power) (..., m + 1) of every entry of ψ, at σ² () or (..., 1)."""
        return sigma2 ** np.append(self.powers, 1.0).astype(sigma2.dtype)

    def prior(self, dtype) -> Array:
        """d (m,) of unit relative variances, and the first start of every other parameter."""
        return jnp.asarray(np.array([p.starts[0] for p in self.parameters]), dtype)

    @traced_once("self")
    def start(self, d: Array, floor: Array) -> tuple[Array, tuple[Array, ...]]:
        """`pivoted` for positive definite matrices near d: variances ≥ floor (m,), |correlations| ≤ 0.9."""
        parts = []
        pairs = zip(self.terms, self.slices(), strict=True)
        for term, s in pairs:
            if not term.family.linear:
                parts.append(d[s])
                continue
            matrix, least = (term.family.matrix(v[s], term.q) for v in (d, floor))
            root = jnp.sqrt(jnp.maximum(diagonal(matrix), diagonal(least)))
            eye = jnp.eye(matrix.shape[0], dtype=d.dtype)
            off = matrix / (root[:, None] * root[None, :]) * (1 - eye)
            reach = jnp.max(jnp.sum(jnp.abs(off), axis=1))
            shrink = jnp.minimum(1.0, 0.9 / jnp.maximum(reach, 0.1))
            parts.append(term.family.natural((off * shrink + eye) * (root[:, None] * root[None, :])))
        parts.append(d[self.tail] if self.residual is None else self.residual.feasible(d[self.tail]))
        return self.pivoted(jnp.concatenate(parts).astype(d.dtype))

    @traced_once("self")
    def pivoted(self, d: Array) -> tuple[Array, tuple[Array, ...]]:
        """θ and pivoting of positive semi-definite matrices d.

        An unstructured term is taken in pivoted order: with the largest variance first a singular D has
        its zero in the last rows of Λ, where the criterion is smooth and well conditioned.
        """
        parts, pivoting = [], []
        for term, s in zip(self.terms, self.slices(), strict=True):
            permutation, own = jnp.eye(term.q, dtype=d.dtype), d[s]
            if term.family.basis == "triangular" and term.q > 1:
                matrix = term.family.matrix(own, term.q)
                permutation = pivot_order(matrix)
                own = term.family.natural(permutation.T @ matrix @ permutation)
            parts.append(term.family.encode(own, term.q))
            pivoting.append(permutation)
        if self.residual is not None:
            own, frames = self.residual.reframed(d[self.tail])
            parts.append(own)
            pivoting += frames
        return jnp.concatenate([*parts, d[:0]]).astype(d.dtype), tuple(pivoting)

    @traced_once("self")
    def upright(self, theta: Array, pivoting: tuple[Array, ...]) -> Array:
        """θ (m,) of the same d without pivoting: lower triangular factors, diagonal ≥ 0."""
        parts = []
        for term, permutation, s in zip(self.terms, pivoting, self.slices(), strict=False):
            if isinstance(term.family, FactorFamily):
                moved = permutation @ term.family.factor(theta[s], term.q)
                parts.append(term.family.params(psd_cholesky(moved @ moved.T, 1e-13)))
            else:
                parts.append(term.family.folded(theta[s], term.q))
        if self.residual is not None:
            own = self.residual.decode(theta[self.tail], self._frames(pivoting))
            parts.append(self.residual.encode(own))
        return jnp.concatenate([*parts, theta[:0]]).astype(theta.dtype)

    @traced_once("self")
    def change_basis(self, theta: Array, bases: tuple[Array, ...]) -> Array:
        """θ′ of b D(θ) bᵀ for a lower triangular b a term that its family allows, and rows in other units."""
        parts = []
        for term, b, s in zip(self.terms, bases, self.slices(), strict=False):
            if isinstance(term.family, FactorFamily):
                parts.append(term.family.params(b.astype(theta.dtype) @ term.family.factor(theta[s], term.q)))
            else:
                moved = _scaled(term, term.family.decode(theta[s], term.q), b[0, 0])
                moves = np.array([p.power != 0.0 for p in term.parameters])
                same = term.family.folded(theta[s], term.q)
                parts.append(jnp.where(moves, term.family.encode(moved, term.q), same))
        own = theta[self.tail]
        if self.residual is not None and len(bases) > len(self.terms):
            own = self.residual.encode(bases[-1].astype(theta.dtype) * self.residual.decode(own))
        return jnp.concatenate([*parts, own]).astype(theta.dtype)

    def decode_in(self, theta: Array, bases: tuple[Array, ...]) -> Array:
        """d of b D(θ) bᵀ: `decode` of `change_basis`, also where θ′ has no derivative: at ends of ranges."""
        parts = []
        for term, b, s in zip(self.terms, bases, self.slices(), strict=False):
            if isinstance(term.family, FactorFamily):
                moved = term.family.params(b.astype(theta.dtype) @ term.family.factor(theta[s], term.q))
                parts.append(term.family.decode(moved, term.q))
            else:
                parts.append(_scaled(term, term.family.decode(theta[s], term.q), b[0, 0]))
        if self.residual is not None:
            own = self.residual.decode(theta[self.tail])
            parts.append(bases[-1].astype(theta.dtype) * own if len(bases) > len(self.terms) else own)
        return namespace(theta).concatenate([*parts, theta[:0]]).astype(theta.dtype)

    def entry_map(self, bases: tuple[Array, ...]) -> Array:
        """The (m, m) matrix that takes d to that of b D bᵀ; a structured family allows scalar b only."""
        xp, blocks = namespace(*bases), []
        for term, b in zip(self.terms, bases, strict=False):
            if isinstance(term.family, FactorFamily):
                units = term.family.units(term.q).astype(b.dtype)
                moved = xp.moveaxis(b @ xp.asarray(units) @ b.T, 0, -1)
                blocks.append(term.family.natural(moved))
            else:
                blocks.append(xp.diag(_scaled(term, xp.ones(term.n_params, b.dtype), b[0, 0])))
        dtype = bases[0].dtype if bases else None
        units = bases[-1] if len(bases) > len(self.terms) else xp.ones(self.n_params - self.tail.start, dtype)
        blocks.append(xp.diag(units))
        return block_diagonal(blocks)

    def sizes(self, d: Array) -> Array:
        """(m,) what is large for every entry of d in internal coordinates."""
        xp = namespace(d)
        own = d[:0] if self.residual is None else self.residual.sizes(d[self.tail])
        return xp.concatenate([xp.maximum(1.0, xp.abs(d[: self.tail.start])), own]).astype(d.dtype)

    def spans(self, theta: Array) -> Array:
        """(m,) |θ|, and of an entry of Λ beside the diagonal at least the largest of its row."""
        parts, xp = [], namespace(theta)
        for term, s in zip(self.terms, self.slices(), strict=True):
            own = xp.abs(theta[s])
            if isinstance(term.family, FactorFamily) and term.family.basis == "triangular" and term.q > 1:
                rows = xp.max(xp.abs(term.family.factor(theta[s], term.q)), axis=1)
                row, column = (term.family.params(a) for a in np.indices((term.q, term.q)))
                own = xp.where(row != column, rows[row], own)
            parts.append(own)
        return xp.concatenate([*parts, xp.abs(theta[self.tail])])

    @traced_once("self")
    def margins(self, theta: Array, pivoting: tuple[Array, ...] | None = None) -> Array:
        """Per parameter (m,), how far it is, or those it depends on are, from the boundary."""
        pairs = zip(self.terms, self.slices(), strict=True)
        out = [term.family.margins(theta[s], term.q) for term, s in pairs]
        if self.residual is not None:
            out.append(self.residual.margin(theta[self.tail], self._frames(pivoting)))
        return jnp.concatenate(out) if out else theta


def _scaled(term: TermStructure, a: Array, factor: Array) -> Array:
    """a for coefficients times `factor`."""
    powers = np.array([2.0 * p.power for p in term.parameters])
    return a * namespace(a, factor).abs(factor) ** powers.astype(a.dtype)


def _slices(sizes: list[int]) -> list[slice]:
    ends = np.cumsum([0, *sizes])
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
