"""What groups, places and levels of a residual structure may not be."""

from __future__ import annotations

import numpy as np

from lmmjax.design import ResidualDesign
from lmmjax.formula.levels import Levels
from lmmjax.residual import Correlation, Variance


def require_constant(
    part: Correlation, codes: np.ndarray, levels: np.ndarray, groups: Levels | None, by: Levels
) -> None:
    """A group has the parameters of one level."""
    first = np.empty(int(codes.max()) + 1, int)
    first[codes[::-1]] = levels[::-1]
    if np.any(first[codes] != levels):
        row = int(np.argmax(first[codes] != levels))
        where = "all rows are one group, which" if groups is None else f"group {groups.labels[codes[row]]}"
        both = ", ".join(str(by.labels[k]) for k in (first[codes[row]], levels[row]))
        raise ValueError(
            f"{part.name}: {where} has more than one level of by={part.by!r} ({both}): give a finer group=, "
            "such as an interaction with it"
        )


def require_apart(variance: Variance, covariate: np.ndarray, read: dict[str, np.ndarray]) -> None:
    """Levels whose variances `by` tells apart already have no others."""
    if variance.reads != "levels" or variance.by is not None:
        return
    for name, levels in read.items():
        pairs = np.unique(np.stack([covariate, levels]), axis=1)
        if pairs.shape[1] == int(covariate.max()) + 1:
            raise ValueError(
                f"{variance.name}({variance.source!r}) and by={name!r}, whose levels have variances of their "
                "own, say the same twice: leave one of them out"
            )


def require_same(
    correlation: Correlation,
    design: ResidualDesign,
    groups: Levels | None,
    codes: np.ndarray,
    levels: np.ndarray,
) -> None:
    """New rows of a group of the fit have the level that it had there."""
    level = design.structure.group_level(design.covariates)
    assert level is not None
    of_group = np.zeros(design.n_groups, int)
    of_group[design.codes] = level
    other = (codes >= 0) & (of_group[codes] != levels)
    if other.any() and groups is not None:
        group = groups.labels[int(codes[np.argmax(other)])]
        raise ValueError(
            f"{correlation.name}: new rows of group {group} have another level of by={correlation.by!r} than "
            "in the fit: give them the level of their group"
        )


def require_distinct(
    correlation: Correlation, codes: np.ndarray, place: np.ndarray, groups: Levels | None
) -> None:
    """Two rows of a group at one place would have correlation 1."""
    if getattr(correlation, "nugget", False):
        return
    _, count = np.unique(np.column_stack([codes, place]), axis=0, return_counts=True)
    if np.any(count > 1):
        cell = np.unique(np.column_stack([codes, place]), axis=0)[np.argmax(count > 1)]
        where = "" if groups is None else f" of group {groups.labels[int(cell[0])]}"
        what = ", ".join(correlation.columns) or "order"
        finer = "group=, the column of the subjects" if groups is None else "a finer group="
        raise ValueError(
            f"{correlation.name}: two rows{where} have the same {what}; correlations are between different "
            f"places: give {finer}" + (", or a nugget" if hasattr(correlation, "nugget") else "")
        )
