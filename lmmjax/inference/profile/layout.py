"""Coordinates of a model in which the parameters that are profiled are coordinates themselves.

An unstructured or diagonal term has the entries of L, Σ = LLᵀ. With coefficient i taken first sd_i = L₁₁;
with i, j first and row 2 in polar form, L₂₁ = r sin a and L₂₂ = r cos a, it has sd_j = r and cor_ij = sin a.
A free covariance matrix of the residuals is taken the same way: var_i = L₁₁², cov_ij = L₁₁L₂₁. Parameters
that have a working value of their own are it; for an autocorrelation, or a coefficient of an autoregression,
the partial autocorrelation of its lag is solved for. Variances and σ are absolute, not relative to σ².
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmjax.arrays import psd_cholesky
from lmmjax.core import Problem
from lmmjax.core.problem import internal_parameters
from lmmjax.covariance import Parameter
from lmmjax.covariance.lowrank import LowRank
from lmmjax.covariance.toeplitz import Toeplitz
from lmmjax.inference.profile.axes import Axis, Target
from lmmjax.inference.profile.constrained import Bends, affine, framed
from lmmjax.residual import ARMA, Unstructured
from lmmjax.residual import Toeplitz as Lags

HALF = 0.5 * np.pi


CORRELATION = Parameter("cor", "interval")


class Axes:
    """Coordinates x (m + 1,) for some targets, at an optimum.

    Parameters
    ----------
    problem : float64; psi : (m + 1,) the optimum; targets : the parameters of interest.

    Attributes
    ----------
    x : (m + 1,) the optimum; maps, radius, angle, bends : as in `Chart`.
    axes : per target, where and how it is a coordinate.
    """

    def __init__(self, problem: Problem, psi: np.ndarray, targets: Sequence[Target]):
        self.problem, self.targets = problem, tuple(targets)
        structure = self.structure = problem.structure
        self.unit, m = float(problem.origin.scale), structure.n_params
        self.radius, self.angle = np.zeros((2, m + 1))
        self.x = np.zeros(m + 1)
        scale = float(np.sqrt(psi[-1]))
        # of every parameter the user's value over the internal one, absolute both
        outward = np.diagonal(np.asarray(structure.entry_map(problem.basis.outward)))
        self.factors = outward * self.unit ** (2.0 * structure.powers)
        inside = np.asarray(internal_parameters(problem, np.asarray(psi)))
        self.inside = inside * (scale / self.unit) ** (2.0 * structure.powers)
        self.x[-1] = 2.0 * np.log(scale / self.unit)
        self.scales: list[np.ndarray] = []
        maps = [self._term(k, psi, scale) for k in range(len(structure.terms))]
        self.orders = self._residuals()
        self.maps = (*maps, *(np.eye(len(order))[:, order] for order in self.orders))
        self._polar()
        self.bends = self._bends()
        self.axes = [self._axis(target) for target in self.targets]

    def _term(self, k: int, psi: np.ndarray, scale: float) -> np.ndarray:
        """The map of term k; its coordinates are put into x."""
        term, s = self.structure.terms[k], self.structure.slices()[k]
        if not term.family.linear:
            self.scales.append(np.ones(term.q))
            self.x[s] = np.asarray(term.family.encode(self.inside[s], term.q))
            return np.eye(term.q)
        inward, matrix = np.asarray(self.problem.basis.inward[k]), self.structure.absolute(np.asarray(psi))[k]
        # coefficients in units of σ over the root mean square of their column
        units = scale / np.linalg.norm(inward, axis=0)
        permutation = np.eye(term.q)[:, self.order(k)]
        inner = permutation.T @ (matrix / np.outer(units, units)) @ permutation
        self.scales.append(units)
        self.x[s] = term.linear.params(psd_cholesky(inner, 1e-13))
        return inward @ (units[:, None] * permutation) / self.unit

    def _residuals(self) -> list[list[int]]:
        """Orders of the visits in every free matrix; coordinates of the residuals are put into x."""
        own, first = self.structure.residual, self.structure.tail.start
        if own is None:
            return []
        if not framed(self.structure):
            self.x[self.structure.tail] = np.asarray(own.encode(self.inside[self.structure.tail]))
            return []
        orders, size = [], own.space.size
        below = np.triu_indices(size, k=1)[::-1]
        for index, block in enumerate(own.blocks):
            values = self.inside[first + block.at.start : first + block.at.stop]
            if block.part != 0:
                self.x[first + block.at.start : first + block.at.stop] = [
                    p.encode(v) for p, v in zip(block.parameters, values, strict=True)
                ]
                continue
            self.x[first + block.at.start : first + block.at.start + len(block.scale)] = [
                p.encode(v) for p, v in zip(block.scale, values, strict=False)
            ]
            values, entries = values[len(block.scale) :], self.entries(index)
            matrix = np.eye(size)
            if len(entries) > len(below[0]):
                variances = values[: len(values) - len(below[0])]
                missing = [np.exp(self.x[-1])] if len(variances) < size else []
                matrix = np.diag(np.concatenate([missing, variances]))
            matrix[below] = matrix[below[::-1]] = values[len(values) - len(below[0]) :]
            order = self._visits(index)
            factor = psd_cholesky(matrix[np.ix_(order, order)], 1e-13)
            if len(entries) == len(below[0]):
                self.x[entries] = (factor / np.diagonal(factor)[:, None])[below]
            else:
                self.x[entries] = np.concatenate([np.diagonal(factor), factor[below]])
            orders.append(order)
        return orders

    def entries(self, index: int) -> np.ndarray:
        """Positions in x of the entries of the factor of block `index`: diagonal, if free, then below it."""
        own = self.structure.residual
        assert own is not None
        block = own.blocks[index]
        start = self.structure.tail.start + block.at.start + len(block.scale)
        at = np.arange(start, self.structure.tail.start + block.at.stop)
        # σ² is the first variance of the first matrix
        whole = isinstance(own.residual.correlation, Unstructured) and len(at) < _count(own.space.size)
        return np.append(len(self.x) - 1, at) if whole else at

    def order(self, k: int) -> list[int]:
        """Coefficients of term k, those of the targets first."""
        first = list(dict.fromkeys(c for t in self.targets if t.term == k for c in _coefficients(t)))
        if len(first) > 2:
            raise ValueError(
                "a profile of these two parameters needs three coefficients of one random term: choose two "
                "parameters of the same two coefficients, or of different terms"
            )
        return first + [c for c in range(self.structure.terms[k].q) if c not in first]

    def _matrix_target(self, target: Target) -> tuple[int, tuple[int, ...]] | None:
        """Block and visits of a target that is an entry of a free matrix of the residuals; else None."""
        own = self.structure.residual
        if own is None or not framed(self.structure):
            return None
        if target.kind == "sigma":
            return (0, (0,)) if isinstance(own.residual.correlation, Unstructured) else None
        at = target.i - self.structure.tail.start
        if target.kind != "parameter" or at < 0:
            return None
        for index, block in enumerate(own.blocks):
            if block.part != 0 or not block.at.start + len(block.scale) <= at < block.at.stop:
                continue
            left = block.at.stop - 1 - at
            columns, rows = np.triu_indices(own.space.size, k=1)
            if left < len(rows):
                return index, (int(columns[-1 - left]), int(rows[-1 - left]))
            return index, (own.space.size - 1 - (left - len(rows)),)
        return None

    def _visits(self, index: int) -> list[int]:
        """Visits of block `index`, those of the target first; a free matrix takes one target."""
        own = self.structure.residual
        assert own is not None
        found = [f for f in map(self._matrix_target, self.targets) if f is not None and f[0] == index]
        if len(found) > 1:
            raise ValueError(
                "two parameters of one free matrix of the residuals have no joint profile here: choose one "
                "of them with another parameter"
            )
        first = list(found[0][1]) if found else []
        return first + [v for v in range(own.space.size) if v not in first]

    def _at(self, k: int, row: int, column: int) -> int:
        """Position in x of an entry of L of term k."""
        term = self.structure.terms[k]
        flat = np.asarray(term.linear.params(np.arange(term.q**2).reshape(term.q, term.q)))
        return self.structure.slices()[k].start + int(np.flatnonzero(flat == row * term.q + column)[0])

    def _polar(self) -> None:
        """Put row 2 of one unstructured term in polar form, if its targets need it."""
        for k, term in enumerate(self.structure.terms):
            wanted = {c for t in self.targets if t.term == k for c in _coefficients(t)}
            if len(wanted) < 2 or term.family.name == "diag":
                continue
            if self.angle.any():
                raise ValueError("a joint profile takes one correlation: choose another pair of parameters")
            across, down = self._at(k, 1, 0), self._at(k, 1, 1)
            self.radius[across], self.angle[down] = 1.0, 1.0
            a, b = self.x[across], self.x[down]
            self.x[across], self.x[down] = np.hypot(a, b), np.arctan2(a, b)

    def _bends(self) -> Bends | None:
        """What stands for the targets of structures; their coordinates are put into x."""
        structure, none = self.structure, np.zeros(len(self.x))
        if structure.residual is None and structure.linear:
            return None
        tangent, product, lead, solved = (none.copy() for _ in range(4))
        middle, half = np.zeros(()), np.ones(())
        for target in self.targets:
            found = self._matrix_target(target)
            if found is not None and len(found[1]) == 2:
                entries = self.entries(found[0])
                size = len(self.orders[0])
                at = entries[len(entries) - size * (size - 1) // 2]
                if len(entries) == _count(size):
                    product[at], lead[entries[0]] = 1.0, 1.0
                    self.x[at] *= self.x[entries[0]]
                else:
                    tangent[at] = 1.0
                    self.x[at] = np.arctan(self.x[at])
            elif found is None and target.kind == "parameter" and self._is_lag(target.i):
                if solved.any():
                    raise ValueError(
                        "two coefficients of an autoregression, or two lags, have no joint profile here: "
                        "choose one of them with another parameter"
                    )
                p = structure.parameters[target.i]
                solved[target.i], middle, half = 1.0, np.asarray(p._middle), np.asarray(p._half)
                self.x[target.i] = p.encode(np.float64(self.inside[target.i]))
        return Bends(tangent, product, lead, solved, middle, half)

    def _is_lag(self, at: int) -> bool:
        """Whether parameter `at` has no working value of its own: an autocorrelation, or a coefficient."""
        if not affine(self.structure) or self.structure.parameters[at].kind != "interval":
            return False
        own, tail = self.structure.residual, self.structure.tail.start
        if at >= tail:
            assert own is not None
            block = next(b for b in own.blocks if b.at.start <= at - tail < b.at.stop)
            return block.part == 0 and isinstance(own.residual.correlation, Lags | ARMA)
        pairs = zip(self.structure.terms, self.structure.slices(), strict=True)
        return any(isinstance(term.family, Toeplitz) and s.start <= at < s.stop for term, s in pairs)

    def _axis(self, target: Target) -> Axis:
        last, structure = len(self.x) - 1, self.structure
        found = self._matrix_target(target)
        if target.kind == "beta":
            return Axis(None, "value")
        if target.kind == "sigma" and found is None:
            return Axis(last, "sigma", scale=self.unit)
        if found is not None:
            entries, size = self.entries(found[0]), structure.residual.space.size  # type: ignore[union-attr]
            if target.kind == "sigma":
                return Axis(int(entries[0]), "size", (0.0, np.inf), self.unit, inner=True)
            factor = float(self.factors[target.i])
            if len(found[1]) == 1:
                return Axis(int(entries[0]), "square", (0.0, np.inf), np.sqrt(factor), inner=True)
            at = int(entries[len(entries) - size * (size - 1) // 2])
            if len(entries) == _count(size):
                return Axis(at, "value", scale=factor)
            return Axis(at, "arcsin", (-HALF, HALF), parameter=CORRELATION, inner=True)
        if target.kind == "parameter":
            return self._parameter(target)
        order, diagonal = self.order(target.term), structure.terms[target.term].family.name == "diag"
        if target.kind == "cor":
            return Axis(self._at(target.term, 1, 1), "arcsin", (-HALF, HALF), parameter=CORRELATION)
        row, q = order.index(target.i), structure.terms[target.term].q
        at = self._at(target.term, row, row if diagonal else 0)
        # where sd_i is zero its covariances are
        column = [at] if diagonal else [self._at(target.term, r, 0) for r in range(q)]
        bent = self.angle[at] or self.radius[at]
        scale = float(self.scales[target.term][target.i])
        return Axis(at, "size", (0.0, np.inf), scale, zeros=() if bent else tuple(column))

    def _parameter(self, target: Target) -> Axis:
        """The axis of a parameter with a working value of its own, or one that is solved for."""
        p, factor = self.structure.parameters[target.i], float(self.factors[target.i])
        if p.kind == "variance":
            scale = float(np.sqrt(factor))
            if not p.smooth:
                return Axis(target.i, "log", scale=scale)
            return Axis(target.i, "size", (0.0, np.inf), scale)
        if p.kind == "interval":
            inner = target.i >= self.structure.tail.start
            return Axis(target.i, "arcsin", (-HALF, HALF), parameter=p, unit=target.unit, inner=inner)
        if p.kind == "positive":
            return Axis(target.i, "log", scale=factor, parameter=p, unit=target.unit)
        # the sign of a column of loadings is that of its first
        first = 0.0 if target.i in [c[0] for c in self.loadings()] else -np.inf
        return Axis(target.i, "value", (first, np.inf), factor)

    def loadings(self) -> list[np.ndarray]:
        """Positions of the columns of loadings, the one on the diagonal first, which is taken positive."""
        out = []
        for term, s in zip(self.structure.terms, self.structure.slices(), strict=True):
            if isinstance(term.family, LowRank):
                _, columns = term.family._positions(term.q)
                first = s.stop - len(columns)
                out += [first + np.flatnonzero(columns == j) for j in np.unique(columns)]
        return out


def _count(size: int) -> int:
    return size * (size + 1) // 2


def _coefficients(target: Target) -> tuple[int, ...]:
    """Coefficients of its random term that a target involves."""
    return {"sd": (target.i,), "cor": (target.j, target.i)}.get(target.kind, ())
