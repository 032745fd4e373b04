"""Keys and normal draws by programs of the package, kept on disk: JAX compiles its own in every process."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from lmmjax.arrays import Array, quick_jit


@partial(quick_jit, static_argnames=("count",))
def keys_of(key: Array, count: int) -> tuple[Array, ...]:
    """As many keys from one."""
    return tuple(jax.random.split(key, count))


@quick_jit
def chunk_keys(key: Array, k: Array) -> tuple[Array, ...]:
    """Two keys of chunk k of draws."""
    return tuple(jax.random.split(jax.random.fold_in(key, k)))


@partial(quick_jit, static_argnames=("shape",))
def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape, float)


def standard_normal(key: Array, shape: tuple[int, ...]) -> np.ndarray:
    """Independent standard normal draws in double precision."""
    with jax.enable_x64(True):
        return np.asarray(_normal(key, shape))
