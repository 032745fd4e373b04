"""Marginal prior densities of parameters as a posterior reports them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit
from lmmjax.bayes import LKJ, Beta, InverseGamma, LogDensity, Normal
from lmmjax.bayes.coordinates import places
from lmmjax.bayes.patterns import PatternPrior, ShapePrior
from lmmjax.bayes.priors import BlockPrior, ScalarPrior, SeparatePrior
from lmmjax.covariance import Parameter
from lmmjax.postestimation.posterior.draws import Draws


@dataclasses.dataclass(frozen=True, eq=False)
class Marginal:
    """The prior of one parameter.

    Attributes
    ----------
    prior : its density; None: uniform in the design's parameter.
    lower, upper : range of the value as reported, onto which a `Beta` on (0, 1) is scaled.
    squared : whether the value is the square of what the prior is of.
    parameter, unit : of a uniform prior, see `Parameter.reported`.
    """

    prior: ScalarPrior | Normal | Beta | None
    lower: float = -np.inf
    upper: float = np.inf
    squared: bool = False
    parameter: Parameter | None = None
    unit: float = 1.0

    def density(self, values: np.ndarray) -> np.ndarray:
        """p (k,) of values (k,), zero out of range."""
        out = np.zeros(len(values))
        inside = (values > self.lower) & (values < self.upper)
        at = np.asarray(values, float)[inside]
        if not len(at):
            return out
        if self.prior is None:
            out[inside] = self._uniform(at)
            return out
        width = self.upper - self.lower if isinstance(self.prior, Beta) else 1.0
        moved = (at - self.lower) / width if isinstance(self.prior, Beta) else at
        # v = τ²: dτ/dv = 1/2τ
        moved, slope = (np.sqrt(moved), 0.5 / np.sqrt(moved)) if self.squared else (moved, 1.0)
        with jax.enable_x64(True):
            out[inside] = np.exp(np.asarray(_log_density(self.prior, moved))) / width * slope
        return out

    def _uniform(self, values: np.ndarray) -> np.ndarray:
        p = self.parameter
        assert p is not None
        a = np.array([p.from_reported(float(v), self.unit) for v in values])
        return 1.0 / (p.upper - p.lower) / np.asarray(p.slope(a, self.unit))


@quick_jit
def _log_density(prior: Any, values: Array) -> Array:
    return jax.vmap(prior.log_density)(values)


def marginals(draws: Draws) -> dict[str, Marginal | None]:
    """The prior of every parameter by name; None where it is flat or improper, or has no closed form.

    A correlation under LKJ(η) of q coefficients has (ρ + 1)/2 ~ Beta(a, a) with a = η + (q − 2)/2; under an
    InverseWishart with a diagonal scale a = (df − q + 1)/2; a variance then is inverse gamma with shape a and
    scale half its diagonal entry. Those without a closed form: correlations where the scale is not diagonal,
    covariances of visits, autocorrelations and coefficients of autoregressions that are possible together.

    Source: Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008; Barnard, McCulloch & Meng
    (2000), Statistica Sinica 10, 1281-1311.
    """
    data, prior = draws.fitted.data, draws.prior_set
    normals = zip(data.x_names, prior.beta.mean, prior.beta.precision, strict=True)
    out: dict[str, Marginal | None] = {
        name: Marginal(Normal(np.float64(mean), np.float64(precision**-0.5))) if precision > 0 else None
        for name, mean, precision in normals
    }
    names = draws.names[len(data.x_names) :]
    out |= dict.fromkeys(names)
    for place, own in zip(places(data.design.structure), (*prior.terms, *prior.residual), strict=True):
        mine, rows = names[place.at], data.components[place.at]
        if isinstance(own, PatternPrior):
            together = own.lags + sum(own.orders)
            found = [_scalar(p) for p in own.sds]
            found += [
                None if k >= len(own.shape) - together and p.prior is None else _shape(p)
                for k, p in enumerate(own.shape)
            ]
        else:
            found = _matrix(own, place.q, place.known)
            count = len(found) - place.q * (place.q - 1) // 2
            if place.residual and not place.correlations:
                # variances and covariances of visits are reported as they are
                squares = [m and dataclasses.replace(m, squared=True) for m in found[:count]]
                found = squares + [None] * (len(found) - count)
        out |= dict(zip(mine, found[: len(rows)], strict=False))
    if isinstance(prior.sigma, ScalarPrior):
        out["sigma"] = _scalar(prior.sigma)
    return out


def _scalar(prior: ScalarPrior) -> Marginal | None:
    improper = isinstance(prior, InverseGamma) and not (prior.shape > 0 and prior.scale > 0)
    # a density of one's own has no constant; that of a block has no coordinate
    known = not (improper or isinstance(prior, LogDensity)) and bool(prior.parameters())
    return Marginal(prior, lower=0.0) if known else None


def _shape(given: ShapePrior) -> Marginal | None:
    prior, p, unit = given.prior, given.parameter, given.unit
    if isinstance(prior, ScalarPrior):
        return _scalar(prior)
    if p.kind != "interval":
        return None if prior is None else Marginal(prior)
    low, high = (float(p.reported(np.float64(end), unit)) for end in (p.lower, p.upper))
    # a normal distribution cut off at the ends of a range has no constant
    return None if isinstance(prior, Normal) else Marginal(prior, low, high, parameter=p, unit=unit)


def _matrix(prior: SeparatePrior | BlockPrior, q: int, known: int) -> list[Marginal | None]:
    """Standard deviations that are not known, then correlations, of a matrix (q, q)."""
    pairs = q * (q - 1) // 2
    if isinstance(prior, SeparatePrior):
        own: list[Marginal | None] = [_scalar(sd) for sd in prior.sds]
        return own + [_correlation(prior.correlation, q)] * pairs
    block = prior.block
    scale, df = np.asarray(block.scale, float), float(np.asarray(block.df))
    if not (df > q - 1 and np.linalg.eigvalsh(scale)[0] > 0):
        return [None] * (q - known + pairs)
    a = 0.5 * (df - q + 1.0)
    own = [_scalar(InverseGamma(np.float64(a), np.float64(0.5 * s))) for s in np.diagonal(scale)[known:]]
    diagonal = np.count_nonzero(scale - np.diag(np.diagonal(scale))) == 0
    beta = Marginal(Beta(np.float64(a), np.float64(a)), -1.0, 1.0) if diagonal else None
    return own + [beta] * pairs


def _correlation(prior: LKJ | None, q: int) -> Marginal | None:
    if prior is None:
        return None
    a = np.float64(float(np.asarray(prior.eta)) + 0.5 * (q - 2))
    return Marginal(Beta(a, a), -1.0, 1.0)
