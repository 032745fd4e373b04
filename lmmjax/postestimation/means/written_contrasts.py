"""Contrasts of means as users write them: weights by position, or by the labels that they have."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmjax.formula.labelled import labelled
from lmmjax.formula.matching import is_default


def written_out(
    method: Any, names: Sequence[str], levels: pd.DataFrame | None = None
) -> tuple[np.ndarray, list[str]]:
    """Weights (m, k) of contrasts of k means, and their names.

    Parameters
    ----------
    method : {name: weights}, a frame with a row a contrast, or weights (m, k) or (k,). A dict or a Series of
        weights is matched by its labels, of which those that are left out have weight 0.
    names : of the means; levels : (k, ·) of their factors, by which they may be called, too.

    Raises
    ------
    ValueError : weights of another number, of means that there are not, that are no numbers, or all zero.
    """
    k = len(names)
    if isinstance(method, pd.DataFrame):
        by_label = not is_default(method.columns)
        each = [row if by_label else row.to_numpy() for _, row in method.iterrows()]
        called = [_name(row) for row in each] if is_default(method.index) else [str(n) for n in method.index]
    elif isinstance(method, Mapping):
        each, called = list(method.values()), [str(name) for name in method]
    else:
        try:
            rows = np.atleast_2d(labelled(method, "contrasts").values)
        except ValueError as error:
            if "is not numeric" in str(error):
                raise
            rows = np.zeros((0, 0))
        each, called = list(rows), [_name(row) for row in rows]
    known = _known(names, levels)
    made = [_weights(row, name, k, known) for row, name in zip(each, called, strict=True)]
    if not made or any(row.shape != (k,) for row in made):
        raise ValueError(f"contrasts of {k} means are {{name: {k} weights}} or weights of shape (m, {k})")
    weights = np.array(made)
    if not np.all(np.isfinite(weights)) or not np.all(np.any(weights, axis=1)):
        raise ValueError("a contrast is zero or not finite: give it finite weights that are not all 0")
    return weights, called


def _weights(row: Any, name: str, k: int, known: Mapping[Hashable, int]) -> np.ndarray:
    """One contrast (k,), or what it is in place of that."""
    if isinstance(row, pd.Series) and is_default(row.index):
        row = row.to_numpy()
    if not isinstance(row, pd.Series | Mapping):
        return labelled(row, f"the contrast {name!r}").values
    pairs = list(row.items())
    values = labelled([weight for _, weight in pairs], f"the contrast {name!r}").values
    out, taken = np.zeros(k), set()
    for (label, _), weight in zip(pairs, values, strict=True):
        at = known.get(label)
        if at is None:
            means = ", ".join(n for n in known if isinstance(n, str))
            raise ValueError(
                f"the contrast {name!r} has a weight of {label!r}, which is no mean: there are {means}"
            )
        if at in taken:
            raise ValueError(f"the contrast {name!r} has several weights of {label!r}: give it one")
        taken.add(at)
        out[at] = weight
    return out


def _known(names: Sequence[str], levels: pd.DataFrame | None) -> dict[Hashable, int]:
    """Positions of means by their names, and by their levels: one, or a tuple."""
    out: dict[Hashable, int] = {name: at for at, name in enumerate(names)}
    if levels is not None and len(levels.columns):
        for at, row in enumerate(levels.itertuples(index=False, name=None)):
            out.setdefault(row[0] if len(row) == 1 else row, at)
    return out


def _name(row: Any) -> str:
    return f"[{', '.join(f'{w:g}' if isinstance(w, int | float | np.number) else str(w) for w in row)}]"
