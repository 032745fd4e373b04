"""Prior distributions as records of arrays, each with its log density.

Densities are normalised where the prior is proper. A standard deviation τ, of a random coefficient or of the
residuals, has a `ScalarPrior`, always read as a density in τ; a block Σ of several random coefficients has
either one for each standard deviation and an `LKJ` for their correlations, or an `InverseWishart`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from lmmjax.arrays import Array, diagonal, record, static, sweep
from lmmjax.arrays.other_arguments import Answering, answered


class ScalarPrior(Answering, abc.ABC):
    """Prior of a standard deviation τ > 0.

    `from_line` maps the real line to its support; u = log τ unless the support is bounded.
    """

    zero_allowed: tuple[str, ...] = ()
    """Parameters that may be zero; the others have to be positive."""

    @abc.abstractmethod
    def log_density(self, sd: Array) -> Array:
        """log p(τ)."""

    def from_line(self, u: Array) -> tuple[Array, Array]:
        """τ and log dτ/du."""
        return jnp.exp(u), u

    def to_line(self, sd: Array) -> Array:
        """u, the inverse of `from_line`."""
        return jnp.log(sd)

    def parameters(self) -> dict[str, Array]:
        """Its parameters by name."""
        return dict(vars(self))

    def __str__(self) -> str:
        shown = ", ".join(f"{float(value):.4g}" for value in self.parameters().values())
        return f"{type(self).__name__}({shown})"


@record
class HalfNormal(ScalarPrior):
    """τ = |N(0, scale²)|, in the units of τ."""

    scale: Array

    def log_density(self, sd: Array) -> Array:
        return 0.5 * np.log(2.0 / np.pi) - jnp.log(self.scale) - 0.5 * (sd / self.scale) ** 2


@record
class HalfT(ScalarPrior):
    """τ = scale·|t| with df degrees of freedom, scale in the units of τ.

    Source: Gelman (2006), doi:10.1214/06-BA117A.
    """

    df: Array
    scale: Array

    def log_density(self, sd: Array) -> Array:
        df, ratio = self.df, sd / self.scale
        constant = gammaln((df + 1.0) / 2.0) - gammaln(df / 2.0) - 0.5 * jnp.log(df * np.pi) + np.log(2.0)
        return constant - jnp.log(self.scale) - 0.5 * (df + 1.0) * jnp.log1p(ratio**2 / df)


@answered
def HalfCauchy(scale: Array) -> HalfT:
    """Half-t with one degree of freedom, scale in the units of τ."""
    return HalfT(1.0, scale)


@record
class Exponential(ScalarPrior):
    """Exponential with mean `scale`, in the units of τ."""

    scale: Array

    def log_density(self, sd: Array) -> Array:
        return -jnp.log(self.scale) - sd / self.scale


@record
class Uniform(ScalarPrior):
    """Uniform on 0 < τ < upper."""

    upper: Array

    def log_density(self, sd: Array) -> Array:
        return jnp.where(sd <= self.upper, -jnp.log(self.upper), -jnp.inf)

    def from_line(self, u: Array) -> tuple[Array, Array]:
        # τ = upper/(1 + e⁻ᵘ)
        below, above = -jnp.logaddexp(0.0, -u), -jnp.logaddexp(0.0, u)
        return self.upper * jnp.exp(below), jnp.log(self.upper) + below + above

    def to_line(self, sd: Array) -> Array:
        # a start beyond the bound is taken inside
        share = jnp.minimum(sd / self.upper, 0.99)
        return jnp.log(share) - jnp.log1p(-share)


@record
class InverseGamma(ScalarPrior):
    """The *variance* v = τ² has density ∝ v^(−shape−1) exp(−scale/v).

    Proper where both are positive. InverseGamma(0, 0), the density 1/v, is not, and at zero: with it on the
    variance of a random effect the posterior does not exist.
    """

    shape: Array
    scale: Array

    zero_allowed = ("shape", "scale")

    def log_density(self, sd: Array) -> Array:
        a, s = self.shape, self.scale
        proper = (a > 0) & (s > 0)
        safe_a, safe_s = jnp.where(proper, a, 1.0), jnp.where(proper, s, 1.0)
        constant = jnp.where(proper, safe_a * jnp.log(safe_s) - gammaln(safe_a), 0.0)
        # dv = 2τ dτ
        return constant + np.log(2.0) - (2.0 * a + 1.0) * jnp.log(sd) - s * jnp.exp(-2.0 * jnp.log(sd))


@record
class LogNormal(ScalarPrior):
    """log τ ~ N(log median, sd²): the median in the units of τ, sd without any.

    1/τ has the same law with median 1/median, so that a ratio does not depend on what is the reference.
    """

    median: Array
    sd: Array

    def log_density(self, sd: Array) -> Array:
        away = (jnp.log(sd) - jnp.log(self.median)) / self.sd
        return -0.5 * np.log(2.0 * np.pi) - jnp.log(self.sd) - jnp.log(sd) - 0.5 * away**2


@record
class LogDensity(ScalarPrior):
    """A density of one's own: `function` takes τ > 0, a JAX scalar, and returns log p(τ) up to a constant."""

    function: Callable = static()

    def log_density(self, sd: Array) -> Array:
        return jnp.asarray(self.function(sd), sd.dtype)

    def parameters(self) -> dict[str, Array]:
        return {}

    def __str__(self) -> str:
        return f"LogDensity({getattr(self.function, '__name__', 'function')})"


@record
class Known:
    """A residual standard deviation that is known, and has no coordinate."""

    value: Array


