"""What rows and groups do to a fit whose variance parameters are held: leverages, residuals, deletion.

With P = V⁻¹ − GΦGᵀ, G = V⁻¹X, the fitted values Xβ̂ + Zb̂ are (I − RP)y. Leaving out the rows I is adding an
effect for each of them, so that

    β̂₍I₎ = β̂ − ΦG_Iᵀ P_II⁻¹ (Py)_I,        Φ₍I₎ = Φ + ΦG_Iᵀ P_II⁻¹ G_IΦ.

Source: Christensen, Pearson & Johnson (1992), doi:10.2307/1269550; Haslett (1999),
doi:10.1111/1467-9868.00195; leverages Demidenko & Stukel (2005), doi:10.1002/sim.1974, and Hodges & Sargent
(2001), doi:10.1093/biomet/88.2.367.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
import scipy.linalg as sl

from lmmjax.design import Design, take_rows
from lmmjax.inference.diagnostics.precision import Precision, precision

LOST = 1e-9
"""Share of V⁻¹ in rows that P leaves, below which the other rows do not determine β."""

PER_ROW = 1000
"""Operations a row that a fit to the rows that are left takes, about."""


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A fit by generalised least squares at ψ (m + 1,).

    Attributes
    ----------
    design : of the model; y : (n,) response less offset; psi : the variance parameters.
    at : V⁻¹; g : V⁻¹X (n, p); phi : Φ (p, p); beta : β̂ (p,); py : Py = V⁻¹(y − Xβ̂) (n,).
    """

    design: Design
    y: np.ndarray
    psi: np.ndarray
    at: Precision
    g: np.ndarray
    phi: np.ndarray
    beta: np.ndarray
    py: np.ndarray

    @cached_property
    def marginal(self) -> np.ndarray:
        """y − Xβ̂ (n,)."""
        return self.y - self.design.x @ self.beta

    @cached_property
    def smoothed(self) -> np.ndarray:
        """E = RV⁻¹X (n, p), what the random effects leave of X."""
        x = np.asarray(self.design.x)
        return x - self.at.a @ self.at.inner(self.at.f.T @ x)

    def fixed_leverage(self) -> np.ndarray:
        """The diagonal (n,) of XΦXᵀV⁻¹, of sum p."""
        return _diagonal(self.design.x @ self.phi, self.g)

    def random_leverage(self) -> np.ndarray:
        """The diagonal (n,) of ZDZᵀσ²P = AM⁻¹Fᵀ − (AM⁻¹FᵀX)ΦGᵀ."""
        absorbed = np.asarray(self.design.x) - self.smoothed
        return self.at.rows(self.at.a, self.at.f) - _diagonal(absorbed @ self.phi, self.g)

    def row_precision(self) -> np.ndarray:
        """The diagonal (n,) of P."""
        own = self.at.residual.diagonal() - self.at.rows(self.at.f, self.at.f)
        return _positive(own - _diagonal(self.g @ self.phi, self.g), own)

    def conditional_variance(self) -> np.ndarray:
        """Var(y − Xβ̂ − Zb̂) (n,), the diagonal of RPR = R − AM⁻¹Aᵀ − EΦEᵀ."""
        own = self.at.variance
        less = self.at.rows(self.at.a, self.at.a) + _diagonal(self.smoothed @ self.phi, self.smoothed)
        return _positive(own - less, own)

    def marginal_variance(self) -> np.ndarray:
        """Var(y − Xβ̂) (n,), the diagonal of V − XΦXᵀ."""
        x, a = np.asarray(self.design.x), self.at.a
        own = self.at.variance + np.asarray(a.multiply(a).sum(axis=1)).ravel()
        return _positive(own - _diagonal(x @ self.phi, x), own)

    def deleted(self, profiled: bool) -> np.ndarray:
        """The t statistics (n,) of an effect of each row alone, (Py)ᵢ/√Pᵢᵢ.

        With `profiled` over σ estimated without the row: s²₍ᵢ₎/σ² = (ν − tᵢ²)/(ν − 1), ν = yᵀPy.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            t = self.py / np.sqrt(self.row_precision())
            if not profiled:
                return t
            left = float(self.y @ self.py)
            return t * np.sqrt((left - 1.0) / np.maximum(left - t**2, 0.0))


def held(design: Design, y: np.ndarray, psi: np.ndarray) -> Held:
    """The fit to y (n,) at ψ (m + 1,)."""
    y = y if design.offset is None else y - np.asarray(design.offset)
    x, at = np.asarray(design.x), precision(design, psi)
    solved = at.solve(np.column_stack([x, y]))
    g = solved[:, :-1]
    information = x.T @ g
    scale = np.sqrt(np.diagonal(information))
    phi = np.linalg.inv(information / scale[:, None] / scale) / scale[:, None] / scale
    beta = phi @ (x.T @ solved[:, -1])
    # once more for what the first solution leaves
    py = at.solve((y - x @ beta)[:, None])[:, 0]
    beta = beta + phi @ (x.T @ py)
    return Held(design, y, psi, at, g, phi, beta, py - g @ (phi @ (x.T @ py)))


@dataclasses.dataclass(frozen=True, eq=False)
class Deleted:
    """β̂ (..., p) and Φ (..., p, p) without groups of rows; NaN where the others do not determine β."""

    beta: np.ndarray
    cov_beta: np.ndarray

    @property
    def bse(self) -> np.ndarray:
        """Standard errors (..., p) of β̂."""
        return np.sqrt(np.diagonal(self.cov_beta, axis1=-2, axis2=-1))


def without_rows(fit: Held) -> Deleted:
    """β̂ and Φ without each row alone."""
    own = fit.row_precision()
    moved = fit.g @ fit.phi
    with np.errstate(invalid="ignore", divide="ignore"):
        beta = fit.beta - moved * (fit.py / own)[:, None]
        more = moved[:, :, None] * moved[:, None, :] / own[:, None, None]
    return Deleted(beta, fit.phi + more)


def without_groups(fit: Held, codes: np.ndarray, groups: int) -> Deleted:
    """β̂ and Φ without the rows of each group that `codes` (n,) name."""
    p = len(fit.beta)
    out = Deleted(np.full((groups, p), np.nan), np.full((groups, p, p), np.nan))
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=groups))
    # a matrix of the rows of a group, or the equations of those that are left
    again = PER_ROW * len(codes) + sum(len(m) * m.shape[1] ** 3 for m in fit.at.inverse)
    for group, rows in enumerate(np.split(order, ends[:-1])):
        if len(rows) == len(codes):
            continue
        found = _left(fit, codes != group) if len(rows) ** 3 > again else _less(fit, np.sort(rows))
        if found is not None:
            out.beta[group], out.cov_beta[group] = found
    return out


def _less(fit: Held, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    if not len(rows):
        return fit.beta, fit.phi
    g, moved = fit.g[rows], fit.g[rows] @ fit.phi
    whole = fit.at.block(rows)
    scale = np.sqrt(np.diagonal(whole))
    try:
        factor = np.linalg.cholesky((whole - moved @ g.T) / scale[:, None] / scale)
    except np.linalg.LinAlgError:
        return None
    if np.min(np.diagonal(factor), initial=1.0) ** 2 < LOST:
        return None
    right = np.column_stack([moved, fit.py[rows]]) / scale[:, None]
    solved = sl.solve_triangular(factor, right, lower=True)
    spread = solved[:, :-1]
    return fit.beta - spread.T @ solved[:, -1], fit.phi + spread.T @ spread


def _left(fit: Held, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    part = take_rows(fit.design, keep)
    x = np.asarray(part.x)
    if np.linalg.matrix_rank(x / np.maximum(np.linalg.norm(x, axis=0), 1e-300)) < x.shape[1]:
        return None
    y = fit.y[keep] + (0.0 if part.offset is None else np.asarray(part.offset))
    left = held(part, y, fit.psi)
    return left.beta, left.phi


def _diagonal(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The diagonal (n,) of left rightᵀ."""
    return np.einsum("np,np->n", left, right)


