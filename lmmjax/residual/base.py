"""What a residual structure is: a correlation within groups, times standard deviations by row.

    Cov(ε_i, ε_j) = σ² s_i s_j c(x_i, x_j)  for rows of one group, 0 between groups.

`correlation * variance` composes them: `AR1("week", group="id") * VarIdent("sex")`.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Self

import numpy as np

from lmmjax.arrays import Array
from lmmjax.arrays.other_arguments import Answering
from lmmjax.covariance import Parameter, each


@dataclasses.dataclass(frozen=True)
class Part(Answering):
    """A correlation or a variance function.

    `within` names the families that contain this one, their other parameters inside their range; `columned`
    the fields, beside `group` and `by`, that name columns.
    """

    name = ""
    within: ClassVar[frozenset[str]] = frozenset()
    columned: ClassVar[tuple[str, ...]] = ()

    def __mul__(self, other: Any) -> Residual:
        return as_residual(self) * other

    def nameless(self, by: tuple[str, ...]) -> Self:
        """The same with its columns numbered; `by` are the factors of the structure."""
        given = vars(self)
        changes = {name: _numbered(name, given[name]) for name in ("group", *self.columned) if name in given}
        if given.get("by") is not None:
            changes["by"] = f"by{by.index(given['by'])}"
        return dataclasses.replace(self, **changes)


def _numbered(field: str, names: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(names, tuple):
        return tuple(f"{field}{k}" for k in range(len(names)))
    return names and field


@dataclasses.dataclass(frozen=True)
class Correlation(Part, abc.ABC):
    """A family of correlations within groups; `group` None takes all rows as one group.

    `by` names a factor that is constant within groups, each level of which has its own parameters.
    `reads` says what the place of a row is: "order", "time" (both integer occasions, of which the distance
    counts), "visit" (levels) or "coordinates". `fractional` families have correlations between whole steps
    too; of an `exchangeable` one the places of two rows do not matter as long as they differ. In a `markov`
    family a row depends on earlier ones through the one before it only.
    """

    group: str | None = dataclasses.field(default=None, kw_only=True)
    by: str | None = dataclasses.field(default=None, kw_only=True)
    reads = "coordinates"
    fractional: ClassVar[bool] = False
    exchangeable: ClassVar[bool] = False
    covariances: ClassVar[bool] = False
    """Whether the parameters are correlations in which c is linear."""
    framed: ClassVar[bool] = False
    """Whether θ are relative to a factor, `frame`: see `FreeMatrix`."""
    variances: ClassVar[bool] = False
    """Whether c has variances of its own."""
    several: ClassVar[bool] = False
    """Whether the criterion is known to have several optima with any number of groups."""

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

    def feasible(self, r: Array, space: Space) -> Array:
        """Values near moment estimates r (k,) that are inside the parameter space."""
        return r

    def decode(self, theta: Array, space: Space) -> Array:
        """r (k,) from working values θ (k,)."""
        return each(self.parameters(space), theta, "decode")

    def encode(self, r: Array, space: Space) -> Array:
        """θ (k,) from r (k,)."""
        return each(self.parameters(space), r, "encode")

    def margin(self, theta: Array, space: Space) -> Array:
        """(k,) distance of every parameter from the boundary of its range."""
        return each(self.parameters(space), theta, "margin")

    def check(self, space: Space) -> None:
        """Raise ValueError if the data do not suit the family."""


@dataclasses.dataclass(frozen=True)
class Timed(Correlation):
    """Occasions from a column `time`; None takes the order of the rows. `kind` is what it `reads` else."""

    time: str | None = None
    kind = "time"
    columned = ("time",)

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

    `reads` says what its covariate is: "levels", or "numbers". `column` None stands for fitted values. `by`
    names a factor, each level of which has its own parameters.
    """

    by: str | None = dataclasses.field(default=None, kw_only=True)
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
    """Var(ε_i) = v_i, a column of the data: meta-analysis. No σ² is estimated.

    Parameters
    ----------
    column : the column of the variances.
    """

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

    @property
    def parts(self) -> tuple[Correlation | Variance, ...]:
        """The correlation, if there is one, and the variance functions."""
        return (*(() if self.correlation is None else (self.correlation,)), *self.variances)

    @property
    def by(self) -> tuple[str, ...]:
        """The distinct factors whose levels have their own parameters."""
        return tuple(dict.fromkeys(part.by for part in self.parts if part.by is not None))

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
