"""Residual covariances of groups of rows: by pattern of places, or row after row where that is enough."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmmjax.arrays import BRIEF, Array, record, sweep
from lmmjax.residual import ResidualStructure

DIGITS = 12
"""Distances and covariates that agree to so many digits are one."""

SWEPT = 64
"""Largest group whose matrix is inverted by sweeps, over all patterns at once; larger ones by LAPACK."""


@record
class Patterns:
    """Distinct groups of one padded size t: K of them.

    Attributes
    ----------
    place : (K, t) or (K, t, k); covariates : each (K, t); mask : (K, t) rows that are there.
    """

    place: Array
    covariates: tuple[Array, ...]
    mask: Array

    @property
    def direct(self) -> bool:
        """Whether it is inverted without LAPACK."""
        return self.mask.shape[1] <= SWEPT

    def covariance(self, structure: ResidualStructure, r: Array) -> Array:
        """R (K, t, t), identity where rows are missing."""
        place = jax.lax.stop_gradient(jnp.asarray(self.place))
        eye = jnp.eye(self.mask.shape[1], dtype=bool)[None]
        covariates = tuple(jax.lax.stop_gradient(jnp.asarray(v)) for v in self.covariates)
        level = structure.group_level(covariates)
        level = None if level is None else level[:, :, None]
        value = structure.correlation(r, place[:, :, None], place[:, None], eye, level)
        sd = structure.sd(r, covariates)
        if sd is not None:
            value = value * sd[:, :, None] * sd[:, None, :]
        present = self.mask[:, :, None] & self.mask[:, None, :]
        return jnp.where(present, value, eye.astype(r.dtype))


@jax.custom_jvp
def inverse(a: Array) -> tuple[Array, Array]:
    """log|A| (K,) and A⁻¹ (K, t, t) of positive definite matrices."""
    if a.shape[-1] <= SWEPT:
        logdet, out = sweep(jnp.moveaxis(a, 0, -1), 0.0, BRIEF)
        return logdet, jnp.moveaxis(out, -1, 0)
    return jax.lax.map(_inverse, a)


def _inverse(a: Array) -> tuple[Array, Array]:
    factor = jnp.linalg.cholesky(a)
    out = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(a), dtype=a.dtype))
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor))), out


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    logdet, out = inverse(*primals)
    (da,) = tangents
    # ∂log|A| = tr(A⁻¹∂A), ∂A⁻¹ = −A⁻¹∂A A⁻¹
    return (logdet, out), (jnp.sum(out * da, axis=(-2, -1)), -out @ da @ out)


@record
class Steps:
    """Rows of Markov groups: a first row, or a row with the one before it.

    Attributes
    ----------
    place, covariates : of the rows; before, covariates_before : of the rows before them; first : whether
        there is none. All (K,), places (K,) too.
    """

    place: Array
    covariates: tuple[Array, ...]
    before: Array
    covariates_before: tuple[Array, ...]
    first: Array

    def weights(self, structure: ResidualStructure, r: Array) -> tuple[Array, Array, Array]:
        """α, β (K,) with αw_t − βw_{t−1} uncorrelated of unit variance, and log Var(w_t | w_{t−1})."""
        here, before = (jax.lax.stop_gradient(jnp.asarray(v)) for v in (self.place, self.before))
        level = structure.group_level(self.covariates)
        c = structure.correlation(r, here, before, jnp.zeros(here.shape, bool), level)
        c = jnp.where(self.first, 0.0, c).astype(r.dtype)
        left = 1.0 - c * c
        alpha, logvar = 1.0 / jnp.sqrt(left), jnp.log(left)
        beta = c * alpha
        own, other = structure.sd(r, self.covariates), structure.sd(r, self.covariates_before)
        if own is not None and other is not None:
            alpha, beta, logvar = alpha / own, beta / other, logvar + 2.0 * jnp.log(own)
        return alpha, beta, logvar


def steps(codes: np.ndarray, place: np.ndarray, covariates: tuple[np.ndarray, ...]) -> Steps:
    """Steps of rows (n,) that are sorted by group and place."""
    first = np.concatenate([[True], codes[1:] != codes[:-1]])
    before = earlier(first)
    return Steps(place, covariates, place[before], tuple(v[before] for v in covariates), first)


def earlier(first: np.ndarray) -> np.ndarray:
    """Position (n,) of the row before each row; its own, of the first of a group."""
    here = np.arange(len(first))
    return np.where(first, here, here - 1)


def stationary(structure: ResidualStructure) -> bool:
    """Whether covariances depend on the differences of places only."""
    correlation = structure.residual.correlation
    return correlation is not None and correlation.reads in ("time", "coordinates")


def rounded(values: np.ndarray) -> np.ndarray:
    """Values to `DIGITS` significant digits, small ones beside large ones too."""
    values = np.asarray(values, dtype=float)
    unit = 10.0 ** np.floor(np.log10(np.where(values == 0.0, 1.0, np.abs(values))))
    return np.round(values / unit, DIGITS - 1) * unit
