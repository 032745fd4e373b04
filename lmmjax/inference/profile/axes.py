"""What is profiled, and how it is read from a coordinate."""

from __future__ import annotations

import dataclasses

import numpy as np

from lmmjax.covariance import Parameter


@dataclasses.dataclass(frozen=True)
class Target:
    """A parameter: kind "sd" (coefficient i of a term), "cor" (i and j), "sigma", "beta" (coefficient i).

    Those of patterned terms and of the residuals have kind "parameter" and their position i in ψ; `unit` is
    how many of the user's units of time or distance are one of the design's.
    """

    kind: str
    term: int = 0
    i: int = 0
    j: int = 0
    unit: float = 1.0


@dataclasses.dataclass(frozen=True)
class Axis:
    """How a target is a coordinate.

    Attributes
    ----------
    at : position in x; None for a coefficient of β.
    kind : how the coordinate is read: the value itself, its size or square, its log, that of its square
        (σ), or arcsin of its place in its range; bounds : of the coordinate.
    scale : factor between the value and that in internal units.
    parameter, unit : of a parameter that is reported in other units.
    zeros : positions that vanish with the coordinate.
    inner : whether the likelihood may have no value at the bounds, where R is singular.
    """

    at: int | None
    kind: str
    bounds: tuple[float, float] = (-np.inf, np.inf)
    scale: float = 1.0
    parameter: Parameter | None = None
    unit: float = 1.0
    zeros: tuple[int, ...] = ()
    inner: bool = False

    def value(self, x: float) -> float:
        """The value at a coordinate: an sd, a variance, a correlation, a coefficient, as tables have it."""
        with np.errstate(over="ignore"):
            if self.kind == "size":
                return abs(x) * self.scale
            if self.kind == "square":
                return (x * self.scale) ** 2
            if self.kind == "sigma":
                return self.scale * float(np.exp(0.5 * x))
            if self.kind == "log":
                return float(self._reported(np.exp(x) * self.scale))
            if self.kind == "arcsin":
                assert self.parameter is not None
                return float(self._reported(self.parameter.decode(np.float64(x))))
            return x * self.scale

    def coordinate(self, value: float) -> float:
        """The inverse of `value`."""
        if self.kind == "size":
            return value / self.scale
        if self.kind == "square":
            return float(np.sqrt(value)) / self.scale
        if self.kind == "sigma":
            return 2.0 * float(np.log(value / self.scale))
        if self.kind == "log":
            return float(np.log(self._given(value) / self.scale))
        if self.kind == "arcsin":
            assert self.parameter is not None
            return float(self.parameter.encode(np.float64(self._given(value))))
        return value / self.scale

    def _reported(self, value: float) -> np.ndarray | float:
        if self.parameter is None or not np.isfinite(value):
            return value
        return self.parameter.reported(np.float64(value), self.unit)

    def _given(self, value: float) -> float:
        return value if self.parameter is None else self.parameter.from_reported(value, self.unit)
