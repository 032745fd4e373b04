"""What least squares within groups say of a response whose random effects are large."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.core.problem import ProblemMaker
from lmmjax.covariance import FactorFamily
from lmmjax.design import Design, RandomTerm, standardise_response
from lmmjax.gram.grouped.prepare import Segments, orthogonalise

FAR = 1e-6
"""Share of its squares that least squares within groups leave of a response that is far, at most."""

FIRM = 0.25
"""Least length, beside the median, of what a column has of its own in a group whose coefficient counts."""

ROUNDS = 12
"""Times that fixed effects and the axes are estimated by turns."""


@dataclasses.dataclass(frozen=True)
class Own:
    """What least squares within groups say of a response.

    Attributes
    ----------
    coefficients : per set of terms that share a factor, by its positions, (G′, q) in units of what is left.
    shift : (p,) fixed effects γ of X̃ beside those of ordinary least squares.
    """

    coefficients: dict[tuple[int, ...], np.ndarray]
    shift: np.ndarray


def own_coefficients(maker: ProblemMaker, y: np.ndarray) -> Own | None:
    """What least squares within groups say of a response y (n,); None where its effects are not far."""
    design, rows = maker.design, maker.rows
    order = maker.prepared.order
    residual = standardise_response(rows, maker.basis, y if order is None else y[order])[0]
    found: dict[tuple[int, ...], np.ndarray] = {}
    shift = np.zeros(len(rows.x))
    x = rows.x
    for terms in by_factor(design):
        within = Within(codes_of(design.terms[terms[0]], order), np.concatenate([rows.z[k] for k in terms]))
        own = _coefficients(within, x, residual)
        if own is not None:
            # of a factor within it, or across it, what it leaves
            shift = shift if found else own[1]
            found[terms], back = own[0], np.argsort(within.order)
            residual, x = (
                within.split(residual[within.order])[1][back],
                within.split(x.T[within.order])[1][back].T,
            )
    return Own(found, shift) if found else None


def codes_of(term: RandomTerm, order: np.ndarray | None) -> np.ndarray:
    codes = np.asarray(term.codes)
    return codes if order is None else codes[order]


def by_factor(design: Design) -> list[tuple[int, ...]]:
    """Positions of the terms of each grouping factor, those of few groups first."""
    sets: dict[bytes, list[int]] = {}
    for k, term in enumerate(design.terms):
        if isinstance(term.family, FactorFamily):
            sets.setdefault(np.asarray(term.codes).tobytes(), []).append(k)
    return sorted(
        (tuple(terms) for terms in sets.values()), key=lambda terms: design.terms[terms[0]].n_groups
    )


class Within:
    """Z within groups: Z_i = Q_iR_i."""

    def __init__(self, codes: np.ndarray, z: np.ndarray):
        self.order = np.argsort(codes, kind="stable")
        self.segments = Segments(codes[self.order], int(codes.max()) + 1)
        self.q, self.r = orthogonalise(np, z[:, self.order], self.segments)

    def split(self, v: np.ndarray, columns: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Qᵀv (q, G, ...) of sorted rows v (n, ...), and what the first `columns` leave (n, ...)."""
        tail, left, c = (None,) * (v.ndim - 1), v, []
        for column in self.q[:columns]:
            c.append(self.segments.sum(column[:, *tail] * left))
            left = left - column[:, *tail] * self.segments.spread(c[-1])
        return np.stack(c), left


def _coefficients(within: Within, x: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients (G′, q) of groups that determine them, in units of what is left, and fixed effects (p,).

    None where they are not far.

    Parameters
    ----------
    x : (p, n) rows; e : (n,) the response less its least squares on X.
    """
    e, x = e[within.order], x[:, within.order]
    (c, left), (c_x, x_left) = within.split(e), within.split(x.T)
    rest = left - x_left @ np.linalg.lstsq(x_left, left, rcond=1e-10)[0]
    near = rest @ rest
    own = np.abs(np.diagonal(within.r)).min(axis=1)
    if not 0 < near <= FAR * (e @ e) or not np.any(own > 0):
        return None
    firm = own >= FIRM * np.median(own[own > 0])
    q, p = len(c), len(x)
    if firm.sum() <= q:
        return None
    r = np.moveaxis(within.r[..., firm], -1, 0)
    b = np.linalg.solve(r, c[:, firm].T[..., None])[..., 0]
    a = np.linalg.solve(r, np.moveaxis(c_x[:, firm], 1, 0))
    size = np.sqrt(near / len(e))
    q_x, r_x = np.linalg.qr(x_left)
    v, shift, spread, whiten = b, np.zeros(p), np.zeros(q), np.eye(q) / np.sqrt(np.mean(b**2))
    for _ in range(ROUNDS if p else 0):
        rows = np.concatenate([(whiten @ a).reshape(-1, p), r_x / size])
        values = np.concatenate([(b @ whiten.T).ravel(), q_x.T @ left / size])
        shift = np.linalg.lstsq(rows, values, rcond=1e-13)[0]
        v = b - a @ shift
        before, (spread, turned) = spread, np.linalg.svd(v / np.sqrt(len(v)), full_matrices=False)[1:]
        if not np.all(spread > 0):
            return None
        if np.allclose(before, spread, rtol=1e-2):
            break
        whiten = turned / spread[:, None]
    return v / size, shift
