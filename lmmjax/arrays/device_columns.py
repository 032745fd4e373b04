"""Columns of an array that lies on a device and comes to the host where somebody asks for its values."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

GIVEN_AWAY = "the responses were given away (donated) to a program of JAX: fit a copy of them"


class DeviceColumns:
    """Columns (n, T) of an array of JAX, of real numbers; what is read of them is float64.

    `y[:, some]` and `y[rows]` stay on the device, `y[:, k]` and any other pair of indices give an array of
    NumPy, `np.asarray` brings all of it to the host. Arithmetic is refused: what does not know it cannot
    bring it there unseen.
    """

    __array_ufunc__ = None
    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, there: jax.Array):
        self.there = there
        self.shape: tuple[int, int] = (int(there.shape[0]), int(there.shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.there.is_deleted():
            raise ValueError(GIVEN_AWAY)
        values = np.asarray(self.there)
        return values.astype(np.float64 if dtype is None else dtype, copy=bool(copy))

    def __getitem__(self, key: Any) -> Any:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        whole = isinstance(rows, slice) and rows == slice(None)
        if isinstance(columns, int | np.integer):
            return self._some(columns)[rows]
        if whole or not isinstance(key, tuple):
            at = np.arange(self.shape[whole])[columns if whole else rows]
            if len(at) == self.shape[whole] and np.array_equal(at, np.arange(len(at))):
                return self
            return DeviceColumns(self._taken(at, int(whole)))
        return np.asarray(self)[key]

    def misses(self) -> bool:
        """Whether a value is NaN: one truth value comes to the host."""
        return self.there.dtype.kind not in "biu" and bool(jax.numpy.isnan(self.there).any())

    def _some(self, column: Any) -> np.ndarray:
        at = np.arange(self.shape[1])[column : column + 1 or None]
        return np.asarray(DeviceColumns(self._taken(at, 1)))[:, 0]

    def _taken(self, at: np.ndarray, axis: int) -> jax.Array:
        """Some rows or columns: neighbours as a slice, others gathered."""
        with jax.enable_x64(True):
            if len(at) and np.array_equal(at, np.arange(at[0], at[0] + len(at))):
                return jax.lax.slice_in_dim(self.there, int(at[0]), int(at[0]) + len(at), axis=axis)
            return self.there[(slice(None),) * axis + (at.astype(np.int32),)]


def on_device(values: Any) -> bool:
    """Whether an object is a table of real numbers on a device, not traced."""
    return (
        isinstance(values, jax.Array)
        and not isinstance(values, Tracer)
        and values.ndim == 2
        and (values.dtype.kind in "biuf" or jax.numpy.issubdtype(values.dtype, np.floating))
    )
