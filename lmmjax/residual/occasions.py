"""Correlations between occasions of a schedule: compound symmetry, Toeplitz, ARMA."""

from __future__ import annotations

import dataclasses
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance import Parameter
from lmmjax.covariance.autocorrelation import from_partial, partial_of_coefficients, to_partial
from lmmjax.residual.base import Correlation, Space, Timed

FEW = 8
"""Distances up to which partial autocorrelations that do not fade are far from a singular matrix."""


@dataclasses.dataclass(frozen=True)
class CompoundSymmetry(Correlation):
    """One correlation ρ in (−1/(size − 1), 1) between any two rows of a group. nlme's corCompSymm.

    Parameters
    ----------
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    """

    name = "CompoundSymmetry"
    within = frozenset({"Toeplitz", "Symmetric", "Unstructured"})
    reads = "order"
    exchangeable = True
    covariances = True

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        return (Parameter("Rho", "interval", (0.2, 0.7), -1.0 / max(space.size - 1, 1), 1.0),)

    def feasible(self, r: Array, space: Space) -> Array:
        return jnp.clip(r, 0.95 * self.parameters(space)[0].lower, 0.95)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        return jnp.where(jnp.asarray(left) == jnp.asarray(right), 1.0, r[0]).astype(r.dtype)


@dataclasses.dataclass(frozen=True)
class Toeplitz(Timed):
    """One correlation for every distance of occasions; θ are arcsines of partial autocorrelations.

    Parameters
    ----------
    time : the column of the occasions, whole numbers or dates; None for the order of the rows.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    """

    name = "Toeplitz"
    within = frozenset({"Symmetric", "Unstructured"})
    covariances = True
    several = True

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        k = np.arange(1, space.size)
        # beside moments from the other end, where partial autocorrelations are negative
        ends = from_partial(np.full(len(k), -0.7))[0] if len(k) <= FEW else (-0.6) ** k
        starts = ((0.2, float(end)) for end in ends)
        return tuple(Parameter(f"cor{j}", "interval", own) for j, own in zip(k, starts, strict=True))

    def feasible(self, r: Array, space: Space) -> Array:
        partial = to_partial(r)
        good = jnp.max(jnp.abs(partial)) < 0.95
        # half the row sums of a matrix that is diagonally dominant
        return jnp.where(good, r, r * jnp.minimum(1.0, 0.45 / jnp.maximum(jnp.sum(jnp.abs(r)), 0.1)))

    def decode(self, theta: Array, space: Space) -> Array:
        return from_partial(namespace(theta).sin(theta))[0]

    def encode(self, r: Array, space: Space) -> Array:
        xp = namespace(r)
        return xp.arcsin(xp.clip(to_partial(r), -1.0, 1.0))

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        table = jnp.concatenate([jnp.ones(1, r.dtype), jnp.asarray(r)])
        return table[jnp.abs(jnp.asarray(left) - jnp.asarray(right))]

    def check(self, space: Space) -> None:
        if space.size > 60:
            raise ValueError(
                f"Toeplitz: times span {space.size} steps of their common divisor, each distance a "
                "parameter; number the occasions, or use AR1 or ARMA"
            )


@dataclasses.dataclass(frozen=True)
class ARMA(Timed):
    """Autoregression of order p with moving average of order q. nlme's corARMA.

    ε_t = Σ φ_j ε_{t−j} + a_t + Σ θ_j a_{t−j}; working values are arcsines of the partial autocorrelations
    that φ and −θ stand for, so that the process is stationary and invertible.

    Parameters
    ----------
    time : the column of the occasions, whole numbers or dates; None for the order of the rows.
    p, q : the orders, not both 0.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.

    Raises
    ------
    ValueError : orders that are negative, or both 0.
    """

    p: int = 1
    q: int = 0
    name = "ARMA"
    within = frozenset({"Toeplitz", "Symmetric", "Unstructured"})

    def __post_init__(self):
        if self.p < 0 or self.q < 0 or self.p + self.q == 0:
            raise ValueError(f"ARMA needs orders p, q ≥ 0, not both 0; these are {self.p}, {self.q}")

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        # neighbours may be many steps apart
        first = tuple(c ** (1.0 / space.unit) for c in (0.3, 0.6))
        rest = (0.05,) if space.unit == 1.0 else (0.0,)
        phi = [_coefficient(f"Phi{k + 1}", self.p, k + 1, rest if k else first) for k in range(self.p)]
        theta = [_coefficient(f"Theta{k + 1}", self.q, k + 1, (0.1, -0.3)) for k in range(self.q)]
        return (*phi, *theta)

    def decode(self, theta: Array, space: Space) -> Array:
        xp = namespace(theta)
        partial = xp.sin(theta)
        return xp.concatenate([from_partial(partial[: self.p])[1], -from_partial(partial[self.p :])[1]])

    def encode(self, r: Array, space: Space) -> Array:
        xp = namespace(r)
        pieces = (r[: self.p], -r[self.p :])
        partial = xp.concatenate([partial_of_coefficients(piece) for piece in pieces])
        return xp.arcsin(xp.clip(partial, -1.0, 1.0))

    def margin(self, theta: Array, space: Space) -> Array:
        return namespace(theta).abs(namespace(theta).cos(theta))

    def check(self, space: Space) -> None:
        if self.p + self.q >= space.size:
            raise ValueError(
                f"ARMA(p={self.p}, q={self.q}): rows of a group are at most {space.size - 1} steps apart, "
                f"which cannot tell {self.p + self.q} coefficients: lower p and q"
            )
        if space.size > 20_000:
            raise ValueError(
                f"ARMA: times span {space.size} steps of their common divisor: number the occasions, round "
                "the times, or use CAR1"
            )

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        lag = jnp.abs(jnp.asarray(left) - jnp.asarray(right))
        return self.autocorrelations(jnp.asarray(r), space.size)[lag]

    def autocorrelations(self, r: Array, size: int) -> Array:
        """At lags 0 … size − 1: of the autoregression, then of its moving average."""
        phi, weights = r[: self.p], jnp.concatenate([jnp.ones(1, r.dtype), r[self.p :]])
        total = size + self.q
        if self.p:
            first = from_partial(partial_of_coefficients(phi))[0]
            begin = jnp.concatenate([jnp.ones(1, r.dtype), first])

            def step(window: Array, _: None) -> tuple[Array, Array]:
                new = phi @ window[::-1]
                return jnp.concatenate([window[1:], new[None]]), new

            _, rest = jax.lax.scan(step, begin[1:], None, length=max(total - self.p, 0))
            own = jnp.concatenate([begin, rest])[:total]
        else:
            own = jnp.zeros(total, r.dtype).at[0].set(1.0)
        lag = jnp.arange(size)
        gamma = jnp.zeros(size, r.dtype)
        for i in range(self.q + 1):
            for j in range(self.q + 1):
                gamma = gamma + weights[i] * weights[j] * own[jnp.abs(lag + i - j)]
        return gamma / gamma[0]


def _coefficient(name: str, order: int, k: int, starts: tuple[float, ...]) -> Parameter:
    """Coefficient k of a polynomial with roots outside the unit circle: at most (order over k) in size."""
    return Parameter(name, "interval", starts, -float(comb(order, k)), float(comb(order, k)))
