"""Models in coordinates that suit the coefficients of one response, and estimates brought back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

import jax
import numpy as np

from lmmjax.arrays import block_diagonal, psd_cholesky
from lmmjax.core.estimate import Estimate
from lmmjax.core.far.own import FAR, Own, Within, by_factor, codes_of
from lmmjax.core.information import freely
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.covariance import FactorFamily
from lmmjax.design import Design, Origin, RandomTerm, solve_upper, standardise_response
from lmmjax.gram.grouped.prepare import GroupedPrepared
from lmmjax.optimize import Status

INSIDE = 1e-3
"""What is left at most of a direction of X, of unit length, that belongs to columns of Z."""

LOST, LEAST = 1e-3, 1e-2
"""Rounding of ψ that is too much in a variance of D′, as a share of it, or of `LEAST` where it is less."""

ALIKE = 5.0
"""Times the standard deviation along an axis of its own that a response may have along another's."""

SCALES = (0.1, 0.0, 3.0)
"""Further starts: times standard deviations by moments."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """A maker of problems in other coordinates: Z′ = ZO, X′ = XT, terms of a factor by size.

    Attributes
    ----------
    design : as it was; maker : of the turned one. z : per term O (q, q). x : T (p, p).
    order : positions in the design of the terms of the turned one.
    start : (m,) θ′ by moments of the coefficients, to descend from.
    axes : per term W (q, q). back : (p, p) R⁻¹ of X = X̃R, not turned.
    """

    design: Design
    maker: ProblemMaker
    order: tuple[int, ...]
    z: tuple[np.ndarray, ...]
    x: np.ndarray
    start: np.ndarray
    axes: tuple[np.ndarray, ...]
    back: np.ndarray

    def lanes(self, y: np.ndarray, shifts: np.ndarray, reml: bool) -> Problem:
        """The problem of responses y (n, ...) with the fixed effects `shifts` (p, ...) taken off."""
        made, structure = self.maker, self.maker.design.structure
        rows, basis, prepared = made.rows, made.basis, made.prepared
        y = y if prepared.order is None else y[prepared.order]
        e, origin, _ = standardise_response(rows, basis, y)
        # X̃γ in the columns of the turned X̃
        turned = np.asarray(basis.x_factor) @ np.linalg.solve(self.x, self.back @ shifts)
        e = e - np.tensordot(rows.x, turned, axes=((0,), (0,)))
        scale = np.sqrt(np.einsum("n...,n...->...", e, e) / len(e))
        moved = Origin(origin.beta + solve_upper(basis.x_factor, turned), scale)
        response = prepared.respond(e, 1.0 / scale)
        n, kappa = (np.asarray(float(a)) for a in (made.design.observations, reml))
        return Problem(prepared.shared, response, moved, basis, n, kappa, structure)

    @property
    def inner_start(self) -> np.ndarray:
        """The start in internal coordinates of the turned design."""
        with jax.enable_x64(True):
            structure = self.maker.design.structure
            return np.asarray(structure.change_basis(self.start, self.maker.basis.inward))

    def started(self, theta: np.ndarray) -> np.ndarray:
        """θ′ (m,) of θ (m,) in coordinates of the design."""
        sorted_theta = np.empty_like(theta)
        sorted_theta[self._places] = theta
        maps = [np.linalg.inv(self.z[k]) for k in self.order]
        return _moved(self.maker.design, sorted_theta, maps)

    def suits(self, own: Own) -> bool:
        """Whether these are good coordinates for another response, too."""
        for terms, b in own.coefficients.items():
            first = 0
            for k in terms:
                q = self.design.terms[k].q
                part, first = b[:, first : first + q], first + q
                here = np.sqrt(np.mean((part @ self.axes[k]) ** 2, axis=0))
                best = np.sqrt(np.mean((part @ _axes(self.design.terms[k], part)) ** 2, axis=0))
                if np.any(here > ALIKE * np.maximum(best, 1.0)):
                    return False
        return True

    @cached_property
    def _places(self) -> np.ndarray:
        """(m,) where the parameters of the design are among those of the turned one."""
        slices = self.maker.design.structure.slices()
        return np.concatenate([np.r_[slices[self.order.index(k)]] for k in range(len(self.order))])

    def _entries(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """The matrix (m + 1, m + 1) that takes ψ′/σ² to those of oD′oᵀ for an o a term of the design."""
        structure = self.maker.design.structure
        out = np.eye(structure.n_params + 1)
        out[:-1, :-1] = np.asarray(structure.entry_map(tuple(maps[k] for k in self.order)))
        return out

    @cached_property
    def _inward(self) -> np.ndarray:
        inward = self._entries([np.linalg.inv(o) for o in self.z])
        return inward[:, np.append(self._places, len(self._places))]

    @cached_property
    def outward(self) -> np.ndarray:
        """The matrix (m + 1, m + 1) that takes ψ′, relative to σ², to ψ of the design."""
        return self._entries(self.z)[np.append(self._places, len(self._places))]

    def inside(self, psi: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ψ′ (..., m + 1) and its covariance, as `cov_relative`, of those in coordinates of the design."""
        unit = self.maker.design.structure.units(psi[..., -1:])
        return unit * ((psi / unit) @ self._inward.T), self._inward @ cov @ self._inward.T

    def restored(self, found: Estimate, reml: bool) -> Estimate:
        """An estimate of the turned design, whose arrays may lead with T, in coordinates of the design."""
        structure = self.maker.design.structure
        m, places = structure.n_params, self._places
        outward = self.outward
        missing = np.isnan(np.diagonal(found.cov_psi, axis1=-2, axis2=-1)) @ np.abs(outward).T > 0
        unit = structure.units(np.asarray(found.psi)[..., -1:])
        relative = outward @ found.cov_relative @ outward.T
        moves = outward @ found.moves
        moves = np.where(np.abs(moves) > 1e-9 * (np.abs(outward) @ np.abs(found.moves)), moves, 0.0)
        hidden = missing | np.asarray(freely(moves))
        cov = relative * unit[..., :, None] * unit[..., None, :]
        theta = np.asarray(found.theta)
        # rounding of ψ of the design, in the entries of D′
        inward = self._inward[:m, :m]
        lost = np.finfo(float).eps * (np.abs(found.psi / unit)[..., :m] @ np.abs(outward[:m, :m]).T)
        lost = lost @ np.abs(inward).T
        variances = np.array([p.smooth for p in structure.parameters])
        whole = lost <= LOST * (np.abs(found.psi / unit)[..., :m] + LEAST)
        hazy = ~np.all(whole | ~variances, axis=-1) & (found.status == Status.CONVERGED)
        maps = [self.z[k] for k in self.order]
        flat = [_moved(self.maker.design, t, maps)[places] for t in theta.reshape(-1, m)]
        shift = 2.0 * np.linalg.slogdet(self.x)[1] if len(self.x) else 0.0
        return dataclasses.replace(
            found,
            theta=np.stack(flat).reshape(theta.shape) if flat else theta,
            psi=unit * ((np.asarray(found.psi) / unit) @ outward.T),
            beta=np.asarray(found.beta) @ self.x.T,
            cov_beta=self.x @ found.cov_beta @ self.x.T,
            cov_psi=np.where(hidden[..., :, None] | hidden[..., None, :], np.nan, cov),
            cov_relative=relative,
            deviance=np.asarray(found.deviance) - reml * shift,
            moves=moves,
            status=np.where(hazy, np.int32(Status.TOO_FEW_DIGITS), found.status),
        )

    @property
    def starts(self) -> list[np.ndarray]:
        """θ′ to descend from: by moments, and with variances that are not far, smaller, zero and larger."""
        structure, out = self.maker.design.structure, [self.start]
        variances = np.array([p.smooth for p in structure.parameters])
        near = variances & (np.abs(self.start) < FAR**-0.25)
        return out + [np.where(near, scale * self.start, self.start) for scale in SCALES if near.any()]


