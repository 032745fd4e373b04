"""The largest likelihood ratio of all candidates where a response is permuted.

In coordinates in which V is diagonal and X has no part, √w ỹ has independent entries of one variance under
the null: these are permuted, and g'Pg stays. A permutation is one more response of one product. Where a
kernel is of low rank the coordinates beside it are completed, and where X is among the coordinates it is
taken off them, by the reflections of a QR decomposition.

Source: Churchill & Doerge (1994), doi:10.1093/genetics/138.3.963; Abney (2015), doi:10.1002/gepi.21893, on
permuting what is whitened.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import jax
import numpy as np
from scipy.linalg import get_lapack_funcs

from lmmjax.arrays.memory import require_memory
from lmmjax.inference.scan.partial import BlockEngine
from lmmjax.inference.scan.spectral import Block, SpectralEngine


@dataclasses.dataclass(frozen=True, eq=False)
class Reflections:
    """Q (n, n) of a QR decomposition as reflections, packed by LAPACK; the first `width` columns span A."""

    packed: np.ndarray
    tau: np.ndarray
    width: int

    @classmethod
    def of(cls, a: np.ndarray) -> Reflections:
        """Those of A (n, k)."""
        if not a.shape[1]:
            return cls(a, np.zeros(0), 0)
        (factor,) = get_lapack_funcs(("geqrf",), (a,))
        packed, tau, _, _ = factor(a)
        return cls(packed, tau, a.shape[1])

    def beside(self, values: np.ndarray) -> np.ndarray:
        """(k, n − width) coordinates of rows (k, n) in what A does not span."""
        if not self.width:
            return values
        columns = np.asfortranarray(values.T)
        size = max(1, 64 * columns.shape[1])
        (apply,) = get_lapack_funcs(("ormqr",), (self.packed,))
        return apply("L", "T", self.packed, self.tau, columns, size)[0][self.width :].T


class White:
    """A response in coordinates in which it is exchangeable.

    Attributes
    ----------
    y : (m,) its coordinates.
    """

    def __init__(self, engine: SpectralEngine | BlockEngine, response: int):
        self.engine, self.response = engine, response
        if isinstance(engine, BlockEngine):
            (w,) = engine.weights(np.array([response]))
            self.root = np.sqrt(w)
            self.beside = Reflections.of(engine.turned_x.T * self.root[:, None])
            self.y = self.beside.beside((self.root * engine.rotated[response])[None])[0]
            return
        self.root = np.sqrt(engine.weights[response])
        self.y = self.root * engine.rotated[response]
        if engine.rest is not None:
            scale = np.sqrt(engine.inverse_a[response])
            self.y = np.append(self.y, scale * self.completed.beside(engine.rest[response][None])[0])

    @cached_property
    def completed(self) -> Reflections:
        """What neither X nor the kernel has."""
        assert isinstance(self.engine, SpectralEngine)
        x = np.asarray(self.engine.maker.rows.x).T
        return Reflections.of(np.concatenate([x, self.engine.basis], axis=1))

    def candidates(self, block: Block) -> np.ndarray:
        """(k, m) coordinates of candidates."""
        g = block.g * self.root
        if isinstance(self.engine, BlockEngine):
            return self.beside.beside(g)
        if block.rest is None:
            return g
        rest = self.completed.beside(block.rest) * np.sqrt(self.engine.inverse_a[self.response])
        return np.concatenate([g, rest], axis=1)


def permuted(white: White, key: Any, count: int) -> np.ndarray:
    """Permutations (count, m) of the coordinates of a response."""
    m = len(white.y)
    require_memory("the permutations", 3, count, m, remedy="ask for fewer, or simulate responses")
    with jax.enable_x64(True):
        noise = np.asarray(jax.random.uniform(key, (count, m), "float64"))
    return np.argsort(noise, axis=1)


def largest(white: White, block: Block, order: np.ndarray) -> np.ndarray:
    """The largest ρ² (count,) of the candidates of a block for permutations (count, m) of a response."""
    g = white.candidates(block)
    b = white.y[order] @ g.T
    with np.errstate(divide="ignore", invalid="ignore"):
        rho2 = b * b / (np.sum(g * g, axis=1) * float(white.y @ white.y))
    rho2[:, block.lost] = 0.0
    return rho2.max(axis=1, initial=0.0)
