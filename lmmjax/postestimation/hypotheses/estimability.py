"""What was asked of a fit and is not estimable from its rows, by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from lmmjax.arrays.caller import stack_level
from lmmjax.design import EstimabilityWarning
from lmmjax.fitted import ModelData
from lmmjax.formula import NewFrame


def lost_contrasts(data: ModelData, rows: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Which contrasts, rows (k, p), are not estimable; an `EstimabilityWarning` names them."""
    if data.frame.dependence is None:
        return np.zeros(len(rows), bool)
    lost = ~data.frame.dependence.estimable_contrasts(rows)
    if lost.any():
        named = "; ".join(str(label) for label, gone in zip(labels, lost, strict=True) if gone)
        _warn(f"not estimable: {named}. It depends on {_dropped(data)}; its row is NaN")
    return lost


def require_estimable(data: ModelData, contrasts: Mapping[str, np.ndarray]) -> None:
    """ValueError that names contrasts, weights (p,) by name, that are not estimable."""
    own = data.frame.dependence
    lost = [n for n, row in contrasts.items() if own and not own.estimable_contrasts(row[None])[0]]
    if lost:
        raise ValueError(f"not estimable: {'; '.join(lost)}. It depends on {_dropped(data)}")


def warn_of_rows(data: ModelData, new: NewFrame) -> None:
    """An `EstimabilityWarning` that names the new rows that are not estimable, if any."""
    rows = np.flatnonzero(new.lost)
    if rows.size:
        shown = ", ".join(str(new.index[k]) for k in rows[:6]) + (", ..." if rows.size > 6 else "")
        _warn(
            f"{rows.size} of {len(new.lost)} new rows are not estimable ({shown}): they depend on "
            f"{_dropped(data)}. Their predictions are NaN"
        )


def entangled_names(data: ModelData) -> list[str]:
    """Coefficients that would be others if other columns had been dropped."""
    own = data.frame.dependence
    return [] if own is None else [n for n, e in zip(data.x_names, own.entangled(), strict=True) if e]


def _dropped(data: ModelData) -> str:
    names = data.frame.aliased
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"what the data do not tell apart or do not have (dropped from the fit: {shown})"


def _warn(message: str) -> None:
    warnings.warn(message, EstimabilityWarning, stacklevel=stack_level())
