"""What a workload is: a model, data made from a fixed seed, and the goal it is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
class Workload:
    """One workload in one variant.

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
    variant: str = ""
    weighted: bool = False

    @property
    def name(self) -> str:
        """`W2-balanced`: the id and, where there are several, the variant."""
        return f"{self.id}-{self.variant}" if self.variant else self.id

    def checked_index(self, responses: int) -> np.ndarray:
        """Positions of the judged responses among `responses`."""
        return np.unique(np.linspace(0, responses - 1, min(self.checked, responses)).astype(int))


_REGISTRY: dict[str, Workload] = {}


def register(workload: Workload) -> Workload:
    """Make a workload known to the command line; called where the workload is defined."""
    if workload.name in _REGISTRY:
        raise ValueError(f"workload {workload.name} is registered twice")
    _REGISTRY[workload.name] = workload
    return workload


def workloads() -> tuple[Workload, ...]:
    """All workloads, in the order in which they were registered."""
    return tuple(_REGISTRY.values())


def select(names: Iterable[str]) -> tuple[Workload, ...]:
    """Workloads by name; an id such as `W2` selects all of its variants."""
    chosen: list[Workload] = []
    for name in names:
        found = [w for w in _REGISTRY.values() if name.lower() in (w.name.lower(), w.id.lower())]
        if not found:
            raise ValueError(f"no workload {name!r}; there are {', '.join(_REGISTRY)}")
        chosen += [w for w in found if w not in chosen]
    return tuple(chosen)
