"""What a residual structure is: a correlation within groups, times standard deviations by row.

    Cov(ε_i, ε_j) = σ² s_i s_j c(x_i, x_j)  for rows of one group, 0 between groups.

`correlation * variance` composes them: `AR1("week", group="id") * VarIdent("sex")`.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
from typing import Any, ClassVar

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance import Parameter


@dataclasses.dataclass(frozen=True)
class Part:
    """A correlation or a variance function.

    `within` names the families that contain this one, their other parameters inside their range.
    """

    name = ""
    within: ClassVar[frozenset[str]] = frozenset()

    def __mul__(self, other: Any) -> Residual:
        return as_residual(self) * other


@dataclasses.dataclass(frozen=True)
class Correlation(Part, abc.ABC):
    """A family of correlations within groups; `group` None takes all rows as one group.

    `reads` says what the place of a row is: "order", "time" (both integer occasions, of which the distance
    counts), "visit" (levels) or "coordinates". `fractional` families have correlations between whole steps
    too; of an `exchangeable` one the places of two rows do not matter as long as they differ. In a `markov`
    family a row depends on earlier ones through the one before it only.
    """

    group: str | None = dataclasses.field(default=None, kw_only=True)
    reads = "coordinates"
    fractional: ClassVar[bool] = False
    exchangeable: ClassVar[bool] = False
    covariances: ClassVar[bool] = False
    """Whether the parameters are correlations in which c is linear."""

    @property
    def markov(self) -> bool:
        return False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that give the place; none: the order of the rows."""
        return ()

    @abc.abstractmethod
    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        """The parameters r."""

    @abc.abstractmethod
    def between(self, r: Array, left: Array, right: Array, space: Space) -> Array:
        """c(x, x′) at parameters r (k,), elementwise for places `left` and `right`."""

    def share(self, r: Array) -> Array | float:
        """The factor of c between different rows: less than 1 with a nugget."""
        return 1.0

    def decode(self, theta: Array, space: Space) -> Array:
        """r (k,) from working values θ (k,)."""
        return _each(self.parameters(space), theta, "decode")

    def encode(self, r: Array, space: Space) -> Array:
        """θ (k,) from r (k,)."""
        return _each(self.parameters(space), r, "encode")

    def margin(self, theta: Array, space: Space) -> Array:
        """(k,) distance of every parameter from the boundary of its range."""
        return _each(self.parameters(space), theta, "margin")

    def check(self, space: Space) -> None:
        """Raise ValueError if the data do not suit the family."""


@dataclasses.dataclass(frozen=True)
class Timed(Correlation):
    """Occasions from a column `time`; None takes the order of the rows. `kind` is what it `reads` else."""

    time: str | None = None
    kind = "time"

    @property
    def reads(self) -> str:
        return "order" if self.time is None else self.kind

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.time is None else (self.time,)


@dataclasses.dataclass(frozen=True)
class WithNugget(Correlation):
    """A correlation that a share ν in [0, 1) of the variance may not take part in.

    With `nugget` different rows correlate by (1 − ν)c, and ν is the last parameter.
    """

    nugget: bool = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def shape_parameters(self, space: Space) -> tuple[Parameter, ...]:
        """The parameters of c."""

    def parameters(self, space: Space) -> tuple[Parameter, ...]:
        own = (Parameter("nugget", "interval", (0.2, 0.5, 0.05, 0.2), 0.0, 1.0),) if self.nugget else ()
        return (*self.shape_parameters(space), *own)

    def share(self, r: Array) -> Array | float:
        return 1.0 - r[-1] if self.nugget else 1.0


@dataclasses.dataclass(frozen=True)
class Variance(Part, abc.ABC):
    """A family of standard deviations by row, relative to σ.

    `reads` says what its covariate is: "levels", or "numbers". `column` None stands for fitted values.
    """

    reads = "numbers"

    @property
    @abc.abstractmethod
    def source(self) -> str | None:
        """The column of the covariate; None for fitted values."""

    @abc.abstractmethod
    def parameters(self, levels: tuple[str, ...]) -> tuple[Parameter, ...]:
        """The parameters, given the levels of the covariate."""

    @abc.abstractmethod
    def sd(self, r: Array, covariate: Array) -> Array:
        """s (...) at parameters r (k,)."""

    def check(self, covariate: np.ndarray) -> None:
        """Raise ValueError if the covariate (n,) does not suit the family."""


@dataclasses.dataclass(frozen=True)
class KnownVariance(Part):
    """Var(ε_i) = v_i, a column of the data: meta-analysis. No σ² is estimated."""

    column: str
    name = "KnownVariance"


