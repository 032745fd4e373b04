"""Array aliases, pytree records and the choice between NumPy and JAX.

Dimensions, everywhere: n observations, p fixed effects, q columns of a random term, m covariance
parameters, G groups, K patterns of groups, T responses.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
"""A NumPy array, a JAX array or a tracer: functions follow the kind and dtype they are given."""

Record = TypeVar("Record", bound=type)


def static(**kwargs: Any) -> Any:
    """A record field that is part of the structure, not of the data: hashable, never traced."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def record(cls: Record) -> Record:
    """Make a class a frozen dataclass that is also a JAX pytree."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))


def namespace(*arrays: Array) -> ModuleType:
    """`jax.numpy` if any argument is a JAX array or tracer, else `numpy`."""
    return jnp if any(isinstance(a, jax.Array) for a in arrays) else np
