"""First-order autoregression: equally spaced (AR1) and in continuous time (CAR1)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.covariance import Parameter
from lmmjax.residual.base import Space, Timed, WithNugget

FEW = 16.0
"""Typical steps between neighbours up to which the correlation of one step is what is worked on."""


LEAST = 1e-30
"""A correlation that stands for none."""


@dataclasses.dataclass(frozen=True)
class AR1(WithNugget, Timed):
    """Correlation ρ^|t − t′| at equally spaced occasions t, ρ in (−1, 1).

    A missing occasion is a gap in `time`, not in position. nlme's corAR1. Where neighbours are many steps
    apart, u of them, the parameter is the correlation at that distance, with the sign of ρ.

    Parameters
    ----------
    time : the column of the occasions, whole numbers or dates; None for the order of the rows.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    nugget : whether a share of the variance, estimated, is not correlated.
    """

    name = "AR1"
    within = frozenset({"Toeplitz", "ARMA", "Symmetric", "Unstructured"})
    fractional = True

    @property
    def markov(self) -> bool:
        return not self.nugget

    def shape_parameters(self, space: Space) -> tuple[Parameter, ...]:
        steps = _steps(space)
        starts = tuple(np.sign(c) * abs(c) ** (steps / space.unit) for c in (0.3, 0.8, -0.3))
        return (Parameter("Phi", "interval", starts, scale="rate", steps=steps),)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return _power(r[0], left, right, _steps(space))


@dataclasses.dataclass(frozen=True)
class CAR1(WithNugget):
    """Correlation φ^|t − t′| at any times t, φ in [0, 1): the correlation at distance 1. nlme's corCAR1.

    Parameters
    ----------
    time : the column of the times.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    nugget : whether a share of the variance, estimated, is not correlated.
    """

    time: str
    columned = ("time",)
    name = "CAR1"
    within = frozenset({"AR1", "Symmetric", "Unstructured"})

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.time,)

    @property
    def markov(self) -> bool:
        return not self.nugget

    def shape_parameters(self, space: Space) -> tuple[Parameter, ...]:
        return (Parameter("Phi", "interval", (0.4, 0.8, 0.1), 0.0, 1.0, scale="rate"),)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return _power(r[0], left, right)


def _steps(space: Space) -> float:
    return space.unit if space.unit > FEW else 1.0


def _power(base: Array, left: Array, right: Array, steps: float = 1.0) -> Array:
    """ρ^|left − right|, base ρ^steps with the sign of ρ; a negative ρ has no fractional powers.

    The exponent is fixed, as its derivative is undefined at a negative base.
    """
    lag = jax.lax.stop_gradient(jnp.abs(jnp.asarray(left) - jnp.asarray(right)).astype(base.dtype))
    # at zero the second derivative of ρ¹ would be 0 · ∞
    base = base + jnp.where(base == 0.0, LEAST, 0.0).astype(base.dtype)
    if steps == 1.0:
        return jnp.power(base, lag)
    sign = jnp.where(lag % 2.0 == 0.0, 1.0, jnp.where(lag % 2.0 == 1.0, -1.0, jnp.nan)).astype(base.dtype)
    size = jnp.power(jnp.abs(base), lag / steps)
    return jnp.where(base < 0.0, sign * size, size)
