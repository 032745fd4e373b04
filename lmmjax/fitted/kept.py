"""Values that are computed once for a record, and kept with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Value = TypeVar("Value")


def kept(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function of a record that has a `cache`, and of hashable arguments, whose values are kept there."""

    @wraps(function)
    def recalled(record: Any, *args: Any) -> Value:
        key = function.__module__, function.__qualname__, args
        if key not in record.cache:
            record.cache[key] = function(record, *args)
        return record.cache[key]

    return recalled
