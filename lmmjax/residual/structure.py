"""A residual structure on its data: parameters by part and, with `by`, by level; covariances between rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import TypeGuard

import numpy as np

from lmmjax.arrays import Array, namespace
from lmmjax.covariance import Parameter, each
from lmmjax.residual.base import Correlation, Residual, Space, Variance
from lmmjax.residual.unstructured import FreeMatrix, Unstructured


@dataclasses.dataclass(frozen=True)
class Block:
    """The parameters of one part, at one level of its `by` if it has one.

    Attributes
    ----------
    part : index of the part in `Residual.parts`; level : of `by`, else 0.
    at : where its parameters lie.
    own : those of the family; `scaled` blocks have a standard deviation of the level before them.
    """

    part: int
    level: int
    at: slice
    own: tuple[Parameter, ...]
    scale: tuple[Parameter, ...] = ()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*self.scale, *self.own)

    def split(self, values: Array) -> tuple[Array, Array]:
        """The standard deviation (0 or 1,) and the family's parameters (k,) among those of the structure."""
        mine = values[self.at]
        return mine[: len(self.scale)], mine[len(self.scale) :]


@dataclasses.dataclass(frozen=True)
class ResidualStructure:
    """A residual structure with what the data say about its places and levels: static, hashable.

    The levels of a `by` differ in variance too: the first of its parts has a standard deviation for each
    level but the first, or, if it is a free covariance matrix, all variances of each.

    Attributes
    ----------
    space : of the places; levels : per variance function those of its covariate.
    by : the levels of every factor in `residual.by`; the levels of rows are the last of their covariates.
    """

    residual: Residual
    space: Space = dataclasses.field(default_factory=Space)
    levels: tuple[tuple[str, ...], ...] = ()
    by: tuple[tuple[str, ...], ...] = ()

    def nameless(self) -> ResidualStructure:
        """The same with columns, levels and visits numbered."""
        one, by = self.residual, self.residual.by
        residual = Residual(
            one.correlation and one.correlation.nameless(by),
            tuple(variance.nameless(by) for variance in one.variances),
            one.known and "known",
        )
        levels, of_by = (
            tuple(tuple(map(str, range(len(own)))) for own in names) for names in (self.levels, self.by)
        )
        return ResidualStructure(residual, dataclasses.replace(self.space, labels=()), levels, of_by)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the correlation, then those of each variance function; levels in order."""
        out, start, scaled = [], 0, set()
        for index, part in enumerate(self.residual.parts):
            names = (None,) if part.by is None else self.by[self.residual.by.index(part.by)]
            for level, name in enumerate(names):
                apart = level > 0 and part.by not in scaled
                own, scale = self._parameters(part, index, apart), ()
                if apart and not _own_variances(part):
                    scale = (Parameter("sd", "positive", (1.0,)),)
                if name is not None:
                    size = self.space.size * level
                    own, scale = (
                        tuple(_named(p, f"{part.by}={name}", size) for p in ps) for ps in (own, scale)
                    )
                stop = start + len(own) + len(scale)
                out.append(Block(index, level, slice(start, stop), own, scale))
                start = stop
            scaled.add(part.by)
        return tuple(out)

    @property
    def _first(self) -> int:
        """Index of the first variance function among the parts."""
        return len(self.residual.parts) - len(self.residual.variances)

    def _parameters(self, part: Correlation | Variance, index: int, apart: bool) -> tuple[Parameter, ...]:
        if isinstance(part, Variance):
            return part.parameters(self.levels[index - self._first])
        if _own_variances(part):
            return part.parameters(self.space, apart)
        return part.parameters(self.space)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All k parameters, in order."""
        return tuple(p for block in self.blocks for p in block.parameters)

    @property
    def n_params(self) -> int:
        return len(self.parameters)

    @property
    def linear(self) -> bool:
        """Whether V is linear in the parameters, on its own scale."""
        return all(p.power == 1.0 for p in self.parameters)

    @property
    def by_moments(self) -> np.ndarray:
        """(k,) which parameters moments estimate: given the others H is linear in them."""
        out, family = np.zeros(self.n_params, bool), self.residual.correlation
        for block in self.blocks:
            if family is not None and block.part == 0 and (family.variances or family.covariances):
                out[block.at.start + len(block.scale) : block.at.stop] = True
        return out

    @property
    def markov(self) -> bool:
        """Whether rows can be decorrelated one after another."""
        return self.residual.correlation is None or self.residual.correlation.markov

    @property
    def frames(self) -> int:
        """Number of matrices (size, size) that θ are relative to."""
        return sum(_framed(self.residual.parts[block.part]) for block in self.blocks)

    def eyes(self, dtype) -> tuple[Array, ...]:
        """The frames of the working values as users see them."""
        return tuple(np.eye(self.space.size, dtype=dtype) for _ in range(self.frames))

    def _each(self, what: str, values: Array, frames: tuple[Array, ...]) -> Iterator[Array]:
        left = iter(frames or self.eyes(values.dtype))
        for block in self.blocks:
            scale, own = block.split(values)
            part = self.residual.parts[block.part]
            if block.scale:
                yield each(block.scale, scale, what)
            if _framed(part):
                yield getattr(part, what)(own, self.space, next(left))
            elif isinstance(part, Correlation):
                yield getattr(part, what)(own, self.space)
            else:
                yield each(block.own, own, what)

    def _all(self, what: str, values: Array, frames: tuple[Array, ...] = ()) -> Array:
        out = list(self._each(what, values, frames))
        return namespace(*out).concatenate([*out, values[:0]]).astype(values.dtype)

    def decode(self, theta: Array, frames: tuple[Array, ...] = ()) -> Array:
        """r (k,) from working values θ (k,)."""
        return self._all("decode", theta, frames)

    def encode(self, r: Array) -> Array:
        """θ (k,) from r (k,), in the frames of users."""
        return self._all("encode", r)

    def margin(self, theta: Array, frames: tuple[Array, ...] = ()) -> Array:
        """(k,) distance of every parameter from the boundary of its range."""
        return self._all("margin", theta, frames)

    def reframed(self, r: Array) -> tuple[Array, tuple[Array, ...]]:
        """θ (k,) of r in the frames in which r itself is the centre, and these."""
        theta, frames = [], []
        for block in self.blocks:
            scale, own = block.split(r)
            part = self.residual.parts[block.part]
            theta.append(each(block.scale, scale, "encode"))
            if _framed(part):
                frame, centre = part.centre(own, self.space)
                frames.append(frame)
                theta.append(centre)
            elif isinstance(part, Correlation):
                theta.append(part.encode(own, self.space))
            else:
                theta.append(each(block.own, own, "encode"))
        return namespace(*theta).concatenate([*theta, r[:0]]).astype(r.dtype), tuple(frames)

    def feasible(self, r: Array) -> Array:
        """Values near moment estimates r (k,) that are inside the parameter space."""
        out = []
        for block in self.blocks:
            part, (scale, own) = self.residual.parts[block.part], block.split(r)
            own = part.feasible(own, self.space) if isinstance(part, Correlation) else own
            out += [scale, own]
        return namespace(*out).concatenate([*out, r[:0]]).astype(r.dtype)

    def sizes(self, r: Array) -> Array:
        """(k,) what is large for each parameter: of covariances the product of sds, else 1."""
        out = []
        for block in self.blocks:
            part, (_, own) = self.residual.parts[block.part], block.split(r)
            if block.scale:
                out.append(namespace(r).ones_like(r[:1]))
            if _own_variances(part):
                out.append(part.sizes(own, self.space))
            else:
                out.append(namespace(r).maximum(1.0, namespace(r).abs(own)))
        return namespace(*out).concatenate([*out, r[:0]]).astype(r.dtype)

    def group_level(self, covariates: tuple[Array, ...]) -> Array | None:
        """The level of the `by` of the correlation of rows with these covariates; None without it."""
        family = self.residual.correlation
        return None if family is None else self._level(family, covariates)

    def _level(self, part: Correlation | Variance, covariates: tuple[Array, ...]) -> Array | None:
        if part.by is None:
            return None
        return covariates[len(self.residual.variances) + self.residual.by.index(part.by)]

    @staticmethod
    def _select(level: Array | None, values: list[Array]) -> Array:
        """The value of each row's level."""
        out = values[0]
        for k, value in enumerate(values[1:], start=1):
            assert level is not None
            out = namespace(out, value, level).where(level == k, value, out)
        return out

    def sd(self, r: Array, covariates: tuple[Array, ...]) -> Array | None:
        """s of rows with these covariates; None without variances of rows."""
        out, xp = None, namespace(r)
        for index, part in enumerate(self.residual.parts):
            blocks = [block for block in self.blocks if block.part == index]
            if isinstance(part, Correlation) and not any(block.scale for block in blocks):
                continue
            values = []
            for block in blocks:
                scale, own = block.split(r)
                value = xp.ones((), r.dtype)
                if isinstance(part, Variance):
                    value = part.sd(own, covariates[index - self._first])
                values.append(value * scale[0] if block.scale else value)
            own = self._select(self._level(part, covariates), values)
            out = own if out is None else out * own
        return out

    def correlation(
        self, r: Array, left: Array, right: Array, same: Array, level: Array | None = None
    ) -> Array:
        """c between places, elementwise; `same` marks a row with itself, `level` is that of the group."""
        family = self.residual.correlation
        if family is None:
            return same.astype(r.dtype)
        values = []
        for block in self.blocks:
            if block.part == 0:
                _, own = block.split(r)
                value, share = family.between(own, left, right, self.space), family.share(own)
                values.append(namespace(r).where(same, value, share * value))
        return self._select(level, values).astype(r.dtype)


def _framed(part: Correlation | Variance) -> TypeGuard[FreeMatrix]:
    return isinstance(part, Correlation) and part.framed


def _own_variances(part: Correlation | Variance) -> TypeGuard[Unstructured]:
    return isinstance(part, Correlation) and part.variances


def _named(p: Parameter, level: str, shift: int) -> Parameter:
    """A parameter of a level: `Phi(arm=A)`, `cov(1, 2; arm=A)`; its visits are numbered on."""
    name = f"{p.name[:-1]}; {level})" if p.name.endswith(")") else f"{p.name}({level})"
    place = None if p.place is None else p.place + shift
    pair = None if p.pair is None else (p.pair[0] + shift, p.pair[1] + shift)
    return dataclasses.replace(p, name=name, place=place, pair=pair)
