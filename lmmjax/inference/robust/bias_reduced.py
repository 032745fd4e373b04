"""A_i of CR2 for a large cluster whose residuals are independent, without a matrix of its rows.

A is the symmetric solution of AWA = V with V = R + BBᵀ, R diagonal, W = V − XXᵀ, in coordinates of X in which
M = I. With DᵀD = V it is Dᵀ(DWDᵀ)^(−½)D, and a rational approximation z^(−½) ≈ Σ c_j/(z + t_j) gives

    A ≈ Σ c_j (W + t_jV⁻¹)⁻¹,     W + tV⁻¹ = (R + tR⁻¹) + BBᵀ − XXᵀ − tR⁻¹B(I + BᵀR⁻¹B)⁻¹BᵀR⁻¹,

a diagonal matrix and one of low rank for every term.

Source: Hale, Higham & Trefethen (2008), doi:10.1137/070700607, method 3: errors fall by exp(−2π²/(log κ + 3))
a term, κ = M/m for eigenvalues of DWDᵀ in [m, M].
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import ellipj, ellipkm1

from lmmjax.inference.robust.sandwich import LEVERAGE

DIGITS = 1e-13
"""Error of the rational approximation."""

CLOSE = 1e-8
"""Error of AWA = V, on the columns of X, up to which A is taken."""


@dataclasses.dataclass(frozen=True)
class BySums:
    """Clusters known by Y_iᵀY_i (g, p, p), X̂_iᵀY_i (g, p, p) and their scores (g, p)."""

    own: np.ndarray
    cross: np.ndarray
    scores: np.ndarray

    @property
    def size(self) -> int:
        return 2 * self.own.size

    def moments(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return c.T @ self.own @ c, self.cross @ c


def inverse_root(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """c and t (N,) with z^(−½) ≈ Σ c_j/(z + t_j) for z in [low, high]."""
    n = 2 * int(np.ceil(-np.log(DIGITS) * (np.log(high / low) + 3.0) / (4.0 * np.pi**2)) + 1)
    share = low / high
    whole = float(ellipkm1(share))
    # half of the nodes u, the others K − u: sn, cn and dn lose digits near K where the share is small
    sn, cn, dn, _ = ellipj((np.arange(n // 2) + 0.5) * whole / n, 1.0 - share)
    shifts = np.concatenate([low * (sn / cn) ** 2, high * (cn / sn) ** 2])
    weights = np.concatenate([dn / cn**2, dn / (np.sqrt(share) * sn**2)])
    return 2.0 * whole * np.sqrt(low) / (np.pi * n) * weights, shifts


def bias_reduced(r: np.ndarray, b: np.ndarray, x: np.ndarray, e: np.ndarray) -> BySums | None:
    """A cluster of n rows with V = diag(r) + BBᵀ; None where it has leverage 1 or digits are lost.

    Parameters
    ----------
    r : (n,) residual variances; b : (n, q); x : (n, p) X; e : (n,) residuals.
    """
    scale = float(np.sqrt(np.min(r) * np.max(r)))
    r, b, x = r / scale, b / np.sqrt(scale), x / np.sqrt(scale)
    inner = np.eye(b.shape[1]) + b.T @ (b / r[:, None])

    def solved(a: np.ndarray) -> np.ndarray:
        """V⁻¹a."""
        own = a / r[:, None]
        return own - (b / r[:, None]) @ np.linalg.solve(inner, b.T @ own)

    vx = solved(x)
    left = 1.0 - float(np.linalg.eigvalsh(x.T @ vx)[-1])
    if left < LEVERAGE:
        return None
    most = float(np.max(r) + np.linalg.norm(b, 2) ** 2)
    weights, shifts = inverse_root(float(np.min(r)) ** 2 * left, most**2)
    low = np.concatenate([b, x, b / r[:, None]], axis=1)
    signs = np.concatenate([np.ones(b.shape[1]), -np.ones(x.shape[1])])

    def applied(a: np.ndarray) -> np.ndarray:
        """A a for a (n, k)."""
        out = np.zeros_like(a)
        for weight, t in zip(weights, shifts, strict=True):
            own = r + t / r
            middle = low.T @ (low / own[:, None])
            # the inverse of the low-rank part's core
            k = len(signs)
            middle[np.arange(k), np.arange(k)] += signs
            middle[k:, k:] -= inner / t
            first = a / own[:, None]
            out += weight * (first - (low / own[:, None]) @ np.linalg.solve(middle, low.T @ first))
        return out

    q = applied(vx)
    against = applied(r[:, None] * q + b @ (b.T @ q) - x @ (x.T @ q))
    if not np.linalg.norm(against - x) <= CLOSE * np.linalg.norm(x):
        return None
    bq = b.T @ q
    own = q.T @ (r[:, None] * q) + bq.T @ bq
    return BySums(own[None], (x.T @ q)[None], (q.T @ (e / np.sqrt(scale)))[None])
