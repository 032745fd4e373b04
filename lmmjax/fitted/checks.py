"""Checks of arguments that many functions of a fit have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.design import ResidualDesign
from lmmjax.fitted.data import ModelData
from lmmjax.fitted.records import Fitted
from lmmjax.formula import nearest


def require_choice(what: str, value: Any, known: Iterable[Any]) -> None:
    """ValueError that lists the values known, unless it is one of them."""
    if not any(value is one or (isinstance(value, str) and value == one) for one in known):
        raise ValueError(f"unknown {what} {value!r}; choose one of: {', '.join(map(str, known))}")


def require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """ValueError naming the first of `names` that is not known, with those that are."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}: {nearest(name, known)}")


def require_switch(what: str, value: Any) -> bool:
    """True or False, or ValueError: 2 and "no" are neither."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{what} must be True or False, not {value!r}")
    return bool(value)


def require_evaluations(max_iter: Any) -> int:
    """A whole number of evaluations ≥ 0, or ValueError; 0 evaluates the criterion at the start."""
    if not isinstance(max_iter, int | np.integer) or isinstance(max_iter, bool) or max_iter < 0:
        raise ValueError(f"max_iter must be a whole number of evaluations, at least 0, not {max_iter!r:.40}")
    return int(max_iter)


def require_key(key: Any) -> None:
    """ValueError unless `key` is one of `jax.random`, of either kind."""
    dtype = getattr(key, "dtype", None)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not (typed and key.shape == ()) and not (dtype == np.uint32 and key.ndim == 1):
        seed = key if isinstance(key, int) and not isinstance(key, bool) else 0
        raise ValueError(f"key must be one of jax.random, such as jax.random.key({seed}), not {key!r:.60}")


def require_level(level: float, what: str = "level") -> float:
    """The level, or ValueError."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise ValueError(f"{what} must lie between 0 and 1, not {level!r}")
    return level


def require_count(what: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most`, or ValueError."""
    whole = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not whole or value != value or value in (np.inf, -np.inf) or value != int(value):
        raise ValueError(f"{what} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    if most is not None and value > most:
        raise ValueError(f"{what} must be at most {most:,}, not {value:,}")
    return int(value)


def require_function(what: str, value: Any) -> None:
    """ValueError unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{what} must be a function, not {value!r:.60}")


FAR = 1e150
"""Sizes of responses up to which, and down to whose reciprocal, variances are doubles with their digits."""


def beyond(size: Any) -> Any:
    """Whether responses of a size (...) have squares that overflow, or lose digits."""
    return (size > FAR) | ((size < 1.0 / FAR) & (size > 0.0))


def require_data(data: ModelData) -> ModelData:
    """The model; ValueError unless it has rows for its parameters, and groups for those of residuals."""
    design = data.design
    if design.residual is not None:
        _require_groups(design.residual)
    own = design.structure.n_params + (design.known is None)
    if own + design.p > design.observations:
        raise ValueError(
            f"{own} covariance parameters and {design.p} fixed effects for {design.n} observations: more "
            "than these can tell; use a structure with fewer parameters, or fewer visits or coefficients"
        )
    return data


def _require_groups(own: ResidualDesign) -> None:
    """Rows that correlate, and of a free matrix as many groups as visits: fewer make it singular."""
    correlation = own.structure.residual.correlation
    if correlation is None:
        return
    if np.bincount(own.codes).max() == 1:
        raise ValueError(
            f"{correlation.name}: every group has one row, and rows of different groups do not correlate: "
            "give a coarser group=, or leave the structure out"
        )
    if not correlation.framed:
        return
    level = own.structure.group_level(own.covariates)
    levels = np.zeros(len(own.codes), int) if level is None else level
    for k in range(int(levels.max()) + 1):
        rows = levels == k
        groups, visits = len(np.unique(own.codes[rows])), len(np.unique(own.place[rows]))
        if groups < visits:
            raise ValueError(
                f"{correlation.name}: {groups} groups cannot tell the covariances of {visits} visits, whose "
                "matrix would be singular: use a structure with fewer parameters, such as AR1, or fewer "
                "visits" + ("" if level is None else ", or no by=")
            )


def require_estimates(fitted: Fitted) -> None:
    """ValueError if the fit has none."""
    if not np.all(np.isfinite(fitted.estimate.psi)):
        raise ValueError(f"the fit has no estimates ({fitted.status})")


def require_rows(data: ModelData, what: str) -> None:
    """ValueError where the rows of a model stand for others, which are read by the chunk."""
    if data.design.condensed is not None:
        raise ValueError(
            f"{what} needs all rows at once, and those of this fit are read by the chunk: fit the rows that "
            "fit in memory, such as a sample of groups, for it; rows() has fitted values and residuals"
        )
