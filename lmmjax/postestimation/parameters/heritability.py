"""Proportions of variance of models with kernels: heritability, repeatability, with limits in [0, 1]."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy.special import chdtri

from lmmjax.arrays import Array, namespace
from lmmjax.arrays import sparse_columns as columns
from lmmjax.core.spectral.fit import is_spectral, spectral_data
from lmmjax.core.spectral.gaps import gap_data
from lmmjax.core.spectral.search import Spectral
from lmmjax.fitted import (
    Fitted,
    FittedMany,
    ModelData,
    one_of_many,
    require_choice,
    require_level,
    require_rows,
    some_of_many,
)
from lmmjax.fitted.kernel_bounds import bounds
from lmmjax.formula import nearest
from lmmjax.formula.columns import Table
from lmmjax.gram.spectral.prepare import SpectralPrepared
from lmmjax.inference.delta import wald_limits
from lmmjax.inference.profile.shares import EDGE, ratio_limits, share_limits
from lmmjax.inference.r2 import SCALES, Weights, share_weights
from lmmjax.postestimation.parameters.functions import deltas

COLUMNS = ["estimate", "se", "lower", "upper", "variance", "bound"]
METHODS = (None, "logit", "profile")
REPEATABILITY = "repeatability"


@dataclasses.dataclass(frozen=True, eq=False)
class Shares:
    """The shares of a model, of all its rows or of those at one level of a factor.

    Attributes
    ----------
    names : of the grouping factors, Residual, and repeatability where there is one.
    weights : what the variances count for.
    sums : (names, factors + 1) which shares of factors and residual each one is the sum of.
    kernels : the names that have a kernel.
    """

    names: list[str]
    weights: Weights
    sums: np.ndarray
    kernels: list[str]

    def variances(self, weights: Weights, beta: Array, psi: Array) -> Array:
        """Variances (..., factors + 1) of the rows."""
        between, left = weights.split(psi)
        return namespace(between, left).concatenate([between, left], axis=-1)

    def values(self, weights: Weights, beta: Array, psi: Array) -> Array:
        """The shares, then their variances (..., 2 names)."""
        parts = self.variances(weights, beta, psi)
        xp = namespace(parts)
        sums = parts @ self.sums.T.astype(parts.dtype)
        return xp.concatenate([sums / xp.sum(parts, axis=-1, keepdims=True), sums], axis=-1)

    def estimates(self, fits: Fitted | FittedMany) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares and variances (..., names), and the covariances of the shares."""
        value, cov = deltas(fits, self.values, self.weights, hold=True)
        k = len(self.names)
        return value[..., :k], value[..., k:], cov[..., :k, :k]


def shares(fits: Fitted | FittedMany, scale: str, rows: np.ndarray | None = None) -> Shares:
    """What the shares of a fit, or of many, are; `rows` (n,) are those that count.

    Raises
    ------
    ValueError : no term has a kernel.
    """
    require_choice("scale", scale, SCALES)
    data, own = fits.data, None
    random = data.frame.random
    if all(term.kernel is None for term in random):
        raise ValueError(
            "no term of this model has a kernel: heritability is a share of relationships, "
            'kernels={"id": K}; icc(by_group=True) has the shares of grouping factors'
        )
    if isinstance(fits, FittedMany):
        missing = columns.missing(fits.y)
        if fits.weights is not None or np.any(missing):
            own = np.where(missing, 0.0, 1.0 if fits.weights is None else fits.weights)
    if rows is not None:
        own = rows[:, None] * (1.0 if own is None else own)
    weights, groups = share_weights(data.design, [term.group for term in random], own, scale)
    if rows is not None and isinstance(fits, Fitted):
        weights = jax.tree.map(lambda a: a[0], weights)
    names, sums = [*groups, "Residual"], np.eye(len(groups) + 1)
    kernels = [term.group for term in random if term.kernel is not None]
    factors = {term.factor for term in random if term.kernel is not None}
    related = {term.group for term in random if term.factor in factors}
    if len(related) > 1:
        names.append(REPEATABILITY)
        sums = np.vstack([sums, [float(name in related) for name in [*groups, "Residual"]]])
    return Shares(names, weights, sums, list(dict.fromkeys(kernels)))


def heritability(
    fitted: Fitted, level: float, method: str | None, scale: str, by: str | None = None
) -> pd.DataFrame:
    """See `Fit.heritability`."""
    require_level(level)
    require_choice("method", method, METHODS)
    if by is None:
        return _table(fitted, shares(fitted, scale), level, method)
    if method == "profile":
        raise ValueError("profiles are of shares of all rows: leave method=, or by=, out")
    tables = {
        label: _table(fitted, shares(fitted, scale, rows.astype(float)), level, "logit")
        for label, rows in rows_by(fitted.data, by)
    }
    return pd.concat(tables, names=[by, None])


