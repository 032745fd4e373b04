"""Checks of arguments that many functions of a fit have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def require_level(level: float) -> float:
    """The level, or ValueError."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level!r}")
    return level


def require_count(what: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, or ValueError."""
    whole = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not whole or value != value or value in (np.inf, -np.inf) or value != int(value):
        raise ValueError(f"{what} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return int(value)


def require_function(what: str, value: Any) -> None:
    """ValueError unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{what} must be a function, not {value!r:.60}")


def require_estimates(fitted: Fitted) -> None:
    """ValueError if the fit has none."""
    if not np.all(np.isfinite(fitted.estimate.psi)):
        raise ValueError(f"the fit has no estimates to resample from ({fitted.status})")
