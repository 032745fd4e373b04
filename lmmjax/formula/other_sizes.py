"""A design with other numbers of groups, or of rows in them, made of the groups and rows that it has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from lmmjax.formula.clusters import model_factors
from lmmjax.formula.columns import nearest
from lmmjax.formula.frame import ModelFrame, take_rows

WITHIN = "observation|"
"""Before the name of a factor: the rows in each of its levels."""


def extended(frame: ModelFrame, sizes: dict[str, int]) -> ModelFrame:
    """The frame with other sizes, without a response.

    Parameters
    ----------
    sizes : by name of a grouping factor how many levels, by "observation|" and its name how many rows in
        each; applied in their order. See `with_levels` and `with_rows`.

    Raises
    ------
    ValueError : no grouping factor of the model, or one that cannot be repeated.
    """
    known = {name: codes for name, codes in model_factors(frame).items() if name not in frame.factor_levels}
    if any(term.kernel is not None for term in frame.random):
        raise ValueError(
            "n: levels with a kernel cannot be repeated: make a model of all levels, with their kernel"
        )
    frame = dataclasses.replace(frame, y=None)
    for key, size in sizes.items():
        name = key.removeprefix(WITHIN)
        if name not in known:
            raise ValueError(f"n: unknown grouping factor {name!r}: {nearest(name, list(known))}")
        if key == name:
            frame, known = _taken(frame, known, name, *with_levels(frame.x, known[name], size))
        else:
            frame, known = _taken(frame, known, name, with_rows(known[name], size), None)
    return frame


def with_levels(x: np.ndarray, codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (m,) of `count` whole groups of the rows with `codes` (n,), and the new group of each.

    Groups are put in the order of the columns of x (n, p) that are constant within groups, those with fewest
    values first, and taken at equal steps, so that arms and strata between groups keep their shares.
    """
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    first = np.array([x[rows[0]] for rows in groups]).reshape(len(groups), -1)
    between = np.array(
        [np.all([np.ptp(x[rows, j]) == 0 for rows in groups]) for j in range(x.shape[1])], bool
    )
    columns = sorted(np.flatnonzero(between), key=lambda j: len(np.unique(first[:, j])))
    ranked = np.lexsort([first[:, j] for j in reversed(columns)]) if columns else np.arange(len(groups))
    chosen = ranked[np.arange(count) * len(groups) // count]
    taken = [groups[g] for g in chosen]
    return np.concatenate(taken), np.repeat(np.arange(count), [len(rows) for rows in taken])


def with_rows(codes: np.ndarray, count: int) -> np.ndarray:
    """Rows (m,), `count` of every group in its own order, from the first again where it has fewer."""
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return np.concatenate([np.resize(own, count) for own in groups])


def _taken(
    frame: ModelFrame,
    known: dict[str, np.ndarray],
    name: str,
    rows: np.ndarray,
    copy: np.ndarray | None,
) -> tuple[ModelFrame, dict[str, np.ndarray]]:
    """The frame and its factors on `rows`; those nested in `name` have new levels in every `copy` of it."""
    whole = known[name]

    def codes_of(codes: np.ndarray) -> np.ndarray:
        own = codes[rows]
        if copy is not None and _within(codes, whole):
            own = copy * (int(codes.max()) + 1) + own
        return np.unique(own, return_inverse=True)[1].astype(np.int32)

    random = []
    taken = take_rows(frame, rows)
    for term, at in zip(frame.random, taken.random, strict=True):
        codes = codes_of(term.codes)
        levels = pd.RangeIndex(int(codes.max()) + 1)
        if len(levels) < 2:
            raise ValueError(f"n leaves one level of {term.group!r}: ask for more")
        random.append(dataclasses.replace(at, codes=codes, levels=levels))
    residual, old = taken.residual, frame.residual
    if residual is not None and residual.design is not None and old is not None and old.design is not None:
        codes = codes_of(old.design.codes)
        correlated = residual.design.structure.residual.correlation is not None
        if correlated and len(np.unique(np.stack([codes, rows]), axis=1).T) < len(rows):
            raise ValueError(
                f"n repeats rows of {name!r} within the groups of the residual structure, at the same times: "
                "repeat those groups instead"
            )
        design = dataclasses.replace(residual.design, codes=codes, n_groups=int(codes.max()) + 1)
        residual = dataclasses.replace(residual, design=design)
    each = pd.RangeIndex(len(rows))
    made = dataclasses.replace(
        taken, random=tuple(random), residual=residual, index=each, data_index=each, rows=np.arange(len(rows))
    )
    return made, {other: codes_of(codes) for other, codes in known.items()}


def _within(codes: np.ndarray, whole: np.ndarray) -> bool:
    """Whether each level of `codes` (n,) lies within one of `whole`."""
    return np.unique(np.stack([codes, whole]), axis=1).shape[1] == len(np.unique(codes))
