"""A model, the data it is fitted to, and what is compared in fitting it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Term:
    """A random-effect term `(effects | group)`, `effects` a formula such as `1` or `1 + t`."""

    effects: str
    group: str

    def __str__(self) -> str:
        return f"({self.effects} | {self.group})"


@dataclass(frozen=True)
class Model:
    """Fixed part and random terms; `response` names a column of the design, or is empty for a batch."""

    fixed: str
    terms: tuple[Term, ...]
    response: str = ""
    reml: bool = True

    @property
    def formula(self) -> str:
        """The lme4 formula, one-sided when there is no response."""
        right = " + ".join([self.fixed, *map(str, self.terms)])
        return f"{self.response} ~ {right}".strip()


@dataclass(frozen=True)
class Dataset:
    """n rows of covariates and T responses.

    `responses` is T × n: every response is contiguous, as in a data frame of n rows and T columns. `weights`,
    if there are any, are T × n too: a precision weight for every value.
    """

    design: pd.DataFrame
    responses: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Comparison:
    """One model, fitted by lmmjax and by every peer that has it.

    `kind` is "batch" (many responses on one design, timed together) or "single" (one model from a fresh
    process, then refits in a warm one). `generate(T)` makes the data of T responses, the same on every
    machine. `checked` responses, evenly spread, are fitted by the peers and judged for everybody.
    """

    id: str
    title: str
    varied: str
    goal: str
    kind: str
    model: Model
    generate: Callable[[int], Dataset]
    responses: int
    small: int
    checked: int
    weighted: bool = False


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` evenly spread positions among `count`, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))
