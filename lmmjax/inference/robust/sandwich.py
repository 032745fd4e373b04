"""Sandwich covariances of β̂ that hold whatever the covariance within clusters is, and their tests.

With M = (XᵀV⁻¹X)⁻¹, clusters i that are independent, and residuals e = y − Xβ̂,

    V_R = M [Σ X_iᵀV_i⁻¹A_i e_ie_iᵀ A_iᵀV_i⁻¹X_i] M,

where A_i is I (CR0, and CR1 with the factor G/(G − 1)), (I − X_iMX_iᵀV_i⁻¹)⁻¹ (CR3, the jackknife at fixed
V), or the symmetric solution of A(V_i − X_iMX_iᵀ)A = V_i (CR2), which makes V_R unbiased where V is the
covariance:

    A_i = Dᵀ(D(V_i − X_iMX_iᵀ)Dᵀ)^(−½)D,  DᵀD = V_i,  with the pseudo-inverse where a cluster has leverage 1.

With whitened X̂ = L⁻¹X, ê = L⁻¹e, LLᵀ = V_i, D = Lᵀ and S = LᵀL all of this is made of

    Y_i = LᵀA_iᵀV_i⁻¹X_i:    X̂ (CR0),    X̂(I − MX̂ᵀX̂)⁻¹ (CR3),    S(S(I − X̂MX̂ᵀ)S)^(−½)X̂ (CR2),

the scores Y_iᵀê_i. A contrast has the variance Σ (q_iᵀy)² with, if V is the covariance of y,

    q_iᵀVq_j = δ_ij Y_iᵀY_i − (X̂_iᵀY_i)ᵀM(X̂_jᵀY_j)    (in the coordinates of the contrasts),

from which degrees of freedom follow. Everything here is in coordinates of X in which M = I.

Sources: Liang & Zeger (1986, doi:10.1093/biomet/73.1.13) for CR0; Bell & McCaffrey (2002, Survey Methodology
28(2), 169–181) for CR2, CR3 and the degrees of freedom; Pustejovsky & Tipton (2018,
doi:10.1080/07350015.2016.1247004), for CR2 with any V and for tests of several contrasts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from lmmjax.inference.ddf import FTest

KINDS = ("CR0", "CR1", "CR2", "CR3")

LEVERAGE = 1e-10
"""What 1 less a leverage is at most where it counts as 0."""

SINGULAR = 1e-12
"""Singular values that are less, relative to the largest, are 0."""


class Clusters(Protocol):
    """Some clusters, g of them."""

    @property
    def scores(self) -> np.ndarray:
        """Y_iᵀê_i (g, p)."""
        ...

    @property
    def size(self) -> int:
        """How many numbers they hold."""
        ...

    def moments(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Y_iᵀY_i (g, k, k) and X̂_iᵀY_i (g, p, k) in the directions c (p, k)."""
        ...


