"""Columns that are taken out of a criterion at every ratio: r² and log|M| with their derivatives.

With M = E'PE, v = E'Py and q = y'Py for columns E, each with its first and second derivative,

    r² = q − v'g,  g = M⁻¹v,      ∂r² = ∂q − 2g'∂v + g'∂M g,
    ∂²r² = ∂²q − 2g'∂²v + g'∂²M g − 2u'M⁻¹u,  u = ∂v − ∂M g,
    ∂log|M| = tr(M⁻¹∂M),          ∂²log|M| = tr(M⁻¹∂²M) − tr(M⁻¹∂M M⁻¹∂M).
"""

from __future__ import annotations

import dataclasses

import numpy as np

Sums = tuple[np.ndarray, np.ndarray, np.ndarray]
"""M (T, m, m), v (T, m) and q (T,)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Eliminated:
    """r² (T,), ∂r²/r², ∂²r²/r², ∂log|M| and ∂²log|M|."""

    r2: np.ndarray
    fall: np.ndarray
    bend: np.ndarray
    logdet_slope: np.ndarray
    logdet_bend: np.ndarray


def eliminated(sums: Sums, first: Sums, second: Sums) -> Eliminated:
    """That of sums and of their derivatives."""
    (m, v, q), (m1, v1, q1), (m2, v2, q2) = sums, first, second
    inverse = np.linalg.inv(m)
    g = (inverse @ v[..., None])[..., 0]
    r2 = q - np.sum(v * g, axis=1)
    turn = v1 - (m1 @ g[..., None])[..., 0]
    slope = q1 - np.sum(g * (v1 + turn), axis=1)
    bend = q2 - 2.0 * np.sum(g * v2, axis=1) + np.sum(g * (m2 @ g[..., None])[..., 0], axis=1)
    bend = bend - 2.0 * np.sum(turn * (inverse @ turn[..., None])[..., 0], axis=1)
    solved = inverse @ m1
    trace = np.trace(solved, axis1=1, axis2=2)
    curve = np.sum(inverse * m2, axis=(1, 2)) - np.sum(solved * np.swapaxes(solved, 1, 2), axis=(1, 2))
    return Eliminated(r2, slope / r2, bend / r2, trace, curve)


def rises(sums: Sums, first: Sums, logdet: float, nu: float) -> np.ndarray:
    """Whether the REML criterion rises (T,) where sums have these derivatives, log|H| the slope `logdet`."""
    (m, v, q), (m1, v1, q1) = sums, first
    g = np.linalg.solve(m, v[..., None])[..., 0]
    r2 = q - np.sum(v * g, axis=1)
    slope = q1 - 2.0 * np.sum(g * v1, axis=1) + np.sum(g * (m1 @ g[..., None])[..., 0], axis=1)
    return logdet + np.trace(np.linalg.solve(m, m1), axis1=1, axis2=2) + nu * slope / r2 >= 0
