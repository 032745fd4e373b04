"""First-order autoregression: equally spaced (AR1) and in continuous time (CAR1)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from lmmjax.arrays import Array, namespace
from lmmjax.covariance import Parameter
from lmmjax.residual.base import Space, Timed, WithNugget


@dataclasses.dataclass(frozen=True)
class AR1(WithNugget, Timed):
    """Correlation ρ^|t − t′| at integer occasions t, ρ in (−1, 1); `time` None takes the order of the rows.

    A missing occasion is a gap in `time`, not in position. nlme's corAR1.
    """

    name = "AR1"
    within = frozenset({"Toeplitz", "ARMA", "Symmetric", "Unstructured"})

    @property
    def markov(self) -> bool:
        return not self.nugget

    def shape_parameters(self, space: Space) -> tuple[Parameter, ...]:
        return (Parameter("Phi", "interval", (0.3, 0.8, -0.3)),)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return _power(r[0], left, right)


@dataclasses.dataclass(frozen=True)
class CAR1(WithNugget):
    """Correlation φ^|t − t′| at any times t, φ in [0, 1): the correlation at distance 1. nlme's corCAR1."""

    time: str
    name = "CAR1"
    within = frozenset({"AR1", "Symmetric", "Unstructured"})

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.time,)

    @property
    def markov(self) -> bool:
        return not self.nugget

    def shape_parameters(self, space: Space) -> tuple[Parameter, ...]:
        starts = tuple(c ** (1.0 / space.unit) for c in (0.4, 0.8, 0.1))
        return (Parameter("Phi", "interval", starts, 0.0, 1.0),)

    def decode(self, theta: Array, space: Space) -> Array:
        # the correlation of neighbours is what is worked on
        xp = namespace(theta)
        phi = xp.power(0.5 + 0.5 * xp.sin(theta[:1]), 1.0 / space.unit)
        return xp.concatenate([phi, super().decode(theta, space)[1:]])

    def encode(self, r: Array, space: Space) -> Array:
        xp = namespace(r)
        theta = xp.arcsin(xp.clip(2.0 * xp.power(r[:1], space.unit) - 1.0, -1.0, 1.0))
        return xp.concatenate([theta, super().encode(r, space)[1:]])

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return _power(r[0], left, right)


def _power(base: Array, left: Array, right: Array) -> Array:
    """base^|left − right|; the exponent is fixed, as its derivative is undefined at a negative base."""
    lag = jnp.abs(jnp.asarray(left) - jnp.asarray(right)).astype(base.dtype)
    return jnp.power(base, jax.lax.stop_gradient(lag))
