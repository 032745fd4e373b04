"""Parameters of covariance structures on the real line: correlations, ranges, ratios, powers, loadings.

A parameter a in (l, u) is l + (u − l)/(1 + e⁻ᵛ), one above zero eᵛ, any other v itself. Autocorrelations ρ
and coefficients φ of an autoregression, which have to belong to a positive definite matrix, are those of
partial autocorrelations p_k = tanh v_k, for which

    |∂ρ/∂p| = Π (1 − p_k²)^(K − k),     |∂φ/∂p| = Π (1 − p_k)^⌊k/2⌋ (1 + p_k)^⌊(k − 1)/2⌋,     k = 1 … K.

Both are densities of p that are uniform in ρ and in φ.

Source: Barndorff-Nielsen & Schou (1973), doi:10.1016/0047-259X(73)90030-4; Jones (1987), doi:10.2307/2347544.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy.special import betaln

from lmmjax.arrays import Array, record, static
from lmmjax.bayes.priors import Beta, Normal, ScalarPrior
from lmmjax.covariance import Parameter
from lmmjax.covariance.autocorrelation import from_partial, partial_of_coefficients, to_partial

WIDEST = 0.95
"""Share of the half-width of a range within which chains start."""


@record
class ShapePrior:
    """Prior of one parameter a of a structure that is no standard deviation, as it is reported.

    Attributes
    ----------
    prior : density in the reported value; None: uniform over the range of a.
    parameter : its range; unit : see `Parameter.reported`.
    """

    prior: Beta | Normal | ScalarPrior | None
    parameter: Parameter = static()
    unit: float = static()

    def from_line(self, u: Array) -> tuple[Array, Array]:
        """a and log da/du."""
        p = self.parameter
        if p.kind == "interval":
            below, above = -jnp.logaddexp(0.0, -u), -jnp.logaddexp(0.0, u)
            width = p.upper - p.lower
            return p.lower + width * jnp.exp(below), np.log(width) + below + above
        return (jnp.exp(u), u) if p.kind == "positive" else (u, jnp.zeros_like(u))

    def to_line(self, a: Array) -> Array:
        """u, the inverse of `from_line`."""
        p = self.parameter
        if p.kind == "interval":
            return jnp.log(a - p.lower) - jnp.log(p.upper - a)
        return jnp.log(a) if p.kind == "positive" else a

    def inside(self, a: np.ndarray) -> np.ndarray:
        """a, or a value near it that is not on the boundary of the range."""
        p = self.parameter
        if p.kind != "interval":
            return a
        middle, half = 0.5 * (p.lower + p.upper), 0.5 * (p.upper - p.lower)
        return middle + half * np.clip((a - middle) / half, -WIDEST, WIDEST)

    def log_density(self, a: Array) -> Array:
        """log p(a)."""
        p = self.parameter
        if self.prior is None:
            return jnp.full_like(a, -np.log(p.upper - p.lower))
        value, slope = p.reported(a, self.unit), jnp.log(p.slope(a, self.unit))
        if isinstance(self.prior, Beta):
            width = p.upper - p.lower
            return self.prior.log_density((value - p.lower) / width) - np.log(width) + slope
        return self.prior.log_density(value) + slope

    def __str__(self) -> str:
        if self.prior is None:
            return f"uniform({self.parameter.lower:.4g}, {self.parameter.upper:.4g})"
        return str(self.prior)


@record
class PatternPrior:
    """Prior of a patterned term, or of a block of the residuals: standard deviations, then other parameters.

    Attributes
    ----------
    sds : of the variances; shape : of the parameters after them.
    lags : how many of `shape`, the last ones, are autocorrelations; orders : or coefficients of an
        autoregression and of a moving average.
    """

    sds: tuple[ScalarPrior, ...]
    shape: tuple[ShapePrior, ...]
    lags: int = static(default=0)
    orders: tuple[int, int] = static(default=(0, 0))

    @property
    def size(self) -> int:
        """Number of coordinates on the line."""
        return len(self.sds) + len(self.shape)

    @property
    def _separate(self) -> int:
        """How many of `shape` have a coordinate of their own."""
        return len(self.shape) - self.lags - sum(self.orders)

    def from_line(self, u: Array) -> tuple[Array, Array, Array]:
        """Standard deviations (v,), the other parameters (k,), and log |d(τ, r)/du|."""
        v, k = len(self.sds), len(self.sds) + self._separate
        taus = [prior.from_line(u[j]) for j, prior in enumerate(self.sds)]
        own = [prior.from_line(u[v + j]) for j, prior in enumerate(self.shape[: self._separate])]
        jacobian = sum([slope for _, slope in (*taus, *own)], jnp.zeros((), u.dtype))
        values = [value[None] for value, _ in own]
        partial = jnp.tanh(u[k:])
        # log(1 ± tanh v)
        up, down = (np.log(2.0) - jnp.logaddexp(0.0, sign * 2.0 * u[k:]) for sign in (-1.0, 1.0))
        jacobian = jacobian + jnp.sum(up + down) + jnp.sum(self._up * up + self._down * down)
        if self.lags:
            values.append(from_partial(partial)[0])
        elif sum(self.orders):
            first = self.orders[0]
            values += [from_partial(partial[:first])[1], -from_partial(partial[first:])[1]]
        sds = jnp.stack([t for t, _ in taus]) if taus else u[:0]
        return sds, jnp.concatenate([*values, u[:0]]), jacobian

    def to_line(self, sds: Array, values: Array) -> Array:
        """u, the inverse of `from_line`."""
        own = [prior.to_line(t) for prior, t in zip(self.sds, sds, strict=True)]
        own += [p.to_line(a) for p, a in zip(self.shape[: self._separate], values, strict=False)]
        return jnp.concatenate([*(jnp.asarray(u)[None] for u in own), jnp.arctanh(self._partial(values))])

    def inside(self, values: np.ndarray) -> np.ndarray:
        """The parameters after the variances, or values near them that are not on a boundary."""
        own = [p.inside(a) for p, a in zip(self.shape[: self._separate], values, strict=False)]
        partial = np.clip(np.asarray(self._partial(values)), -WIDEST, WIDEST)
        if self.lags:
            return np.append(own, from_partial(partial)[0])
        first = self.orders[0]
        moved = from_partial(partial[:first])[1], -from_partial(partial[first:])[1]
        return np.concatenate([own, *moved]) if sum(self.orders) else np.array(own)

    def log_density(self, sds: Array, values: Array) -> Array:
        """log p(τ, r); up to a constant where lags or coefficients have priors that are not uniform."""
        total = sum([p.log_density(t) for p, t in zip(self.sds, sds, strict=True)], jnp.zeros((), sds.dtype))
        pairs = list(zip(self.shape, values, strict=True))
        total = total + sum(prior.log_density(a) for prior, a in pairs[: self._separate])
        given = [prior.log_density(a) for prior, a in pairs[self._separate :] if prior.prior is not None]
        return total + sum(given) if given else total - self._log_volume

    def _partial(self, values: Array) -> Array:
        rest = values[self._separate :]
        if self.lags:
            return to_partial(rest)
        if not sum(self.orders):
            return rest
        first, xp = self.orders[0], (np if isinstance(values, np.ndarray) else jnp)
        return xp.concatenate([partial_of_coefficients(a) for a in (rest[:first], -rest[first:])])

    @property
    def _up(self) -> np.ndarray:
        """Powers of 1 + p in the volume."""
        if self.lags:
            return np.arange(self.lags)[::-1].astype(float)
        return np.concatenate([(np.arange(order) // 2).astype(float) for order in self.orders])

    @property
    def _down(self) -> np.ndarray:
        """Powers of 1 − p."""
        if self.lags:
            return self._up
        return np.concatenate([((np.arange(order) + 1) // 2).astype(float) for order in self.orders])

    @property
    def _log_volume(self) -> float:
        """log of the volume of the values that are possible."""
        a, b = self._up + 1.0, self._down + 1.0
        return float(np.sum(betaln(a, b) + (a + b - 1.0) * np.log(2.0)))