@dataclasses.dataclass(frozen=True)
class ByProducts:
    """Clusters known by F_i = X_iᵀV_i⁻¹X_i (g, p, p) and X_iᵀV_i⁻¹e_i (g, p): CR0, CR1, CR3.

    Attributes
    ----------
    inverse : (I − F_i)⁻¹ (g, p, p) for CR3, else None.
    """

    f: np.ndarray
    s: np.ndarray
    inverse: np.ndarray | None = None

    @property
    def scores(self) -> np.ndarray:
        return self.s if self.inverse is None else (self.inverse @ self.s[:, :, None])[:, :, 0]

    @property
    def size(self) -> int:
        return 2 * self.f.size

    def moments(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = np.broadcast_to(c, (len(self.f), *c.shape)) if self.inverse is None else self.inverse @ c
        cross = self.f @ moved
        return np.swapaxes(moved, 1, 2) @ cross, cross


@dataclasses.dataclass(frozen=True)
class ByRows:
    """Clusters of r rows each: X̂ (g, r, p), ê (g, r), Y (g, r, p)."""

    x: np.ndarray
    e: np.ndarray
    y: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        return (np.swapaxes(self.y, 1, 2) @ self.e[:, :, None])[:, :, 0]

    @property
    def size(self) -> int:
        return 2 * self.x.size

    def moments(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = self.y @ c
        return np.swapaxes(moved, 1, 2) @ moved, np.swapaxes(self.x, 1, 2) @ moved


def jackknife(f: np.ndarray) -> np.ndarray:
    """(I − F)⁻¹ (..., p, p) of F (..., p, p) ≤ I; the pseudo-inverse where an eigenvalue of F is 1."""
    values, vectors = np.linalg.eigh(f)
    left = 1.0 - values
    inverse = np.where(left > LEVERAGE, 1.0 / np.where(left > LEVERAGE, left, 1.0), 0.0)
    return (vectors * inverse[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def adjusted(kind: str, lower: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Y (..., r, p) of clusters with V = LLᵀ, L (..., r, r), and whitened X̂ (..., r, p)."""
    if kind == "CR2":
        return _bias_reduced(lower, x)
    return x @ jackknife(np.swapaxes(x, -1, -2) @ x) if kind == "CR3" else x


def _bias_reduced(lower: np.ndarray, x: np.ndarray) -> np.ndarray:
    s = np.swapaxes(lower, -1, -2) @ lower
    # S(I − X̂X̂ᵀ)S = KKᵀ, K = S(I − X̂X̂ᵀ)^½
    u, length, _ = np.linalg.svd(x, full_matrices=False)
    left = 1.0 - length**2
    root = np.sqrt(np.where(left > LEVERAGE, left, 0.0))
    k = s - ((s @ u) * (1.0 - root)[..., None, :]) @ np.swapaxes(u, -1, -2)
    vectors, values, _ = np.linalg.svd(k)
    kept = values > SINGULAR * values[..., :1]
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    return s @ (vectors @ (inverse[..., None] * (np.swapaxes(vectors, -1, -2) @ x)))


def by_rows(kind: str, v: np.ndarray, x: np.ndarray, e: np.ndarray) -> ByRows:
    """Clusters with covariances V (g, r, r), X (g, r, p) and residuals (g, r)."""
    lower = np.linalg.cholesky(v)
    whitened = np.linalg.solve(lower, np.concatenate([x, e[:, :, None]], axis=2))
    return ByRows(whitened[:, :, :-1], whitened[:, :, -1], adjusted(kind, lower, whitened[:, :, :-1]))


@dataclasses.dataclass
class Moments:
    """What degrees of freedom of single contrasts are made of: sums over clusters, of one fit or many (...).

    With P_ij = q_iᵀVq_j of a contrast, df = (Σ P_ii)²/ΣΣ P_ij² (Satterthwaite's; Bell & McCaffrey 2002).

    Attributes
    ----------
    squares : (..., p, p) of the scores; expected, own : (..., k); outer : (..., k, p, p).
    """

    squares: np.ndarray
    expected: np.ndarray
    own: np.ndarray
    outer: np.ndarray

    @classmethod
    def empty(cls, fits: tuple[int, ...], p: int, k: int) -> Moments:
        """Of no clusters."""
        shapes = ((p, p), (k,), (k,), (k, p, p))
        return cls(*(np.zeros(fits + shape) for shape in shapes))

    def add(
        self, scores: np.ndarray, own: np.ndarray, cross: np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """Clusters with scores (..., g, p).

        Parameters
        ----------
        own, cross : Y_iᵀY_i (..., g, k, k) and X̂_iᵀY_i (..., g, p, k), `counts` (g,) of each.
        """
        self.squares += np.swapaxes(scores, -1, -2) @ scores
        a, b = np.diagonal(own, axis1=-2, axis2=-1), np.sum(cross**2, axis=-2)
        times = 1.0 if counts is None else counts[:, None]
        self.expected += np.sum(times * (a - b), axis=-2)
        self.own += np.sum(times * a * (a - 2.0 * b), axis=-2)
        # (..., k, p, g)
        lanes = np.moveaxis(cross, -3, -1).swapaxes(-2, -3)
        self.outer += (lanes * (1.0 if counts is None else counts)) @ np.swapaxes(lanes, -1, -2)

    @property
    def df(self) -> np.ndarray:
        """(..., k) degrees of freedom."""
        spread = self.own + np.sum(self.outer**2, axis=(-2, -1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > 0, self.expected**2 / spread, np.nan)


def sandwich(clusters: Iterable[Clusters], p: int) -> np.ndarray:
    """Σ of the squares of the scores (p, p)."""
    out = np.zeros((p, p))
    for some in clusters:
        scores = some.scores
        out += scores.T @ scores
    return out


def correction(kind: str, g: int) -> float:
    """What the sum of g clusters is multiplied by."""
    return g / (g - 1.0) if kind == "CR1" else 1.0


def single_tests(clusters: Iterable[Clusters], c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ of the squares of the scores (p, p), and degrees of freedom (k,) of single contrasts c (p, k)."""
    moments, c = Moments.empty((), *c.shape), unit(c)
    for some in clusters:
        moments.add(some.scores, *some.moments(c))
    return moments.squares, moments.df


def unit(c: np.ndarray) -> np.ndarray:
    """Contrasts (..., p, k) of length 1, on which degrees of freedom do not depend."""
    c = c / np.max(np.abs(c), axis=-2, keepdims=True)
    return c / np.sqrt(np.sum(c**2, axis=-2, keepdims=True))


def joint_test(clusters: Iterable[Clusters], c: np.ndarray) -> tuple[np.ndarray, float]:
    """Sum of squares (p, p), and η of Hotelling's T² approximation for k contrasts c (p, k) tested together.

    With Ω = E(CV_RCᵀ) and D = Ω^(−½)CV_RCᵀΩ^(−½), η = k(k + 1)/ΣΣ Var(D_st): D is taken as Wishart's, so that
    Q = (Lβ̂)ᵀ(CV_RCᵀ)⁻¹Lβ̂ has (η − k + 1)Q/(ηk) ~ F(k, η − k + 1).
    """
    p = len(c)
    total, parts, c = np.zeros((p, p)), [], unit(c)
    for some in clusters:
        scores = some.scores
        total += scores.T @ scores
        parts.append(some.moments(c))
    own, cross = (np.concatenate(a) for a in zip(*parts, strict=True))
    return total, float(wishart_df(own, cross))


def wishart_df(own: np.ndarray, cross: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """η (...) of `joint_test`, missing where Ω is singular.

    Parameters
    ----------
    own, cross : Y_iᵀY_i (..., g, k, k) and X̂_iᵀY_i (..., g, p, k) in k contrasts of length 1; `counts` (g,)
        of each.
    """
    k = own.shape[-1]
    times = np.ones(own.shape[-3]) if counts is None else counts
    omega = np.sum(times[:, None, None] * (own - np.swapaxes(cross, -1, -2) @ cross), axis=-3)
    lost = ~np.isfinite(omega).all(axis=(-2, -1))
    values, vectors = np.linalg.eigh(np.where(lost[..., None, None], np.eye(k), omega))
    lost |= ~(values[..., 0] > SINGULAR * values[..., -1])
    with np.errstate(invalid="ignore", divide="ignore"):
        root = (vectors / np.sqrt(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    root = np.where(lost[..., None, None], 0.0, root)[..., None, :, :]
    spread = _total_variance(root @ own @ root, cross @ root, None if counts is None else times)
    with np.errstate(divide="ignore"):
        return np.where(lost, np.nan, k * (k + 1.0) / spread)


def hotelling_f(cov: np.ndarray, eta: float, difference: np.ndarray, ddf: str) -> FTest:
    """F of k contrasts with robust covariance (k, k), missing where that is singular; χ²/k for ddf "normal".

    Parameters
    ----------
    difference : (k,) Lβ̂ − rhs.
    """
    k, root = len(cov), np.sqrt(np.diagonal(cov))
    values, vectors = np.linalg.eigh(cov / (root[:, None] * root))
    den_df = np.inf if ddf == "normal" else eta - k + 1.0
    if not (values[0] > SINGULAR * values[-1] and den_df > 0):
        return FTest(np.array(np.nan), k, np.array(np.nan), np.array(np.nan))
    wald = np.sum((vectors.T @ (difference / root)) ** 2 / values) / k
    scaling = 1.0 if np.isinf(den_df) else den_df / eta
    return FTest(np.array(scaling * wald), k, np.array(den_df), np.array(wald))


def _total_variance(own: np.ndarray, cross: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """ΣΣ_ij tr(P_ij)² + tr(P_ijP_ij) (...), P_ij = δ_ij own_i − cross_iᵀcross_j.

    Parameters
    ----------
    own, cross : (..., g, k, k), (..., g, p, k); counts : (g,) of each, or None: one.
    """
    *_, g, p, k = cross.shape
    # tr(a)² + tr(aa) − 2[tr(a)tr(b) + tr(ab)] from the clusters with themselves
    inner = np.swapaxes(cross, -1, -2) @ cross
    traces, inners = (np.trace(a, axis1=-2, axis2=-1) for a in (own, inner))
    times = np.ones(g) if counts is None else counts
    apart = traces**2 - 2.0 * traces * inners + np.sum(own * (own - 2.0 * inner), axis=(-2, -1))
    value = np.sum(times * apart, axis=-1)
    if p * k <= g or counts is not None:
        flat = cross.reshape(*cross.shape[:-2], p * k)
        products = np.swapaxes(flat * times[:, None], -1, -2) @ flat
        products = products.reshape(*products.shape[:-2], p, k, p, k)
        both = products**2 + products * np.swapaxes(products, -3, -1)
        return value + np.sum(both, axis=(-4, -3, -2, -1))
    for one in cross:
        pairs = one.T @ cross
        value += np.sum(np.trace(pairs, axis1=1, axis2=2) ** 2) + np.sum(pairs * np.swapaxes(pairs, 1, 2))
    return value
