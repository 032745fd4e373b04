"""Which families are equal, and sums of products over those that are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import Array
from lmmjax.gram.families.small import PatternResponse, Patterns

DIGITS, SHARE = 1e11, 2.0
"""Digits to which families are equal; numbers of sums by pattern for each row, up to which they pay."""


def patterns(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pattern (B,) of families with ∂H/∂d in v (m, s, s, B), and one family (U,) of each pattern."""
    scale = np.abs(v).max(axis=(1, 2, 3), keepdims=True)
    whole = np.round(v / np.where(scale > 0, scale, 1.0) * DIGITS).astype(np.int64)
    flat = np.ascontiguousarray(whole.reshape(-1, v.shape[-1]).T)
    _, first, code = unique_rows(flat)
    return code, first


def unique_rows(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of integers (B, k) that differ, where each is first (U,), and which every row is (B,)."""
    keys = np.ascontiguousarray(flat).view([("", flat.dtype)] * flat.shape[1]).ravel()
    _, first, code = np.unique(keys, return_index=True, return_inverse=True)
    return flat[first], first, code.ravel()


def pay(count: int, s: int, p: int, families: int) -> bool:
    """Whether sums by `count` patterns are shorter than `families` of s rows."""
    return count * s * (p + 1) <= SHARE * families


class Summed:
    """Families x (p, s, B) of patterns `code` (B,), ready for responses."""

    def __init__(self, x: np.ndarray, v: np.ndarray, code: np.ndarray, first: np.ndarray):
        self.x, self.code, self.total = x, code, len(first)
        xx = np.stack([np.stack([self.sums(a[:, None] * b[None]) for b in x]) for a in x]) if len(x) else None
        s = v.shape[1]
        empty = np.zeros((0, 0, s, s, self.total))
        self.part = Patterns(
            np.ascontiguousarray(v[..., first]),
            np.bincount(code, minlength=self.total).astype(float),
            empty if xx is None else 0.5 * (xx + np.swapaxes(xx, 2, 3)),
        )

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (..., U) over the families of each pattern of values (..., B)."""
        flat = values.reshape(-1, values.shape[-1])
        out = np.stack([np.bincount(self.code, row, self.total) for row in flat])
        return out.reshape(*values.shape[:-1], self.total)

    def __call__(self, y: Array) -> PatternResponse:
        """Sums of responses y (s, B, ...)."""
        p, s, b = self.x.shape
        if not isinstance(y, np.ndarray):
            return self._traced(y)
        sums, with_x = self._matrices()
        flat, lanes = np.ascontiguousarray(y.reshape(s, b, -1)), y.shape[2:]
        xy = np.empty((p, s, s, self.total, flat.shape[-1]))
        yy = np.empty((s, s, self.total, flat.shape[-1]))
        for t in range(s):
            if p:
                own = (with_x @ flat[t]).reshape(p, s, self.total, -1)
                xy[:, :, t] = own
            for other in range(t + 1):
                yy[t, other] = yy[other, t] = sums @ (flat[t] * flat[other])
        xy = 0.5 * (xy + np.swapaxes(xy, 1, 2))
        return PatternResponse(xy.reshape(*xy.shape[:4], *lanes), yy.reshape(*yy.shape[:3], *lanes))

    def _traced(self, y: Array) -> PatternResponse:
        """The same of a traced response (s, B, ...)."""

        def sums(values: Array) -> Array:
            moved = jnp.moveaxis(values, 3 if values.ndim - y.ndim == 2 else 2, 0)
            axis = 3 if values.ndim - y.ndim == 2 else 2
            return jnp.moveaxis(jax.ops.segment_sum(moved, self.code, self.total), 0, axis)

        lanes = (...,) + (None,) * (y.ndim - 2)
        xy = sums(jnp.asarray(self.x)[:, :, None][lanes] * y[None, None])
        return PatternResponse(0.5 * (xy + jnp.swapaxes(xy, 1, 2)), sums(y[:, None] * y[None]))

    def _matrices(self) -> tuple[Any, Any]:
        """Sparse: (U, B) sums by pattern; (p s U, B) sums times x."""
        import scipy.sparse as sp

        p, s, b = self.x.shape
        at = np.arange(b)
        sums = sp.csr_array((np.ones(b), (self.code, at)), shape=(self.total, b))
        rows = (np.arange(p * s)[:, None] * self.total + self.code).ravel()
        with_x = sp.csr_array((self.x.ravel(), (rows, np.tile(at, p * s))), shape=(p * s * self.total, b))
        return sums, with_x
