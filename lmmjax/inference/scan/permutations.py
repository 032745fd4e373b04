"""The largest likelihood ratio of all candidates where a response is permuted.

In coordinates in which V is diagonal, √w ỹ has independent entries of one variance under the null: these are
permuted, and g'Pg stays. A permutation is one more response of one product.

Source: Churchill & Doerge (1994), doi:10.1093/genetics/138.3.963; Abney (2015), doi:10.1002/gepi.21893, on
permuting what is whitened.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lmmjax.inference.scan.spectral import Block, SpectralEngine


def permuted(engine: SpectralEngine, key: Any, count: int) -> np.ndarray:
    """Permutations (count, m) of the coordinates of the kernel."""
    m = engine.rotated.shape[1]
    with jax.enable_x64(True):
        noise = np.asarray(jax.random.uniform(key, (count, m), "float64"))
    return np.argsort(noise, axis=1)


def largest(engine: SpectralEngine, block: Block, response: int, order: np.ndarray) -> np.ndarray:
    """The largest ρ² (count,) of the candidates of a block for permutations (count, m) of a response."""
    root = np.sqrt(engine.weights[response])
    white = root * engine.rotated[response]
    c = block.squares @ engine.weights[response]
    b = white[order] @ (block.g * root).T
    with np.errstate(divide="ignore", invalid="ignore"):
        rho2 = b * b / (c * float(white @ white))
    rho2[:, block.lost] = 0.0
    return rho2.max(axis=1, initial=0.0)
