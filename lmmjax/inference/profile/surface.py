"""The criterion as a function of one or two parameters, and where it crosses a level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from lmmjax.core import Problem
from lmmjax.inference.profile.axes import Target
from lmmjax.inference.profile.constrained import Chart, Point, constrained_jit
from lmmjax.inference.profile.layout import Axes
from lmmjax.optimize import Status

REACH = 10.0
"""How far a coordinate that is a logarithm is followed, to where the criterion has risen or never does."""

INSET = 1e-4
"""Share of the way from a bound to the estimate at which the criterion is looked at in its place."""

SETTLED = 1e-6
"""Newton decrement up to which a constrained optimum is one, where rounding kept it from being certified."""

TOLERANCE = 1e-10
"""Share of the level within which a search ends."""

NEAR = 1e-4
"""Share of the level within which a search that rounding ended has reached it."""

LOWER = 1e-5
"""How far below its minimum the criterion may be found by rounding; further, the minimum was none."""


class Surface:
    """The criterion as a function of one or two parameters, minimised over all others.

    Parameters
    ----------
    problem : float64, its `reml` the criterion to profile.
    psi : (m + 1,), beta : (p,) the optimum of that criterion, as `Estimate` has them.
    targets : the parameters of interest.

    Attributes
    ----------
    minimum : the criterion at the optimum; lowest : the least that was found anywhere.
    best : (k,) coordinates of the targets there: see `Axis`.
    """

    def __init__(self, problem: Problem, psi: np.ndarray, beta: np.ndarray, targets: Sequence[Target]):
        self.problem, self.targets = problem, tuple(targets)
        self.laid = Axes(problem, psi, targets)
        self.axes, self.x = self.laid.axes, self.laid.x
        # σ² that is known stays
        self.constant = np.zeros(len(self.x), bool)
        if problem.known_inside is not None:
            self.x[-1], self.constant[-1] = np.log(float(problem.known_inside)), True
        p, basis = len(beta), problem.basis
        # rows of a: β_j = β₀_j + s aᵀβ̃
        linear = np.linalg.solve(np.asarray(basis.x_factor).T, np.eye(p)) if p else np.zeros((0, 0))
        chosen = [t.i for t in self.targets if t.kind == "beta"]
        self.rows = self.laid.unit * linear.T[chosen]
        self.lift = np.linalg.pinv(self.rows) if chosen else np.zeros((p, 0))
        self.plane = np.eye(p) - self.lift @ self.rows
        self.shift = np.asarray(problem.origin.beta)[chosen]
        with jax.enable_x64(True):
            optimum = self._solve(self._chart(np.eye(p), np.zeros(p)), self.x, self.constant)
        self.x, self.minimum = optimum.x, float(optimum.f)
        self.lowest, self.hessian = self.minimum, optimum.hessian
        coefficients = iter(np.asarray(beta)[chosen])
        self.best = np.array([next(coefficients) if a.at is None else self.x[a.at] for a in self.axes])

    def _chart(self, plane: np.ndarray, point: np.ndarray) -> Chart:
        own = self.laid
        return Chart(own.maps, own.radius, own.angle, own.bends, plane, point)

    def _solve(self, chart: Chart, x: np.ndarray, fixed: np.ndarray) -> Point:
        return jax.tree.map(np.asarray, constrained_jit(self.problem, chart, x, fixed))

    def locate(self, coordinates: np.ndarray, start: np.ndarray | None = None) -> tuple[Point, np.ndarray]:
        """The constrained optimum at coordinates (k,) of the targets, and ∂F/∂coordinates (k,)."""
        x = np.array(self.x if start is None else start)
        fixed = self.constant.copy()
        for axis, value in zip(self.axes, coordinates, strict=True):
            if axis.at is None:
                continue
            x[axis.at], fixed[axis.at] = value, True
            if value == 0.0 and axis.zeros:
                x[list(axis.zeros)], fixed[list(axis.zeros)] = 0.0, True
        wanted = np.array([c for a, c in zip(self.axes, coordinates, strict=True) if a.at is None])
        point = self.lift @ (wanted - self.shift)
        with jax.enable_x64(True):
            found = self._solve(self._chart(self.plane, point), x, fixed)
        found = self._upright(found)
        if self._is_optimum(found):
            self.lowest = min(self.lowest, float(found.f))
        pull = iter(found.score @ self.lift)
        slope = np.array([next(pull) if a.at is None else found.gradient[a.at] for a in self.axes])
        return found, slope

    def value(self, k: int, coordinate: float) -> float:
        """Target k on its own scale: as in `conf_int`."""
        return self.axes[k].value(float(coordinate))

    def coordinate(self, k: int, value: float) -> float:
        """The inverse of `value`."""
        return self.axes[k].coordinate(value)

    def parameters(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """ψ (m + 1,) and β (p,) at a constrained optimum."""
        basis, structure, unit = self.problem.basis, self.problem.structure, self.laid.unit
        sigma2 = unit**2 * np.exp(point.natural[-1])
        d = np.asarray(structure.entry_map(basis.outward)) @ point.natural[:-1]
        beta = np.asarray(self.problem.origin.beta)
        if len(beta):
            beta = beta + unit * np.linalg.solve(np.asarray(basis.x_factor), point.beta)
        return np.append(sigma2**structure.powers * d, sigma2), beta

    def spread(self, k: int) -> float:
        """Standard error of coordinate k from the curvature at the optimum: a first guess of its scale."""
        at = self.axes[k].at
        if at is None:
            # r² rises by (β − β̂)²/(aᵀSxx⁻¹a): a unit step shows by how much
            step = abs(self.best[k]) * 1e-3 or self.laid.unit
            found, _ = self.locate(self.best + step * (np.arange(len(self.best)) == k))
            rise = float(found.f) - self.minimum
            return step / np.sqrt(rise) if rise > 0 else step
        free = ~self.constant
        curvature = np.where(free[:, None] & free[None, :], self.hessian, 0.0)
        variance = 2.0 * float(np.linalg.pinv(curvature)[at, at])
        return float(np.sqrt(variance)) if 0 < variance < 1e4 else 0.5

    def zeta(self, point: Point) -> float:
        """√(F − min F); infinite where there is no likelihood, missing where the optimum was not found."""
        if int(point.status) == Status.NOT_FINITE or not np.isfinite(point.f):
            return np.inf
        if not self._is_optimum(point):
            return np.nan
        return float(np.sqrt(max(float(point.f) - self.minimum, 0.0)))

    def _is_optimum(self, point: Point) -> bool:
        there = int(point.status) in (Status.CONVERGED, Status.FLAT) or float(point.decrement) <= SETTLED
        # loadings are those of columns with a positive first one
        return there and not any(point.x[column[0]] < 0.0 for column in self.laid.loadings())

    def _upright(self, point: Point) -> Point:
        """The same point with columns of loadings turned whose sign the targets leave open."""
        held = {axis.at for axis in self.axes}
        x, natural = np.array(point.x), np.array(point.natural)
        for column in self.laid.loadings():
            if x[column[0]] < 0.0 and not held & set(column.tolist()):
                x[column], natural[column] = -x[column], -natural[column]
        return dataclasses.replace(point, x=x, natural=natural)


@dataclasses.dataclass(frozen=True)
class End:
    """Where a profile ends.

    Attributes
    ----------
    at : coordinate; value : of the parameter, NaN where the profile could not be followed.
    boundary : whether the parameter's range, or that of the likelihood, ends before the level is reached.
    point : the optimum there.
    """

    at: float
    value: float
    boundary: bool
    point: Point


def endpoint(surface: Surface, side: int, target: float) -> End:
    """Where the profile of the one target of `surface` rises by target² on one side, −1 or 1.

    The bound of the parameter if the profile does not rise so far. Newton's method on ζ = √(F − min F), which
    is nearly linear, kept inside a bracket; where others would have to leave their range there is no optimum,
    and the step is halved.
    """
    axis, best = surface.axes[0], float(surface.best[0])
    bound = axis.bounds[0 if side < 0 else 1]
    inner, outer, x = best, None, surface.x
    if np.isfinite(bound):
        outermost = bound + INSET * (best - bound) if axis.inner else bound
        edge, _ = surface.locate(np.array([outermost]))
        if surface.zeta(edge) <= target or abs(bound - best) < 1e-12:
            return End(outermost, axis.value(bound), True, edge)
        outer = bound
    at = best + side * target * surface.spread(0)
    if outer is not None and (outer - at) * side <= 0:
        at = 0.5 * (best + outer)
    last, missing = None, False
    for _ in range(100):
        found, slope = surface.locate(np.array([at]), x)
        zeta = surface.zeta(found)
        miss = zeta - target
        if not np.isfinite(zeta):
            outer, missing = at, missing or bool(np.isnan(zeta))
        else:
            x, last = found.x, found
            if abs(miss) <= TOLERANCE * target:
                return End(at, axis.value(at), False, found)
            if axis.kind in ("log", "sigma") and miss < 0 and abs(at - best) > REACH:
                return End(at, axis.value(side * np.inf), True, found)
            inner, outer = (inner, at) if miss > 0 else (at, outer)
        rate = side * float(slope[0]) / (2.0 * max(zeta, 1e-300)) if np.isfinite(zeta) else 0.0
        proposal = at - side * miss / rate if rate > 0 else np.nan
        reach = 4.0 * (abs(at - best) + 1e-12)
        if outer is None:
            at = proposal if abs(proposal - at) <= reach else at + side * reach / 4.0
        else:
            inside = (proposal - inner) * side > 0 and (outer - proposal) * side > 0
            at = proposal if inside else 0.5 * (inner + outer)
            if abs(outer - inner) <= 1e-14 * max(abs(inner), abs(outer)):
                break
    if last is None:
        return End(at, np.nan, False, found)
    if missing:
        return End(inner, np.nan, False, last)
    # rounding ends the search beside the level, a range of others where the likelihood ends
    near = abs(surface.zeta(last) - target) <= NEAR * target
    return End(inner, axis.value(inner), not near, last)
