"""How many groups a model has, and how many rows are in each."""

from __future__ import annotations

import numpy as np

from lmmjax.formula import ModelFrame


def residual_group(frame: ModelFrame) -> str | None:
    """The factor within whose levels residuals correlate, if there is one."""
    own = frame.residual
    if own is None or own.groups is None or own.residual.correlation is None:
        return None
    return own.residual.correlation.group


def rows_by_group(frame: ModelFrame) -> dict[str, np.ndarray]:
    """Rows in each level (G,) that has some, by grouping factor: of random terms, then of the residuals."""
    codes = {term.group: term.codes for term in frame.random}
    name = residual_group(frame)
    if name is not None and frame.residual is not None and frame.residual.design is not None:
        codes.setdefault(name, frame.residual.design.codes)
    counts = {group: np.bincount(own[own >= 0]) for group, own in codes.items()}
    return {group: own[own > 0] for group, own in counts.items()}


def group_counts(frame: ModelFrame) -> dict[str, int]:
    """Levels of each grouping factor: of random terms, with those without rows, then of the residuals."""
    counts = {term.group: len(term.levels) for term in frame.random}
    name = residual_group(frame)
    if name is not None:
        counts.setdefault(name, len(rows_by_group(frame)[name]))
    return counts


def sizes_note(frame: ModelFrame) -> str:
    """The least and the most rows of a group of correlated residuals; "" without such groups."""
    name = residual_group(frame)
    if name is None:
        return ""
    rows = rows_by_group(frame)[name]
    low, high = int(rows.min()), int(rows.max())
    return f"Observations per {name}: " + (f"{low}" if low == high else f"{low} to {high}")