def own_at(maker: ProblemMaker, psi: np.ndarray) -> Own:
    """Coefficients that have the D of ψ (m + 1,)."""
    structure, design = maker.design.structure, maker.design
    matrices = structure.matrices(structure.relative(psi))
    roots = [
        np.asarray(b) @ psd_cholesky(np.asarray(matrix), 1e-15)
        for b, matrix in zip(maker.basis.inward, matrices, strict=False)
    ]
    sets: dict[tuple[int, ...], np.ndarray] = {}
    for terms in by_factor(design):
        whole = block_diagonal([roots[k].T for k in terms])
        sets[terms] = whole * np.sqrt(len(whole))
    return Own(sets, np.zeros(design.p))


def shared_turns(maker: ProblemMaker, owns: dict[int, Own]) -> Iterator[tuple[Turn, np.ndarray]]:
    """Coordinates, and which responses, the keys of `owns`, they suit; each response comes once."""
    while owns:
        turn = turn_of(maker, next(iter(owns.values())))
        those = np.array([k for k, own in owns.items() if turn.suits(own)])
        yield turn, those
        owns = {k: own for k, own in owns.items() if k not in set(those)}


def turn_of(maker: ProblemMaker, own: Own) -> Turn:
    """Coordinates for responses whose groups have coefficients like these."""
    design, rows, order = maker.design, maker.rows, maker.prepared.order
    axes = [np.eye(term.q) for term in design.terms]
    v, done = np.eye(len(rows.x)), 0
    sizes: dict[int, np.ndarray] = {}
    sequence = np.arange(len(design.terms))
    for terms, b in own.coefficients.items():
        ends = np.cumsum([design.terms[k].q for k in terms])
        for k, part in zip(terms, np.split(b, ends[:-1], axis=1), strict=True):
            axes[k] = _axes(design.terms[k], part)
            sizes[k] = np.sqrt(np.mean((part @ axes[k]) ** 2, axis=0))
        sequence[list(terms)] = sorted(terms, key=lambda k: -np.max(sizes[k]))
        strength = np.concatenate([sizes[k] for k in terms])
        sorted_z = np.concatenate([axes[k].T @ rows.z[k] for k in terms])[
            np.argsort(-strength, kind="stable")
        ]
        v, done = _sorted_columns(Within(codes_of(design.terms[terms[0]], order), sorted_z), rows.x, v, done)
    o = tuple(np.asarray(b) @ w for b, w in zip(maker.basis.outward, axes, strict=False))
    back = np.linalg.inv(np.asarray(maker.basis.x_factor))
    terms = [dataclasses.replace(design.terms[k], z=design.terms[k].z @ o[k]) for k in sequence]
    t = back @ v
    turned = dataclasses.replace(design, x=design.x @ t, terms=tuple(terms))
    options = dict(maker.options)
    if isinstance(maker.prepared, GroupedPrepared):
        largest = max(sizes, key=lambda k: np.max(sizes[k]))
        options["coarse_first"] = design.terms[largest].n_groups < max(t.n_groups for t in design.terms)
    made = ProblemMaker(turned, maker.backend, **options)
    start = _start(turned, [sizes.get(int(k)) for k in sequence])
    return Turn(design, made, tuple(sequence.tolist()), o, t, start, tuple(axes), back)


