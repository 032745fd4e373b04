"""Standard deviations of residuals that differ: by group, or as a function of a covariate or the mean."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.covariance import Parameter
from lmmjax.residual.base import Variance

FAR = 50.0
"""Distance of a covariate from zero, in units of its range, from which on exp(δv) leaves the doubles."""

MOST_DIGITS = 60.0
"""Powers of 10 from which on |v|^δ does, for a δ of some size."""


@dataclasses.dataclass(frozen=True)
class VarIdent(Variance):
    """One standard deviation for every level of `factor`, relative to that of the first. nlme's varIdent.

    Parameters
    ----------
    factor : the column. by : another factor, within each level of which these ratios are its own.
    """

    factor: str
    columned = ("factor",)
    name = "VarIdent"
    reads = "levels"

    @property
    def source(self) -> str | None:
        return self.factor

    def parameters(self, levels: tuple[str, ...]) -> tuple[Parameter, ...]:
        return tuple(Parameter(f"sd({self.factor}={v})", "positive", (1.0,)) for v in levels[1:])

    def sd(self, r: Array, covariate: Array) -> Array:
        return jnp.concatenate([jnp.ones(1, r.dtype), jnp.asarray(r)])[jnp.asarray(covariate)]


@dataclasses.dataclass(frozen=True)
class OfCovariate(Variance):
    """A function of a covariate v, or of the fitted values if `covariate` is None."""

    covariate: str | None = None
    columned = ("covariate",)

    @property
    def source(self) -> str | None:
        return self.covariate


@dataclasses.dataclass(frozen=True)
class VarPower(OfCovariate):
    """|v|^δ of a covariate v, or of the fitted values if `covariate` is None. nlme's varPower.

    Parameters
    ----------
    covariate : the column, of numbers that are not zero.
    by : a factor, each level of which has its own parameter.
    """

    name = "VarPower"

    def parameters(self, levels: tuple[str, ...]) -> tuple[Parameter, ...]:
        return (Parameter(f"power({self.covariate or 'fitted'})", "real", (0.0, 0.5, -0.5)),)

    def sd(self, r: Array, covariate: Array) -> Array:
        return jnp.exp(r[0] * jnp.log(jnp.abs(jnp.asarray(covariate))).astype(r.dtype))

    def check(self, covariate: np.ndarray) -> None:
        if np.any(covariate == 0):
            row = int(np.argmax(covariate == 0))
            raise ValueError(
                f"VarPower: {self.covariate!r} is zero in row {row}, where |v|^δ vanishes; "
                "shift the covariate or use VarExp"
            )
        digits = np.abs(np.log10(np.abs(covariate)))
        if np.max(digits, initial=0.0) > MOST_DIGITS:
            raise ValueError(
                f"VarPower: {self.covariate!r} has the value {covariate[np.argmax(digits)]:.3g}, powers of "
                "which leave the range of numbers: divide it by a power of 10"
            )


@dataclasses.dataclass(frozen=True)
class VarExp(OfCovariate):
    """exp(δv) of a covariate v, or of the fitted values if `covariate` is None. nlme's varExp.

    Parameters
    ----------
    covariate : the column, of numbers not far from zero in units of their range.
    by : a factor, each level of which has its own parameter.
    """

    name = "VarExp"

    def parameters(self, levels: tuple[str, ...]) -> tuple[Parameter, ...]:
        return (Parameter(f"expon({self.covariate or 'fitted'})", "real", (0.0,)),)

    def sd(self, r: Array, covariate: Array) -> Array:
        return jnp.exp(r[0] * jnp.asarray(covariate).astype(r.dtype))

    def check(self, covariate: np.ndarray) -> None:
        low, high = np.min(covariate), np.max(covariate)
        if high > low and max(abs(low), abs(high)) > FAR * (high - low):
            raise ValueError(
                f"VarExp: {self.covariate!r} lies between {low:.10g} and {high:.10g}, so far from zero that "
                f"exp(δv) leaves the range of numbers: subtract {0.5 * (low + high):.10g} from it"
            )
