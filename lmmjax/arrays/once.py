"""Functions that are traced once for arguments of equal shapes, in whatever programs they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.core import Tracer

Function = TypeVar("Function", bound=Callable)


def traced_once(*static: str) -> Callable[[Function], Function]:
    """Decorates a pure function of arrays; its arguments `static` are hashable and passed by name.

    Where an argument is traced, JAX keeps what the function comes to and writes it into the program, and
    into the next one that has such arguments: the program is the same, the function is run once. Elsewhere,
    with arrays of NumPy too, it is called as it is. It may depend on nothing but its arguments.
    """

    def decorate(function: Function) -> Function:
        inline = jax.jit(function, static_argnames=static, inline=True)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
            return (inline if traced else function)(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
