"""Correlations of distance: exponential, Gaussian, Matérn; in time or between places with coordinates."""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.covariance import Parameter
from lmmjax.residual.base import Space, WithNugget


@dataclasses.dataclass(frozen=True)
class Spatial(WithNugget):
    """c(h/ρ) of the Euclidean distance h, range ρ in the units of the coordinates.

    Attributes
    ----------
    coordinates : name of a column, or several names.
    """

    coordinates: str | tuple[str, ...] = ()
    columned = ("coordinates",)
    within = frozenset({"Symmetric", "Unstructured"})

    def __post_init__(self):
        if not isinstance(self.coordinates, str):
            object.__setattr__(self, "coordinates", tuple(self.coordinates))
        if not self.coordinates:
            raise ValueError(f"{self.name} needs the name of a column of times, or names of coordinates")

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.coordinates,) if isinstance(self.coordinates, str) else self.coordinates

    def shape_parameters(self, space: Space) -> tuple[Parameter, ...]:
        return (Parameter("range", "positive", (1.0, 4.0, 0.4, 16.0), scale="length"),)

    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        gap = jax.lax.stop_gradient(jnp.asarray(left) - jnp.asarray(right)).astype(r.dtype)
        if len(self.columns) == 1:
            return self.shape(jnp.abs(gap) / r[0])
        square = jnp.sum(gap**2, axis=-1)
        # the root has no derivative at zero, where it is not needed: places are fixed
        root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
        return self.shape(root / r[0])

    @abc.abstractmethod
    def shape(self, h: Array) -> Array:
        """c at distance h in units of the range."""


@dataclasses.dataclass(frozen=True)
class Exponential(Spatial):
    """exp(−h/ρ), nlme's corExp.

    Parameters
    ----------
    coordinates : the column of times, or several of coordinates.
    group : the factor within whose levels rows are correlated, all rows if None. by : a factor that is
        constant within groups, each level of which has its own parameters.
    nugget : whether a share of the variance, estimated, is not correlated.

    Raises
    ------
    ValueError : no coordinates.
    """

    name = "Exponential"

    @property
    def markov(self) -> bool:
        return len(self.columns) == 1 and not self.nugget

    def shape(self, h: Array) -> Array:
        return jnp.exp(-h)


@dataclasses.dataclass(frozen=True)
class Gaussian(Spatial):
    """exp(−(h/ρ)²), nlme's corGaus.

    Parameters are those of `Exponential`.
    """

    name = "Gaussian"

    def shape(self, h: Array) -> Array:
        return jnp.exp(-h * h)


@dataclasses.dataclass(frozen=True)
class Matern32(Spatial):
    """(1 + √3 h/ρ) exp(−√3 h/ρ): Matérn with ν = 3/2.

    Parameters are those of `Exponential`.

    Source: Rasmussen & Williams (2006), doi:10.7551/mitpress/3206.001.0001, equation 4.17.
    """

    name = "Matern32"

    def shape(self, h: Array) -> Array:
        h = float(np.sqrt(3.0)) * h
        return (1.0 + h) * jnp.exp(-h)


@dataclasses.dataclass(frozen=True)
class Matern52(Spatial):
    """(1 + √5 h/ρ + 5h²/(3ρ²)) exp(−√5 h/ρ): Matérn with ν = 5/2.

    Parameters are those of `Exponential`.

    Source: Rasmussen & Williams (2006), doi:10.7551/mitpress/3206.001.0001, equation 4.17.
    """

    name = "Matern52"

    def shape(self, h: Array) -> Array:
        h = float(np.sqrt(5.0)) * h
        return (1.0 + h + h * h / 3.0) * jnp.exp(-h)
