"""What markers interact with: covariates whose products with a marker are columns of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.fitted import ModelData, response_vector
from lmmjax.formula import nearest
from lmmjax.formula.labelled import eager


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """Covariates of a scan.

    Attributes
    ----------
    names : of the s − 1 covariates, none where markers have one column; values : (n, s − 1).
    """

    names: tuple[str, ...]
    values: np.ndarray

    @property
    def width(self) -> int:
        """s, columns of a marker."""
        return 1 + len(self.names)

    @property
    def terms(self) -> list[str]:
        """(s,) names of the columns of a marker."""
        return ["marker", *(f"marker:{name}" for name in self.names)]

    @property
    def carriers(self) -> np.ndarray:
        """What the columns of a marker multiply it by (n, s): 1, and the covariates."""
        return np.column_stack([np.ones(len(self.values)), self.values])

    def columns(self, g: np.ndarray) -> tuple[np.ndarray, ...]:
        """The s columns of candidates g (n, k): themselves, and times each covariate."""
        return (g, *(g * own[:, None] for own in self.values.T))


def covariates(data: ModelData, given: Any) -> Beside:
    """The covariates that `interaction` asks for.

    Parameters
    ----------
    given : None, the name of a fixed effect or of a term, values (n,), or several: a list of these, a dict or
        a frame of values by name, an array (n, s − 1).

    Raises
    ------
    ValueError : no such fixed effect, values that do not match the rows or are missing, one name twice.
    """
    n = data.design.n
    found: list[tuple[str, np.ndarray]] = []
    for own, name in _pieces(given):
        found += _covariate(data, own, name)
    if given is not None and not found:
        raise ValueError("interaction is empty: pass names of fixed effects, or values")
    names = [name for name, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"interaction has {twice[0]!r} twice: name each once")
    values = np.column_stack([own for _, own in found]) if found else np.zeros((n, 0))
    return Beside(tuple(names), values)


def _pieces(given: Any) -> list[tuple[Any, str | None]]:
    """Covariates one by one, with the names that they have."""
    if given is None:
        return []
    if isinstance(given, str):
        return [(given, None)]
    if isinstance(given, Mapping):
        return [(own, str(name)) for name, own in given.items()]
    if isinstance(given, list | tuple) and any(isinstance(own, str) or np.ndim(own) for own in given):
        return [(own, None) for own in given]
    values = eager(given)
    if isinstance(values, pd.DataFrame):
        return [(values[name], str(name)) for name in values.columns]
    if np.ndim(values) == 2:
        return [(own, f"covariate{k}") for k, own in enumerate(np.asarray(values).T, 1)]
    return [(given, None)]


def _covariate(data: ModelData, given: Any, name: str | None) -> list[tuple[str, np.ndarray]]:
    """Names and values (n,): of a fixed effect, of all columns of a term, or of values of rows."""
    if isinstance(given, str):
        x, frame = np.asarray(data.frame.x), data.frame
        if given in data.x_names:
            return [(given if name is None else name, x[:, data.x_names.index(given)])]
        at = frame.term_slices.get(given)
        if at is not None and len(at := np.arange(x.shape[1])[at]):
            return [(data.x_names[k], x[:, k]) for k in at]
        raise ValueError(
            f"interaction={given!r} is no fixed effect: {nearest(given, data.x_names)}; or pass its values"
        )
    values = response_vector(data, given, "interaction")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"interaction is missing in row {int(np.argmin(np.isfinite(values)))} of the model")
    own = name if name is not None else getattr(given, "name", None)
    return [("covariate" if own is None else str(own), np.asarray(values, float))]