@record
class LogLine(ScalarPrior):
    """The map of a standard deviation whose density is that of its block."""

    def log_density(self, sd: Array) -> Array:
        return jnp.zeros_like(sd)


@record
class Beta(Answering):
    """Beta(a, b) on the range of a parameter, a correlation or a share, scaled to (0, 1)."""

    a: Array
    b: Array

    def log_density(self, share: Array) -> Array:
        """log p of a place in the range, 0 at its lower end and 1 at its upper."""
        constant = gammaln(self.a + self.b) - gammaln(self.a) - gammaln(self.b)
        return constant + (self.a - 1.0) * jnp.log(share) + (self.b - 1.0) * jnp.log1p(-share)

    def __str__(self) -> str:
        return f"Beta({float(self.a):.4g}, {float(self.b):.4g})"


@record
class LKJ(Answering):
    """Density ∝ |R|^(eta − 1) on correlation matrices; eta = 1 is uniform.

    Source: Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008.
    """

    eta: Array

    def log_density(self, place: int, q: int, log_rest: Array) -> Array:
        """log p of a partial correlation ρ given the first `place` of q coefficients; log_rest: log(1 − ρ²).

        (ρ + 1)/2 is Beta(a, a), a = eta + (q − 2 − place)/2, and all are independent.
        """
        a = self.eta + 0.5 * (q - 2 - place)
        constant = gammaln(2.0 * a) - 2.0 * gammaln(a) - (2.0 * a - 1.0) * np.log(2.0)
        return constant + (a - 1.0) * log_rest

    def __str__(self) -> str:
        return f"LKJ({float(self.eta):.4g})"


@record
class InverseWishart(Answering):
    """Density ∝ |Σ|^(−(df+q+1)/2) exp(−½ tr(scale Σ⁻¹)) of a block Σ (q, q), in the units of Σ.

    Proper where df > q − 1 and scale (q, q) is positive definite.
    """

    df: Array
    scale: Array

    def log_density(self, sds: Array, correlation: Array, log_det: Array) -> Array:
        """log p(Σ) for Σ = diag(τ) R diag(τ), log_det: log|R|; up to a constant where improper."""
        q = sds.shape[0]
        _, inverse = sweep(correlation)
        scaled = self.scale / (sds[:, None] * sds[None, :])
        total = 2.0 * jnp.sum(jnp.log(sds)) + log_det
        return self._constant(q) - 0.5 * (self.df + q + 1.0) * total - 0.5 * jnp.sum(scaled * inverse)

    def _constant(self, q: int) -> Array:
        # pivots of the scale: |S| is their product, all positive where S is definite
        pivots, rest = [], jnp.asarray(self.scale)
        for _ in range(q):
            pivot = rest[0, 0]
            pivots.append(pivot)
            safe = jnp.where(pivot > 0, pivot, 1.0)
            rest = rest[1:, 1:] - rest[1:, :1] * rest[:1, 1:] / safe
        proper = (self.df > q - 1) & jnp.all(jnp.stack(pivots) > 0)
        half = 0.5 * jnp.where(proper, self.df, q + 1.0)
        log_scale = jnp.sum(jnp.log(jnp.where(proper, jnp.stack(pivots), 1.0)))
        gammas = sum(gammaln(half - 0.5 * j) for j in range(q)) + 0.25 * q * (q - 1) * np.log(np.pi)
        return jnp.where(proper, half * log_scale - half * q * np.log(2.0) - gammas, 0.0)

    def __str__(self) -> str:
        entries = ", ".join(f"{float(v):.4g}" for v in diagonal(np.asarray(self.scale)))
        return f"InverseWishart({float(self.df):.4g}, diagonal of scale {entries})"


@record
class Normal(Answering):
    """N(mean, sd²), in the units of what it is the prior of; sd = inf is flat, for fixed effects.

    On a parameter with a range it is cut off there, up to a constant.
    """

    mean: Array
    sd: Array

    def log_density(self, value: Array) -> Array:
        """log p(value), sd finite."""
        away = (value - self.mean) / self.sd
        return -0.5 * np.log(2.0 * np.pi) - jnp.log(self.sd) - 0.5 * away**2

    def __str__(self) -> str:
        return "flat" if np.isinf(self.sd) else f"Normal({float(self.mean):.4g}, {float(self.sd):.4g})"


@record
class SeparatePrior:
    """Prior of one term: one for each standard deviation, LKJ for correlations (None: there are none).

    Of a free matrix of the residuals too, where σ or, of correlations alone, all standard deviations are left
    out.
    """

    sds: tuple[ScalarPrior, ...]
    correlation: LKJ | None

    def scalars(self, q: int) -> tuple[ScalarPrior, ...]:
        """What maps the real line to each standard deviation."""
        return self.sds


@record
class BlockPrior:
    """Prior of one term with an unstructured Σ."""

    block: InverseWishart

    def scalars(self, q: int) -> tuple[ScalarPrior, ...]:
        """What maps the real line to each standard deviation."""
        return (LogLine(),) * q


@record
class BetaPrior:
    """Independent normal priors of the fixed effects: mean (p,), precision (p,); precision 0 is flat."""

    mean: Array
    precision: Array

    def log_density(self, beta: Array) -> Array:
        """log p(β) over the coefficients that are not flat."""
        flat = self.precision <= 0
        constant = jnp.where(flat, 0.0, jnp.log(jnp.where(flat, 1.0, self.precision / (2.0 * np.pi))))
        return 0.5 * jnp.sum(constant - self.precision * (beta - self.mean) ** 2)