def _positive(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """A share of `whole` (n,), NaN where nothing but rounding is left of it."""
    return np.where(values > LOST * whole, values, np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """How far β̂ and Φ are from those without groups, of one fit or many.

    Attributes
    ----------
    cooks_distance : (...) (β̂ − β̂₍ᵢ₎)ᵀΦ⁻¹(β̂ − β̂₍ᵢ₎)/p.
    mdffits : (...) the same with Φ₍ᵢ₎ for Φ.
    covtrace : (...) |tr(Φ⁻¹Φ₍ᵢ₎) − p|; covratio : (...) |Φ₍ᵢ₎|/|Φ|.
    dfbetas : (..., p) (β̂ − β̂₍ᵢ₎)/se(β̂₍ᵢ₎).

    Source: Belsley, Kuh & Welsch (1980), doi:10.1002/0471725153; for mixed models Loy & Hofmann (2014),
    doi:10.18637/jss.v056.i05.
    """

    cooks_distance: np.ndarray
    mdffits: np.ndarray
    covtrace: np.ndarray
    covratio: np.ndarray
    dfbetas: np.ndarray


def change(beta: np.ndarray, phi: np.ndarray, without: Deleted) -> Change:
    """Measures of influence (...) from β̂ (..., p), Φ (..., p, p) and those without each group."""
    p = beta.shape[-1]
    moved, scale = beta - without.beta, np.sqrt(np.diagonal(phi, axis1=-2, axis2=-1))
    units = scale[..., :, None] * scale[..., None, :]
    z, whole, own = moved / scale, phi / units, without.cov_beta / units
    lost = np.asarray(np.isnan(own).any(axis=(-2, -1)) | np.isnan(z).any(axis=-1))
    own, z = np.where(lost[..., None, None], np.eye(p), own), np.where(lost[..., None], 0.0, z)
    trace = np.trace(np.linalg.solve(whole, own), axis1=-2, axis2=-1)
    ratio = np.exp(np.linalg.slogdet(own)[1] - np.linalg.slogdet(whole)[1])
    cooks, fits = (
        np.sum(z * np.linalg.solve(metric, z[..., None])[..., 0], axis=-1) / max(p, 1)
        for metric in (whole, own)
    )
    cooks, fits, trace, ratio = np.where(lost, np.nan, [cooks, fits, np.abs(trace - p), ratio])
    return Change(cooks, fits, trace, ratio, moved / without.bse)
