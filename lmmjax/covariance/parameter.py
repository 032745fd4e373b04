"""One parameter of a covariance structure: its name, its range, and the scale it is optimised on."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from lmmjax.arrays import UNROLL, Array, namespace

LEAST = 1e-26
"""Variance, relative to σ², that stands for none where V is not smooth there."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter a with an unconstrained working value θ.

    kind "variance": a = θ², so that zero is an interior point in θ, or exp 2θ where V is not smooth there;
    "positive": a = exp θ; "interval": a = c + h sin θ with c, h the middle and half-width of (lower, upper),
    so that an end is an interior point in θ; "real": a = θ.

    Attributes
    ----------
    name : as in tables.
    starts : values to descend from, the first by default.
    power : σ^(2·power) is the factor between the parameter on the scale of V and on that of V/σ².
    place : of a variance, the position of its coefficient; None if all share it.
    pair : of a covariance, those of its two.
    smooth : whether V is smooth in θ at θ = 0, so that an estimate of exactly zero may be tried. V is not
        smooth in a variance with covariances √(a b) c.
    scale : "length" of a distance, "rate" of a correlation at a distance, which `reported` puts in the
        user's units of time; "" for others.
    steps : of a rate, the distance that it belongs to.
    """

    name: str
    kind: str
    starts: tuple[float, ...] = (1.0,)
    lower: float = -1.0
    upper: float = 1.0
    power: float = 0.0
    place: int | None = None
    pair: tuple[int, int] | None = None
    smooth: bool = False
    scale: str = ""
    steps: float = 1.0

    def decode(self, theta: Array) -> Array:
        """a from θ."""
        xp = namespace(theta)
        if self.kind == "variance":
            return theta * theta if self.smooth else xp.exp(2.0 * theta)
        if self.kind == "positive":
            return xp.exp(theta)
        if self.kind == "interval":
            return self._middle + self._half * xp.sin(theta)
        return theta

    def encode(self, value: Array) -> Array:
        """θ from a; values out of range are moved to its ends."""
        xp = namespace(value)
        if self.kind == "variance" and not self.smooth:
            return 0.5 * xp.log(xp.maximum(value, LEAST))
        if self.kind == "variance":
            return xp.sqrt(xp.maximum(value, 0.0))
        if self.kind == "positive":
            return xp.log(value)
        if self.kind == "interval":
            return xp.arcsin(xp.clip((value - self._middle) / self._half, -1.0, 1.0))
        return value

    def folded(self, theta: Array) -> Array:
        """θ of the same a as `encode` gives it, with all digits: near an end a has half of them."""
        xp = namespace(theta)
        if self.kind == "variance" and self.smooth:
            return xp.abs(theta)
        if self.kind != "interval":
            return theta
        turns = xp.floor(theta / np.pi + 0.5)
        odd = turns - 2.0 * xp.floor(0.5 * turns)
        return (theta - np.pi * turns) * (1.0 - 2.0 * odd)

    def margin(self, theta: Array) -> Array:
        """Distance from the end of the range: 0 there."""
        xp = namespace(theta)
        if self.kind == "variance":
            return xp.abs(theta) if self.smooth else xp.exp(theta)
        return xp.abs(xp.cos(theta)) if self.kind == "interval" else xp.ones_like(theta)

    def reported(self, value: Array, unit: float) -> Array:
        """a in the user's units, of which `unit` are one of the design's.

        A distance is a · unit, a correlation a^(1/(steps · unit)), that of distance 1; one below zero has no
        roots and is that of one step of the lattice, −|a|^(1/steps).
        """
        if self.scale == "length":
            return value * unit
        if self.scale != "rate" or self.steps * unit == 1.0:
            return value
        xp = namespace(value)
        below = -xp.power(xp.abs(value), 1.0 / self.steps)
        return xp.where(value < 0.0, below, xp.power(xp.abs(value), 1.0 / (self.steps * unit)))

    def from_reported(self, value: float, unit: float) -> float:
        """a from its value in the user's units, the inverse of `reported`."""
        if self.scale == "length":
            return value / unit
        if self.scale != "rate" or self.steps * unit == 1.0:
            return value
        return -(abs(value) ** self.steps) if value < 0.0 else value ** (self.steps * unit)

    def slope(self, value: Array, unit: float) -> Array:
        """The derivative of `reported` in a."""
        xp = namespace(value)
        if self.scale == "length":
            return xp.full_like(value, unit)
        if self.scale != "rate" or self.steps * unit == 1.0:
            return xp.ones_like(value)
        power = xp.where(value < 0.0, 1.0 / self.steps, 1.0 / (self.steps * unit))
        return power * xp.power(xp.abs(value), power - 1.0)

    def limits(self, value: Array, half: Array) -> tuple[Array, Array]:
        """value ∓ half on the scale of the log or logit, back on that of the value.

        A rate between 0 and 1 is aᵘ in other units of time; log(−log a) moves by log u, and its limits agree.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.kind in ("positive", "variance"):
                return value * np.exp(-half / value), value * np.exp(half / value)
            if self.scale == "rate" and self.lower == 0.0:
                step = half / -(value * np.log(value))
                return value ** np.exp(step), value ** np.exp(-step)
            if self.kind == "interval":
                below, above = value - self.lower, self.upper - value
                ratio, step = above / below, half * (1.0 / below + 1.0 / above)
                width = self.upper - self.lower
                low = self.lower + width / (1.0 + ratio * np.exp(step))
                return low, self.lower + width / (1.0 + ratio * np.exp(-step))
        return value - half, value + half

    @property
    def _middle(self) -> float:
        return (self.lower + self.upper) / 2

    @property
    def _half(self) -> float:
        return (self.upper - self.lower) / 2


def variance(place: int | None = None, smooth: bool = False) -> Parameter:
    """A variance, relative to σ²."""
    return Parameter("variance", "variance", (1.0,), power=1.0, place=place, smooth=smooth)


def each(parameters: tuple[Parameter, ...], values: Array, what: str) -> Array:
    """A method of every parameter, applied to its value (k,); many of one kind at once."""
    xp = namespace(values)
    if not parameters:
        return values
    if len(parameters) <= UNROLL:
        out = [getattr(p, what)(values[k]) for k, p in enumerate(parameters)]
        return xp.stack(out).astype(values.dtype)
    out, first = [], 0
    for _, alike in itertools.groupby(parameters, key=lambda p: (p.kind, p.lower, p.upper, p.smooth)):
        group = list(alike)
        out.append(getattr(group[0], what)(values[first : first + len(group)]))
        first += len(group)
    return xp.concatenate(out).astype(values.dtype)
