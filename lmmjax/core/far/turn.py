"""Models in coordinates that suit the coefficients of one response, and estimates brought back."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from lmmjax.core.estimate import Estimate
from lmmjax.core.far.own import FAR, Own, Within, codes_of
from lmmjax.core.information import freely
from lmmjax.core.problem import Problem, ProblemMaker
from lmmjax.covariance import FactorFamily
from lmmjax.design import Design, Origin, RandomTerm, solve_upper, standardise_response
from lmmjax.optimize import Status

INSIDE = 1e-9
"""What is left of a direction of X, of unit length, that lies in columns of Z."""


LOST, LEAST = 1e-3, 1e-2
"""Rounding of ψ that is too much in a variance of D′, as a share of it, or of `LEAST` where it is less."""

ALIKE = 5.0
"""Times the standard deviation along an axis of its own that a response may have along another's."""

SCALES = (0.1, 0.0, 3.0)
"""Further starts: times standard deviations by moments."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """A maker of problems in other coordinates: Z′ = ZO, X′ = XT.

    Attributes
    ----------
    maker : of the turned design. z : per term O (q, q). x : T (p, p).
    start : (m,) θ′ by moments of the coefficients, to descend from.
    axes : per term W (q, q). back : (p, p) R⁻¹ of X = X̃R, not turned.
    """

    maker: ProblemMaker
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

    def suits(self, own: Own) -> bool:
        """Whether these are good coordinates for another response, too."""
        for terms, b in own.coefficients.items():
            first = 0
            for k in terms:
                q = self.maker.design.terms[k].q
                part, first = b[:, first : first + q], first + q
                here = np.sqrt(np.mean((part @ self.axes[k]) ** 2, axis=0))
                best = np.sqrt(np.mean((part @ _axes(self.maker.design.terms[k], part)) ** 2, axis=0))
                if np.any(here > ALIKE * np.maximum(best, 1.0)):
                    return False
        return True

    def restored(self, found: Estimate, reml: bool) -> Estimate:
        """An estimate of the turned design, whose arrays may lead with T, in coordinates of the design."""
        structure = self.maker.design.structure
        m = structure.n_params
        outward = np.eye(m + 1)
        outward[:m, :m] = np.asarray(structure.entry_map(_bases(self.maker, self.z)))
        missing = np.isnan(np.diagonal(found.cov_psi, axis1=-2, axis2=-1)) @ np.abs(outward).T > 0
        unit = structure.units(np.asarray(found.psi)[..., -1:])
        relative = outward @ found.cov_relative @ outward.T
        moves = outward @ found.moves
        moves = np.where(np.abs(moves) > 1e-9 * (np.abs(outward) @ np.abs(found.moves)), moves, 0.0)
        hidden = missing | np.asarray(freely(moves))
        cov = relative * unit[..., :, None] * unit[..., None, :]
        theta = np.asarray(found.theta)
        # rounding of ψ of the design, in the entries of D′
        inward = np.asarray(structure.entry_map(_bases(self.maker, tuple(map(np.linalg.inv, self.z)))))
        lost = np.finfo(float).eps * (np.abs(found.psi / unit)[..., :m] @ np.abs(outward[:m, :m]).T)
        lost = lost @ np.abs(inward).T
        variances = np.array([p.smooth for p in structure.parameters])
        whole = lost <= LOST * (np.abs(found.psi / unit)[..., :m] + LEAST)
        hazy = ~np.all(whole | ~variances, axis=-1) & (found.status == Status.CONVERGED)
        flat = [_moved(self.maker.design, t, list(self.z)) for t in theta.reshape(-1, m)]
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


def turn_of(maker: ProblemMaker, own: Own) -> Turn:
    """Coordinates for responses whose groups have coefficients like these."""
    design, rows, order = maker.design, maker.rows, maker.prepared.order
    axes = [np.eye(term.q) for term in design.terms]
    v, done = np.eye(len(rows.x)), 0
    sizes: dict[int, np.ndarray] = {}
    for terms, b in own.coefficients.items():
        ends = np.cumsum([design.terms[k].q for k in terms])
        for k, part in zip(terms, np.split(b, ends[:-1], axis=1), strict=True):
            axes[k] = _axes(design.terms[k], part)
            sizes[k] = np.sqrt(np.mean((part @ axes[k]) ** 2, axis=0))
        strength = np.concatenate([sizes[k] for k in terms])
        turned = np.concatenate([axes[k].T @ rows.z[k] for k in terms])[np.argsort(-strength, kind="stable")]
        v, done = _sorted_columns(Within(codes_of(design.terms[terms[0]], order), turned), rows.x, v, done)
    o = tuple(np.asarray(b) @ w for b, w in zip(maker.basis.outward, axes, strict=False))
    back = np.linalg.inv(np.asarray(maker.basis.x_factor))
    new = [dataclasses.replace(term, z=term.z @ b) for term, b in zip(design.terms, o, strict=True)]
    t = back @ v
    turned_design = dataclasses.replace(design, x=design.x @ t, terms=tuple(new))
    made = ProblemMaker(turned_design, maker.backend, **maker.options)
    return Turn(made, o, t, _start(design, sizes), tuple(axes), back)


def _start(design: Design, sizes: dict[int, np.ndarray]) -> np.ndarray:
    """θ′ (m,) of coefficients whose standard deviations beside σ are `sizes` (q,) a term."""
    structure = design.structure
    theta = np.asarray(structure.encode(np.array([p.starts[0] for p in structure.parameters])), float)
    for k, (term, s) in enumerate(zip(structure.terms, structure.slices(), strict=True)):
        if k in sizes:
            theta[s] = term.linear.params(np.diag(sizes[k]))
    return theta


def _bases(maker: ProblemMaker, z: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Changes of basis as `Structure.entry_map` wants them."""
    rest = [np.ones_like(np.asarray(a)) for a in maker.basis.inward[len(z) :]]
    return (*z, *rest)


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