def _start(design: Design, sizes: list[np.ndarray | None]) -> np.ndarray:
    """θ (m,) of coefficients whose standard deviations beside σ are `sizes` (q,) a term, of 1 where None."""
    structure = design.structure
    theta = np.asarray(structure.encode(np.array([p.starts[0] for p in structure.parameters])), float)
    for term, s, size in zip(structure.terms, structure.slices(), sizes, strict=True):
        if size is not None:
            theta[s] = term.linear.params(np.diag(size))
    return theta


def _moved(design: Design, theta: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    """θ (m,) of oDoᵀ for an o a term."""
    out, structure = np.array(theta, float), design.structure
    for term, s, o in zip(structure.terms, structure.slices(), maps, strict=True):
        if isinstance(term.family, FactorFamily) and term.q > 1 and np.all(np.isfinite(out[s])):
            root = o @ np.asarray(term.family.factor(out[s], term.q))
            if term.family.basis == "triangular":
                lower = np.linalg.qr(root.T)[1].T
                root = lower * np.where(np.diagonal(lower) < 0, -1.0, 1.0)
            else:
                root = np.diag(root.sum(axis=1))
            out[s] = term.family.params(root)
    return out


def _axes(term: RandomTerm, own: np.ndarray) -> np.ndarray:
    """Axes (q, q) of coefficients (G, q), as columns, the largest first, which the family allows."""
    q = own.shape[1]
    if term.family.basis == "triangular":
        return np.linalg.svd(own, full_matrices=True)[2].T
    if term.family.basis == "diagonal":
        return np.eye(q)[:, np.argsort(-np.linalg.norm(own, axis=0), kind="stable")]
    return np.eye(q)


def _sorted_columns(within: Within, x: np.ndarray, v: np.ndarray, done: int) -> tuple[np.ndarray, int]:
    """V (p, p) whose columns from `done` on are first what lies in the first columns of Z; how many do."""
    for columns in range(1, len(within.q) + 1):
        if done == len(v):
            break
        left = within.split((v[:, done:].T @ x[:, within.order]).T, columns)[1]
        size, turned = np.linalg.svd(left, full_matrices=False)[1:]
        # the smallest first
        v = np.concatenate([v[:, :done], v[:, done:] @ turned[::-1].T], axis=1)
        done += int(np.sum(size <= INSIDE))
    return v, done
