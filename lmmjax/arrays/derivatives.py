"""Derivatives with the value beside them: a function is traced once, not once a derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from lmmjax.arrays.types import Array


def value_and_slopes(f: Callable[[Array], Any], at: Array) -> tuple[Any, Any]:
    """f (a pytree of arrays) at a point (m,), and its first derivatives with their axis last."""

    def twice(x: Array) -> tuple[Any, Any]:
        value = f(x)
        return value, value

    first, value = jax.jacfwd(twice, has_aux=True)(at)
    return value, first


def derivatives(f: Callable[[Array], Any], at: Array) -> tuple[Any, Any, Any]:
    """f (a pytree of arrays) at a point (m,), its first and its second derivatives with their axes last."""

    def slopes(x: Array) -> tuple[Any, Any]:
        value, first = value_and_slopes(f, x)
        return first, (value, first)

    second, (value, first) = jax.jacfwd(slopes, has_aux=True)(at)
    return value, first, second