def rows_by(data: ModelData, by: str) -> list[tuple[Any, np.ndarray]]:
    """Every level of a column of the data, in order, with its rows (n,)."""
    require_rows(data, "by=")
    frame = data.frame
    table = None if frame.source is None else Table(frame.source.data)
    if table is None or by not in table.keys:
        raise ValueError(f"by: no column {by!r}: {nearest(by, [] if table is None else list(table.keys))}")
    column = pd.Series(np.asarray(table.take(by, frame.rows)))
    codes, labels = pd.factorize(column, sort=True)
    return [(label, codes == k) for k, label in enumerate(labels)]


def _table(fitted: Fitted, own: Shares, level: float, method: str | None) -> pd.DataFrame:
    value, variance, cov = own.estimates(fitted)
    value, se, bound, lower, upper = _limits(value, cov, level)
    if method is None:
        method = "profile" if _has_profile(fitted, own) else "logit"
    if method == "profile":
        lower, upper = _profiles(fitted, own, level)
    columns = dict(zip(COLUMNS, (value, se, lower, upper, variance, bound), strict=True))
    out = pd.DataFrame(columns, index=own.names)
    out.attrs["method"] = method
    return out


def _limits(value: np.ndarray, cov: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
    """Shares, errors, which end they are at, and limits on the logit scale; nothing at an end."""
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
        low, high = value <= EDGE, value >= 1 - EDGE
    bound = np.where(low, "lower", np.where(high, "upper", "")).astype(object)
    se = np.where(low | high, np.nan, se)
    inner = np.where(low | high, np.nan, value)
    lower, upper = wald_limits(inner, se, level, "logit")
    return value, se, bound, lower, upper


def _has_profile(fits: Fitted | FittedMany, own: Shares) -> bool:
    """Whether the profile of the shares is the criterion of one ratio."""
    one = fits.data.design
    if len(one.terms) != 1 or one.known is not None or own.weights.groups is None:
        return False
    y = np.zeros(one.n) if isinstance(fits, FittedMany) else fits.y
    return is_spectral(fits.data.problem(np.where(np.isfinite(y), y, 0.0), fits.reml))


def _profiles(
    fitted: Fitted, own: Shares, level: float, only: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Limits (names,) at which the criterion that was fitted is χ²₁'s quantile above its minimum.

    With `only`, a place among the names, the others may be missing.
    """
    design, weights = fitted.data.design, own.weights
    if np.isnan(fitted.estimate.deviance):
        return np.full(len(own.names), np.nan), np.full(len(own.names), np.nan)
    if _has_profile(fitted, own):
        limits = _one_ratio(fitted, weights, level)
        return np.array([limits[0], 1 - limits[1]]), np.array([limits[1], 1 - limits[0]])
    if (
        any(term.q > 1 or not term.family.linear for term in design.terms)
        or design.residual is not None
        or design.known is not None
    ):
        raise ValueError(
            "profiles of shares are for terms of one column and independent residuals: use method='logit', "
            "or the draws of bootstrap"
        )
    assert weights.groups is not None
    with jax.enable_x64(True):
        problem = fitted.data.problem(fitted.y, fitted.reml)
        groups = np.asarray(weights.groups)
        gains = np.append(groups.sum(axis=0), np.asarray(weights.noise))
        part = gains * np.asarray(fitted.estimate.psi)
        # parts are of terms, sums of factors
        which = np.vstack([groups > 0, np.zeros(groups.shape[1], bool)])
        which = np.column_stack([which, np.arange(len(which)) == len(groups)])
        lowest, rise = float(fitted.estimate.deviance), float(chdtri(1, 1 - level))
        found = [
            share_limits(problem, gains, part / part.sum(), (row @ which) > 0, lowest, rise)
            if only in (None, k)
            else (np.nan, np.nan)
            for k, row in enumerate(own.sums)
        ]
    return np.array([low for low, _ in found]), np.array([high for _, high in found])


def _one_ratio(fits: Fitted | FittedMany, weights: Weights, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Limits (...) of the share of one kernel; NaN for responses whose gaps are not looked at together."""
    y, data = np.asarray(fits.y), fits.data
    many = y.ndim > 1
    psi = np.atleast_2d(fits.estimate.psi)
    ends = np.atleast_1d(bounds(data, fits.estimate.psi, fits.reml))
    low, high = np.full(len(psi), np.nan), np.full(len(psi), np.nan)
    unit = 1.0
    for inner, at in _ratio_data(fits):
        unit = inner.unit
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.log(psi[at, 0] / psi[at, 1] / unit)
        if fits.reml:
            best = np.where(ends[at] == "lower", -np.inf, np.where(ends[at] == "upper", np.inf, best))
        low[at], high[at] = ratio_limits(inner, best, float(chdtri(1, 1 - level)))
    assert weights.groups is not None
    gain = np.asarray(weights.groups)[..., 0, 0] / np.asarray(weights.noise)
    with np.errstate(over="ignore", divide="ignore"):
        out = [1.0 / (1.0 + np.exp(-t) / unit / gain) for t in (low, high)]
    return (out[0], out[1]) if many else (out[0][0], out[1][0])


def _ratio_data(fits: Fitted | FittedMany) -> Iterator[tuple[Spectral, np.ndarray]]:
    """The criterion of responses as a function of their ratio, and which (t,) these are."""
    y, maker = np.asarray(fits.y), fits.data.maker
    if y.ndim > 1 and np.isnan(y).any():
        for data, kept, _ in gap_data(maker, y, fits.reml)[1]:
            yield data, kept
        return
    problem = maker.lanes(y, fits.reml) if y.ndim > 1 else fits.data.problem(y, fits.reml)
    response: Any = problem.response
    inner = np.atleast_2d(np.asarray(response.y).T)
    yield spectral_data(problem, inner, np.atleast_1d(np.asarray(response.rest))), np.arange(len(inner))


def batch_heritability(
    fits: FittedMany, term: str | None, level: float, method: str | None, scale: str, by: str | None
) -> pd.DataFrame:
    """See `BatchFit.heritability`."""
    require_level(level)
    require_choice("method", method, METHODS)
    if by is None:
        return _batch_table(fits, shares(fits, scale), term, level, method)
    if method == "profile":
        raise ValueError("profiles are of shares of all rows: leave method=, or by=, out")
    tables = {
        label: _batch_table(fits, shares(fits, scale, rows.astype(float)), term, level, "logit")
        for label, rows in rows_by(fits.data, by)
    }
    return pd.concat(tables, axis=1, names=[by, None])


def _batch_table(
    fits: FittedMany, own: Shares, term: str | None, level: float, method: str | None
) -> pd.DataFrame:
    if term is None and len(own.kernels) > 1:
        raise ValueError(f"term: several terms have a kernel; choose one of: {', '.join(own.names)}")
    name = own.kernels[0] if term is None else term
    if name not in own.names:
        raise ValueError(f"unknown term {name!r}: {nearest(str(name), own.names)}")
    at = own.names.index(name)
    chosen = dataclasses.replace(own, names=[name], sums=own.sums[at : at + 1])
    share, variance, cov = chosen.estimates(fits)
    value, se, bound, lower, upper = (a[:, 0] for a in _limits(share, cov, level))
    one = _has_profile(fits, own)
    method = method or ("profile" if one else "logit")
    if method == "profile":
        lower, upper = _batch_profiles(fits, own, at, level, one)
    columns = dict(zip(COLUMNS, (value, se, lower, upper, variance[:, 0], bound), strict=True))
    out = pd.DataFrame(columns, index=fits.names)
    out.attrs |= {"term": name, "method": method}
    return out


def _batch_profiles(
    fits: FittedMany, own: Shares, at: int, level: float, one: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Limits (T,) of the share of a name: of responses with all rows and one ratio together."""
    lower, upper = (np.full(len(fits.names), np.nan) for _ in range(2))
    good = ~np.isnan(fits.estimate.deviance)
    whole = columns.finite_columns(fits.y)
    together = good & one & (whole | (isinstance(fits.data.maker.prepared, SpectralPrepared) & ~whole))
    if fits.weights is not None:
        together[:] = False
    for k in (np.flatnonzero(together & whole), np.flatnonzero(together & ~whole)):
        if len(k):
            low, high = _one_ratio(some_of_many(fits, k), _own_weights(own, k), level)
            lower[k], upper[k] = (low, high) if at == 0 else (1 - high, 1 - low)
    for j in np.flatnonzero(good & np.isnan(lower)):
        single, weights = one_of_many(fits, int(j)), _own_weights(own, int(j))
        limits = _profiles(single, dataclasses.replace(own, weights=weights), level, at)
        lower[j], upper[j] = limits[0][at], limits[1][at]
    return lower, upper


def _own_weights(own: Shares, j: Any) -> Weights:
    """Those of the response, or responses, j, if they differ."""
    return jax.tree.map(lambda a: a[j], own.weights) if np.ndim(own.weights.noise) else own.weights
