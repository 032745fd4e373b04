"""A model with its data: the frame with its names, the design as arrays, the maker of problems."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from lmmjax.arrays import Array
from lmmjax.core import Problem, ProblemMaker
from lmmjax.design import Condensed, Design, RandomTerm
from lmmjax.fitted.components import Component, components
from lmmjax.formula import ModelFrame, take_columns, take_rows
from lmmjax.formula.many_rows import ManyRows


@dataclasses.dataclass(frozen=True, eq=False)
class ModelData:
    """A model with its data, ready to be fitted; made by `model_data`.

    Attributes
    ----------
    frame : the rows with their names; design : the same as arrays; maker : of problems from responses.
    cache : values of functions that are `kept` with the model.
    """

    frame: ModelFrame
    design: Design
    maker: ProblemMaker
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.frame.formula

    @property
    def backend(self) -> str | None:
        """Name of the backend that was asked for."""
        return self.maker.backend

    @property
    def x_names(self) -> list[str]:
        """Names of the p fixed effects."""
        return list(self.frame.x_names)

    @cached_property
    def components(self) -> list[Component]:
        """The entries of ψ, in order."""
        random = self.frame.random
        unit = 1.0 if self.frame.residual is None else self.frame.residual.unit
        structure, own = self.design.structure, self.design.residual
        if own is not None:
            structure = dataclasses.replace(structure, residual=own.named)
        return components(structure, [t.group for t in random], [t.names for t in random], unit)

    def response(self) -> np.ndarray:
        """y (n,) of the frame, or ValueError if the formula has none."""
        if self.frame.y is None:
            raise ValueError(
                f"the formula {self.formula!r} has no response: use fit_batch, or write one left of ~"
            )
        return self.frame.y

    def problem(self, y: Array | None = None, reml: bool = True, dtype: Any = None) -> Problem:
        """The pytree that the pure functions take; y (n,), the model's own if None, may be traced."""
        response = self.response() if y is None else y
        if response.shape[-1] != self.design.n:
            raise ValueError(f"y has {response.shape[-1]} values for {self.design.n} rows of the model")
        return self.maker(response, reml, dtype)

    def expanded(self, y: np.ndarray, reml: bool = True) -> Problem:
        """The problem with the products of every group kept, for conditional modes."""
        return self.maker.expanded(y, reml)

    def with_frame(self, frame: ModelFrame) -> ModelData:
        """The model of another frame, by the same backend."""
        return model_data(frame, self.backend)

    def subset(
        self, keep: np.ndarray, weights: np.ndarray | None = None, columns: np.ndarray | None = None
    ) -> ModelData:
        """The model on the rows `keep` (n,) of its own; `weights` (n,) multiply its prior weights.

        With the columns of X at the positions `columns` only, on which the others depend there.
        """
        frame = take_rows(self.frame, keep, weights)
        return self.with_frame(frame if columns is None else take_columns(frame, columns))


def model_data(frame: ModelFrame, backend: str | None = None) -> ModelData:
    """The record of a frame; ValueError if its design cannot be fitted."""
    design = frame_design(frame)
    return ModelData(frame, design, ProblemMaker(design, backend))


def frame_design(frame: ModelFrame) -> Design:
    """The arrays of a model frame, its covariance families looked up."""
    terms = tuple(
        RandomTerm(t.z, t.codes, len(t.levels), t.family, f"({t.label})", t.kernel and t.kernel.levels)
        for t in frame.random
    )
    own, weights, known = frame.residual, frame.weights, None
    if own is not None and own.known is not None:
        weights, known = (1.0 if weights is None else weights) / own.known, 1.0
    factors = {name: frame.factor_values[name] for name in frame.factor_levels if name in frame.factor_values}
    design = Design(frame.x, terms, weights, frame.offset, own and own.design, known, tuple(factors.values()))
    if not isinstance(many := frame.base, ManyRows):
        return design
    # of columns that are no longer the formula's it is not known
    kept = None if frame._recipe is None else frame._recipe.kept
    covariance = np.full((design.p,) * 2, np.nan) if kept is None else many.covariance[np.ix_(kept, kept)]
    condensed = Condensed(many.n, many.logdet, covariance, many.squares, many.noise)
    return dataclasses.replace(design, condensed=condensed)
