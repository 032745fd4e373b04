"""Checks of arguments that many functions of a fit have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lmmjax.fitted.records import Fitted


def require_choice(what: str, value: Any, known: Iterable[Any]) -> None:
    """ValueError that lists the values known, unless it is one of them."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; choose one of: {', '.join(map(str, known))}")


def require_level(level: float) -> float:
    """The level, or ValueError."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    return level


def require_estimates(fitted: Fitted) -> None:
    """ValueError if the fit has none."""
    if not np.all(np.isfinite(fitted.estimate.psi)):
        raise ValueError(f"the fit has no estimates to resample from ({fitted.status})")