@dataclasses.dataclass(frozen=True)
class Space:
    """What the places of the data are like: static, hashable.

    Attributes
    ----------
    size : number of occasions: levels of visits, the longest span of integer times within a group, or the
        rows of the largest group.
    unit : typical distance of neighbours in integer times, a power of two. Coordinates are in such units.
    labels : of the visits.
    """

    size: int = 0
    unit: float = 1.0
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Residual:
    """A correlation, or None, with any number of variance functions; `known` a column of known variances."""

    correlation: Correlation | None = None
    variances: tuple[Variance, ...] = ()
    known: str | None = None

    def __mul__(self, other: Any) -> Residual:
        other = as_residual(other)
        if self.correlation is not None and other.correlation is not None:
            raise ValueError(
                "a residual structure has one correlation; these are two: "
                f"{self.correlation.name}, {other.correlation.name}"
            )
        if self.known and other.known:
            raise ValueError("variances are known from one column: there are two KnownVariance")
        return Residual(
            self.correlation or other.correlation, self.variances + other.variances, self.known or other.known
        )


def as_residual(part: Any) -> Residual:
    """A part, or a product of them, as a product; ValueError for anything else."""
    if isinstance(part, Residual):
        return part
    if isinstance(part, Correlation):
        return Residual(part)
    if isinstance(part, Variance):
        return Residual(None, (part,))
    if isinstance(part, KnownVariance):
        return Residual(None, (), part.column)
    raise ValueError(
        f"{part!r} is not a residual structure: pass one of the families, such as lj.AR1('time', group='id')"
    )


@dataclasses.dataclass(frozen=True)
class ResidualStructure:
    """A residual structure with what the data say about its places and levels: static, hashable."""

    residual: Residual
    space: Space = Space()
    levels: tuple[tuple[str, ...], ...] = ()

    @property
    def parts(self) -> list[tuple[Parameter, ...]]:
        """The parameters of the correlation, then those of each variance function."""
        correlation = self.residual.correlation
        first = () if correlation is None else correlation.parameters(self.space)
        pairs = zip(self.residual.variances, self.levels, strict=True)
        return [first, *(variance.parameters(levels) for variance, levels in pairs)]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All k parameters, in order."""
        return tuple(p for part in self.parts for p in part)

    @property
    def n_params(self) -> int:
        return len(self.parameters)

    @property
    def linear(self) -> bool:
        """Whether V is linear in the parameters, on its own scale."""
        return all(p.power == 1.0 for p in self.parameters)

    @property
    def markov(self) -> bool:
        """Whether rows can be decorrelated one after another."""
        return self.residual.correlation is None or self.residual.correlation.markov

    def split(self, values: Array) -> list[Array]:
        """Values (k,) of the correlation, then of each variance function."""
        ends = np.cumsum([0, *(len(part) for part in self.parts)])
        return [values[int(a) : int(b)] for a, b in itertools.pairwise(ends)]

    def decode(self, theta: Array) -> Array:
        """r (k,) from working values θ (k,)."""
        return self._parts(theta, "decode")

    def encode(self, r: Array) -> Array:
        """θ (k,) from r (k,)."""
        return self._parts(r, "encode")

    def margin(self, theta: Array) -> Array:
        """(k,) distance of every parameter from the boundary of its range."""
        return self._parts(theta, "margin")

    def _parts(self, values: Array, what: str) -> Array:
        correlation = self.residual.correlation
        out = []
        for k, (part, piece) in enumerate(zip(self.parts, self.split(values), strict=True)):
            if k == 0 and correlation is not None:
                out.append(getattr(correlation, what)(piece, self.space))
            else:
                out.append(_each(part, piece, what))
        return namespace(values).concatenate(out).astype(values.dtype)

    def sd(self, r: Array, covariates: tuple[Array, ...]) -> Array | None:
        """s of rows with these covariates; None without variance functions."""
        out = None
        pieces = self.split(r)[1:]
        for variance, piece, covariate in zip(self.residual.variances, pieces, covariates, strict=True):
            own = variance.sd(piece, covariate)
            out = own if out is None else out * own
        return out

    def correlation(self, r: Array, left: Array, right: Array, same: Array) -> Array:
        """c between places, elementwise; `same` marks a row with itself."""
        family = self.residual.correlation
        if family is None:
            return same.astype(r.dtype)
        own = self.split(r)[0]
        value, share = family.between(own, left, right, self.space), family.share(own)
        return namespace(r).where(same, value, share * value).astype(r.dtype)


def _each(parameters: tuple[Parameter, ...], values: Array, what: str) -> Array:
    out = [getattr(p, what)(values[k]) for k, p in enumerate(parameters)]
    return namespace(values).stack(out).astype(values.dtype) if out else values
