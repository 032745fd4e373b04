"""Exact null distributions of (restricted) likelihood ratio statistics for one variance component.

For y = Xβ + Zb + ε, Var(b) = λσ²I, H₀: λ = 0, let μ_k be the eigenvalues of ZᵀP₀Z, with P₀ the residual
projector of X, and ξ_k those of ZᵀZ. With independent w_k² ~ χ²₁, and w₀² ~ χ² for the rest of the n − p,

    U(λ) = N/D,    N = Σ w_k² λμ_k/(1 + λμ_k),    D = Σ w_k²/(1 + λμ_k) + w₀²,
    RLRT = sup (n − p) log(1 + U) − Σ log(1 + λμ_k),      LRT = sup n log(1 + U) − Σ log(1 + λξ_k).

Where σ² is known nothing is estimated under H₀, and N takes the place of (n − p) log(1 + U) and n log(1 + U).

Source: Crainiceanu & Ruppert (2004), doi:10.1111/j.1467-9868.2004.00438.x.
"""

from __future__ import annotations

import jax
import numpy as np

from lmmjax.arrays import Array

GRID = np.linspace(-10.0, 9.0, 77)
"""log λ, with λ in units of the reciprocal of the largest eigenvalue, between which a parabola refines."""

CHUNK = 2_000_000
"""Numbers in the largest array of a chunk of draws."""


def spectrum(x: np.ndarray, z: np.ndarray, codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues μ of ZᵀP₀Z and ξ of ZᵀZ, each (G,), for a term with one column.

    ZᵀZ = diag(a) and ZᵀP₀Z = diag(a) − CᵀC with C = QᵀZ (p, G), Q an orthonormal basis of X. For the m groups
    of equal a, m − p eigenvalues are a itself; the matrix left has at most p rows per distinct a.

    Parameters
    ----------
    x : (n, p), z : (n,), both times √w where there are weights; codes (n,) in 0 … n_groups − 1.
    """
    q = np.linalg.qr(x)[0] if x.shape[1] else x
    a = np.bincount(codes, z * z, n_groups)
    c = np.array([np.bincount(codes, column * z, n_groups) for column in q.T]).reshape(-1, n_groups)
    kept, rows, values = [], [], []
    for members in _equal(a):
        block = c[:, members].T
        if len(members) > c.shape[0]:
            block = np.linalg.qr(block, mode="r") if c.shape[0] else block[:0]
        rows.append(block)
        values.append(np.full(len(block), a[members[0]]))
        kept.append(np.full(len(members) - len(block), a[members[0]]))
    b = np.concatenate(rows)
    left = np.linalg.eigvalsh(np.diag(np.concatenate(values)) - b @ b.T) if len(b) else np.zeros(0)
    mu = np.concatenate([*kept, left])
    return np.where(mu > 1e-10 * a.max(), mu, 0.0), a


def dense_spectrum(
    x: np.ndarray, z: np.ndarray, codes: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same for a term with q columns of one variance; min(n, Gq) of the eigenvalues.

    Parameters
    ----------
    x : (n, p), z : (n, q), both times √w where there are weights; codes (n,) in 0 … n_groups − 1.
    """
    n, q = z.shape
    basis = np.linalg.qr(x)[0] if x.shape[1] else x
    if n <= n_groups * q:
        whole = np.where(codes[:, None] == codes, z @ z.T, 0.0)
        half = whole - basis @ (basis.T @ whole)
        inner = half - (half @ basis) @ basis.T
    else:
        columns = np.zeros((n, n_groups, q))
        columns[np.arange(n), codes] = z
        columns = columns.reshape(n, -1)
        whole, across = columns.T @ columns, basis.T @ columns
        inner = whole - across.T @ across
    mu, xi = (np.linalg.eigvalsh(0.5 * (a + a.T)) for a in (inner, whole))
    least = 1e-10 * xi.max()
    return np.where(mu > least, mu, 0.0), np.where(xi > least, xi, 0.0)


def _equal(a: np.ndarray) -> list[np.ndarray]:
    """Positions of the elements of a (k,), those that agree to 9 digits of the largest together."""
    order = np.argsort(a, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(a[order]) > 1e-9 * np.abs(a).max()) + 1)


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different positive values, to 9 digits of the largest, and how often each occurs."""
    parts = _equal(values[values > 0])
    positive = values[values > 0]
    return np.array([positive[at].mean() for at in parts]), np.array([len(at) for at in parts])


def simulate_null(
    mu: np.ndarray,
    xi: np.ndarray,
    n: int,
    p: int,
    key: Array,
    draws: int,
    reml: bool = True,
    known: bool = False,
) -> np.ndarray:
    """Draws (draws,) of the statistic under the null.

    Parameters
    ----------
    mu, xi : eigenvalues as from `spectrum`; n observations, p fixed effects.
    key : `jax.random` key; it seeds NumPy's generator.
    reml : RLRT, or LRT of a model with the same fixed effects; known : whether σ² is.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    values, count = distinct(mu)
    if not len(values):
        return np.zeros(draws)
    rest = n - p - int(count.sum())
    unit = max(values.max(), xi.max())
    # λ = 0 first
    lam = np.concatenate([[0.0], np.exp(GRID) / unit])
    shrink = 1.0 / (1.0 + np.outer(values, lam))
    nu, penalised = (n - p, (values, count)) if reml else (n, distinct(xi))
    penalty = penalised[1] @ np.log1p(np.outer(penalised[0], lam))
    out = np.empty(draws)
    size = max(1, CHUNK // max(len(lam), len(values)))
    for first in range(0, draws, size):
        part = out[first : first + size]
        w = _chi_squares(generator, count, len(part))
        w0 = generator.chisquare(rest, len(part)) if rest > 0 else np.zeros(len(part))
        total = w.sum(axis=1) + w0
        # 1 + U = total/D
        d = w @ shrink + w0[:, None]
        gain = total[:, None] - d if known else nu * (np.log(total)[:, None] - np.log(d))
        part[:] = _peak(gain - penalty)
    return out


def _chi_squares(generator: np.random.Generator, count: np.ndarray, draws: int) -> np.ndarray:
    """(draws, k) χ² with `count` (k,) degrees of freedom."""
    if np.all(count == 1):
        return generator.standard_normal((draws, len(count))) ** 2
    return generator.chisquare(count.astype(float), (draws, len(count)))


def _peak(f: np.ndarray) -> np.ndarray:
    """The largest value of each row of f (draws, 1 + grid), by a parabola through it and its neighbours."""
    at = np.argmax(f, axis=1)
    best = np.take_along_axis(f, at[:, None], axis=1)[:, 0]
    inner = np.flatnonzero((at >= 2) & (at < f.shape[1] - 1))
    left, middle, right = (f[inner, at[inner] + k] for k in (-1, 0, 1))
    bend = 2.0 * middle - left - right
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = np.where(bend > 0, (right - left) ** 2 / (8.0 * bend), 0.0)
    best[inner] += lift
    return np.maximum(best, 0.0)
