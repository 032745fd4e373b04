"""What a check of the compiler is: a comparison with NumPy, its error, and the registries of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lmmjax.arrays import Array


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison: a function of arrays with its arguments, and what NumPy says in float64.

    Differences are relative to the larger of a value and the mean size of all values. Where a compiler is
    known to have been wrong, it is tried in every way in `both` precisions.
    """

    size: int
    function: Callable[..., Array]
    arguments: tuple[Any, ...]
    expected: np.ndarray
    tolerance: float
    both: bool = False


Found = Iterator[tuple[int, float, float]]
"""Size, error and tolerance of comparisons."""

PATTERNS: dict[str, Callable[[np.random.Generator, Any], Iterator[Case]]] = {}
"""Name of a pattern -> its cases in a dtype."""

WHOLE: dict[str, Callable[[np.random.Generator], Found]] = {}
"""Name of what is not one program -> what was found."""


def listed(name: str, registry: dict) -> Callable[[Callable], Callable]:
    """Put a function into a registry."""

    def register(function: Callable) -> Callable:
        registry[name] = function
        return function

    return register


def difference(got: Any, expected: Any) -> float:
    """Largest difference relative to the larger of a value and the mean size; inf if a number is missing."""
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if got.shape != expected.shape or not np.all(np.isfinite(got)):
        return np.inf
    scale = np.maximum(np.abs(expected), max(float(np.mean(np.abs(expected))), 1e-300))
    return float(np.max(np.abs(got - expected) / scale, initial=0.0))


def rounding(dtype: Any, factor: float) -> float:
    """A multiple of the unit of rounding: a bound of what correct arithmetic does, in any order of sums."""
    return factor * float(np.finfo(dtype).eps)
