"""The criterion as a function of one or two parameters, and where it crosses a level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from lmmjax.arrays import psd_cholesky
from lmmjax.core import Problem
from lmmjax.inference.profile import Chart, Point, constrained_jit


@dataclasses.dataclass(frozen=True)
class Target:
    """A parameter: kind "sd" (coefficient i of a term), "cor" (i and j), "sigma", "beta" (coefficient i)."""

    kind: str
    term: int = 0
    i: int = 0
    j: int = 0


class Surface:
    """The criterion as a function of one or two parameters, minimised over all others.

    Parameters
    ----------
    problem : float64, its `reml` the criterion to profile.
    psi : (m + 1,), beta : (p,) the optimum of that criterion, as `Estimate` has them.
    targets : the parameters of interest.

    Attributes
    ----------
    minimum : the criterion at the optimum.
    best : (k,) coordinates of the targets there: sds in units of `scales`, angles asin(cor), log σ²,
        coefficients of β.
    """

    def __init__(self, problem: Problem, psi: np.ndarray, beta: np.ndarray, targets: Sequence[Target]):
        self.problem, self.targets = problem, tuple(targets)
        basis, structure = problem.basis, problem.structure
        self.unit = float(problem.origin.scale)
        scale = float(np.sqrt(psi[-1]))
        p, m = len(beta), structure.n_params
        self.radius, self.angle = np.zeros((2, m + 1))
        self.scales, self.fixed = [], []
        maps, factors = [], []
        matrices = structure.absolute(np.asarray(psi))
        for k, (term, inward, matrix) in enumerate(zip(structure.terms, basis.inward, matrices, strict=True)):
            order = self._order(k)
            # coefficients in units of σ over the root mean square of their column
            units = scale / np.linalg.norm(np.asarray(inward), axis=0)
            permutation = np.eye(term.q)[:, order]
            inner = permutation.T @ (matrix / np.outer(units, units)) @ permutation
            factors.append(psd_cholesky(inner, 1e-13))
            maps.append(np.asarray(inward) @ (units[:, None] * permutation) / self.unit)
            self.scales.append(units)
        pairs = zip(structure.terms, factors, strict=True)
        raw = np.concatenate([np.zeros(0), *(term.linear.params(f) for term, f in pairs)])
        self.x = np.append(raw, 2.0 * np.log(scale / self.unit))
        self.inward = tuple(maps)
        self._polar()
        self.places = [self._place(target) for target in self.targets]
        # rows of a: β_j = β₀_j + s aᵀβ̃
        linear = np.linalg.solve(np.asarray(basis.x_factor).T, np.eye(p)) if p else np.zeros((0, 0))
        chosen = [t.i for t in self.targets if t.kind == "beta"]
        self.rows = self.unit * linear.T[chosen]
        self.lift = np.linalg.pinv(self.rows) if chosen else np.zeros((p, 0))
        self.plane = np.eye(p) - self.lift @ self.rows
        self.shift = np.asarray(problem.origin.beta)[chosen]
        free = np.zeros(len(self.x), bool)
        with jax.enable_x64(True):
            optimum = self._solve(self._chart(np.eye(p), np.zeros(p)), self.x, free)
        self.x, self.minimum = optimum.x, float(optimum.f)
        self.hessian = optimum.hessian
        coefficients = iter(np.asarray(beta)[chosen])
        self.best = np.array([next(coefficients) if at is None else self.x[at] for at in self.places])

    def _order(self, k: int) -> list[int]:
        """Coefficients of term k, those of the targets first."""
        wanted = [c for t in self.targets if t.term == k for c in _coefficients(t)]
        first = list(dict.fromkeys(wanted))
        q = self.problem.structure.terms[k].q
        if wanted and self.problem.structure.terms[k].family.name not in ("us", "diag"):
            raise ValueError(
                "profiles of structured covariances are not available: use method='wald' or 'boot'"
            )
        if len(first) > 2:
            raise ValueError(
                "a profile of these two parameters needs three coefficients of one random term: choose two "
                "parameters of the same two coefficients, or of different terms"
            )
        return first + [c for c in range(q) if c not in first]

    def _at(self, k: int, row: int, column: int) -> int:
        """Position in x of an entry of L of term k."""
        structure = self.problem.structure
        term = structure.terms[k]
        flat = np.asarray(term.linear.params(np.arange(term.q**2).reshape(term.q, term.q)))
        return structure.slices()[k].start + int(np.flatnonzero(flat == row * term.q + column)[0])

    def _polar(self) -> None:
        """Put row 2 of one unstructured term in polar form, if its targets need it."""
        for k, term in enumerate(self.problem.structure.terms):
            wanted = {c for t in self.targets if t.term == k for c in _coefficients(t)}
            if len(wanted) < 2 or term.family.name == "diag":
                continue
            if self.angle.any():
                raise ValueError("a joint profile takes one correlation: choose another pair of parameters")
            across, down = self._at(k, 1, 0), self._at(k, 1, 1)
            self.radius[across], self.angle[down] = 1.0, 1.0
            a, b = self.x[across], self.x[down]
            self.x[across], self.x[down] = np.hypot(a, b), np.arctan2(a, b)

    def _place(self, target: Target) -> int | None:
        """Position in x of a target; None for a coefficient of β."""
        if target.kind == "beta":
            return None
        if target.kind == "sigma":
            return len(self.x) - 1
        order = self._order(target.term)
        if target.kind == "cor":
            return self._at(target.term, 1, 1)
        row = order.index(target.i)
        diagonal = self.problem.structure.terms[target.term].family.name == "diag"
        return self._at(target.term, row, row if diagonal else 0)

    def _chart(self, plane: np.ndarray, point: np.ndarray) -> Chart:
        return Chart(self.inward, self.radius, self.angle, plane, point)

    def _solve(self, chart: Chart, x: np.ndarray, fixed: np.ndarray) -> Point:
        return jax.tree.map(np.asarray, constrained_jit(self.problem, chart, x, fixed))

    def locate(self, coordinates: np.ndarray, start: np.ndarray | None = None) -> tuple[Point, np.ndarray]:
        """The constrained optimum at coordinates (k,) of the targets, and ∂F/∂coordinates (k,)."""
        x = np.array(self.x if start is None else start)
        fixed = np.zeros(len(x), bool)
        for target, at, value in zip(self.targets, self.places, coordinates, strict=True):
            if at is None:
                continue
            x[at], fixed[at] = value, True
            if target.kind == "sd" and value == 0.0 and not self.angle[at] and not self.radius[at]:
                column = self._column(target)
                x[column], fixed[column] = 0.0, True
        wanted = np.array([c for at, c in zip(self.places, coordinates, strict=True) if at is None])
        point = self.lift @ (wanted - self.shift)
        with jax.enable_x64(True):
            found = self._solve(self._chart(self.plane, point), x, fixed)
        pull = iter(found.score @ self.lift)
        slope = np.array([next(pull) if at is None else found.gradient[at] for at in self.places])
        return found, slope

    def _column(self, target: Target) -> list[int]:
        """Positions of the first column of L: where sd_i is zero its covariances are."""
        term = self.problem.structure.terms[target.term]
        if term.family.name == "diag":
            row = self._order(target.term).index(target.i)
            return [self._at(target.term, row, row)]
        return [self._at(target.term, row, 0) for row in range(term.q)]

    def value(self, k: int, coordinate: float) -> float:
        """Target k on its own scale: an sd, a correlation, σ or a coefficient."""
        target = self.targets[k]
        if target.kind == "sd":
            return abs(coordinate) * float(self.scales[target.term][target.i])
        if target.kind == "cor":
            return float(np.sin(coordinate))
        return self.unit * float(np.exp(0.5 * coordinate)) if target.kind == "sigma" else float(coordinate)

    def coordinate(self, k: int, value: float) -> float:
        """The inverse of `value`."""
        target = self.targets[k]
        if target.kind == "sd":
            return value / float(self.scales[target.term][target.i])
        if target.kind == "cor":
            return float(np.arcsin(np.clip(value, -1.0, 1.0)))
        return 2.0 * float(np.log(value / self.unit)) if target.kind == "sigma" else float(value)

    def parameters(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """ψ (m + 1,) and β (p,) at a constrained optimum."""
        r, a = point.x @ self.radius, point.x @ self.angle
        raw = point.x + self.radius * (r * np.sin(a) - r) + self.angle * (r * np.cos(a) - a)
        basis, structure = self.problem.basis, self.problem.structure
        matrices = []
        pairs = zip(structure.terms, structure.slices(), strict=True)
        factors = [t.linear.factor(raw[s], t.q) for t, s in pairs]
        for factor, inward, outward in zip(factors, self.inward, basis.outward, strict=True):
            half = self.unit * np.asarray(outward) @ inward @ factor
            matrices.append(half @ half.T)
        sigma2 = self.unit**2 * np.exp(point.x[-1])
        beta = np.asarray(self.problem.origin.beta)
        if len(beta):
            beta = beta + self.unit * np.linalg.solve(np.asarray(basis.x_factor), point.beta)
        return np.append(structure.natural(tuple(matrices), dtype=float), sigma2), beta

    def bounds(self, k: int) -> tuple[float, float]:
        """The range of the coordinate of target k."""
        kind = self.targets[k].kind
        if kind == "sd":
            return 0.0, np.inf
        return (-0.5 * np.pi, 0.5 * np.pi) if kind == "cor" else (-np.inf, np.inf)

    def spread(self, k: int) -> float:
        """Standard error of coordinate k from the curvature at the optimum: a first guess of its scale."""
        at = self.places[k]
        if at is None:
            # r² rises by (β − β̂)²/(aᵀSxx⁻¹a): a unit step shows by how much
            step = abs(self.best[k]) * 1e-3 or self.unit
            found, _ = self.locate(self.best + step * (np.arange(len(self.best)) == k))
            rise = float(found.f) - self.minimum
            return step / np.sqrt(rise) if rise > 0 else step
        variance = 2.0 * float(np.linalg.pinv(self.hessian)[at, at])
        return float(np.sqrt(variance)) if 0 < variance < 1e4 else 0.5


def endpoint(surface: Surface, side: int, target: float, tolerance: float = 1e-10) -> tuple[float, Point]:
    """Where the profile of the one target of `surface` rises by target² on one side, −1 or 1.

    Returns the coordinate, or the bound if the profile does not rise so far, and the optimum there. Newton's
    method on ζ = √(F − min F), which is nearly linear, kept inside a bracket.
    """
    bound = surface.bounds(0)[0 if side < 0 else 1]
    best = inner = float(surface.best[0])
    outer = None
    x = surface.x
    if np.isfinite(bound):
        edge, _ = surface.locate(np.array([bound]))
        if _zeta(surface, edge) <= target or abs(bound - best) < 1e-12:
            return bound, edge
        outer = bound
    at = best + side * target * surface.spread(0)
    if outer is not None and (outer - at) * side <= 0:
        at = 0.5 * (best + outer)
    found = None
    for _ in range(80):
        found, slope = surface.locate(np.array([at]), x)
        x = found.x
        zeta = _zeta(surface, found)
        miss = zeta - target
        if abs(miss) <= tolerance * target:
            break
        inner, outer = (inner, at) if miss > 0 else (at, outer)
        rate = side * float(slope[0]) / (2.0 * max(zeta, 1e-300))
        proposal = at - side * miss / rate if rate > 0 else np.nan
        reach = 4.0 * (abs(at - best) + 1e-12)
        if outer is None:
            at = proposal if abs(proposal - at) <= reach else at + side * reach / 4.0
        else:
            inside = (proposal - inner) * side > 0 and (outer - proposal) * side > 0
            at = proposal if inside else 0.5 * (inner + outer)
            if abs(outer - inner) <= 1e-14 * max(abs(inner), abs(outer)):
                break
    assert found is not None
    return at, found


def _zeta(surface: Surface, point: Point) -> float:
    return float(np.sqrt(max(float(point.f) - surface.minimum, 0.0)))


def _coefficients(target: Target) -> tuple[int, ...]:
    """Coefficients of its random term that a target involves."""
    return {"sd": (target.i,), "cor": (target.j, target.i)}.get(target.kind, ())
