"""Statistics of candidates from a = y'Py, b = g'Py and c = g'Pg.

With r₁ = a − b²/c, ρ² = b²/(ac) and df = n − p − 1:

    effect b/c,   se √(r₁/(df c)),   t = effect/se,   Wald F = t² on (1, df),
    likelihood ratio −n log(1 − ρ²) at the ratios of the null, χ²₁;   LOD = that over 2 log 10,
    score F = nρ² on (1, df), at the ratios of the null by maximum likelihood.

Source: Zhou & Stephens (2012), doi:10.1038/ng.2310; Kang et al. (2010), doi:10.1038/ng.548.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import chdtrc, fdtrc, stdtr

from lmmjax.inference.scan.engine import Null

LOD = 2.0 * np.log(10.0)
"""A likelihood ratio statistic over this is a LOD."""


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Of k candidates and T responses, each (k, T); NaN where a candidate has no effect of its own.

    Attributes
    ----------
    effect, se, t : estimate, standard error, their ratio; df : of t.
    lrt : likelihood ratio by ML; loglik : log likelihood with the candidate, restricted if the null fits are
        by REML.
    """

    effect: np.ndarray
    se: np.ndarray
    t: np.ndarray
    df: np.ndarray
    lrt: np.ndarray
    loglik: np.ndarray

    @cached_property
    def p_wald(self) -> np.ndarray:
        """Two-sided p of t."""
        return wald(self.t, self.df)

    @cached_property
    def lod(self) -> np.ndarray:
        """The likelihood ratio as a LOD."""
        return self.lrt / LOD

    @cached_property
    def p_lrt(self) -> np.ndarray:
        """p of the likelihood ratio by χ²."""
        return chi_square(self.lrt)


def statistics(null: Null, b: np.ndarray, c: np.ndarray, df: np.ndarray) -> Statistics:
    """Statistics of products b (k, T) and c, (k, T) or (k, 1), with df (T,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = b / c
        left = null.a - effect * b
        inverse = np.broadcast_to(1.0 / c, b.shape)
        return _statistics(null, effect, inverse, left, null.a, np.log(c), df, 1)


def term_statistics(
    null: Null,
    effect: np.ndarray,
    inverse: np.ndarray,
    left: np.ndarray,
    without: np.ndarray,
    logdet_c: np.ndarray,
    df: np.ndarray,
    s: int,
) -> Statistics:
    """Statistics of one of the s columns of a candidate beside the others.

    Parameters
    ----------
    effect, inverse, left : its estimate, its element of C⁻¹ and r₁, with all columns.
    without : r₁ without this column; logdet_c : log|C|.
    """
    return _statistics(null, effect, inverse, left, without, logdet_c, df, s)


def _statistics(
    null: Null, effect: Any, inverse: Any, left: Any, without: Any, logdet_c: Any, df: np.ndarray, s: int
) -> Statistics:
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.maximum(left, 0.0)
        se = np.sqrt(left / df * inverse)
        t = effect / se
        lrt = -null.n * np.log(left / without)
        nu = null.n - null.reml * (null.p + s)
        deviance = null.logdet + null.reml * logdet_c + nu * (1.0 + np.log(2.0 * np.pi * left / nu))
    return Statistics(effect, se, t, df, lrt, -0.5 * deviance)


def wald(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Two-sided p of t with df; normal where df is infinite."""
    return 2.0 * stdtr(df, -np.abs(t))


def chi_square(lrt: np.ndarray, df: float = 1.0) -> np.ndarray:
    """p of a likelihood ratio statistic."""
    return chdtrc(df, np.maximum(lrt, 0.0))


def score(null: Null, b: np.ndarray, c: np.ndarray, df: np.ndarray) -> np.ndarray:
    """p (k, T) of the score test, as GEMMA has it: F = nρ² on (1, df)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return f_test(null.n * b * b / (null.a * c), 1.0, df)


def f_test(f: np.ndarray, one: float, two: np.ndarray) -> np.ndarray:
    """p of an F statistic."""
    return np.where(np.isfinite(f), fdtrc(one, np.broadcast_to(two, np.shape(f)), np.maximum(f, 0.0)), np.nan)
