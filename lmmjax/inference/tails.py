"""Tails of distributions on the scale of logarithms, where p-values are no doubles any more."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, loggamma, stdtr


def log_t_tail(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """log P(T > |t|) of t with df degrees of freedom, NaN where one is missing; infinite df are normal.

    Where the probability underflows, by Laplace's method: with f the density and g = −(log f)′ =
    (ν + 1)t/(ν + t²)

        P(T > t) ≈ f(t)/g · 1/(1 + g′/g²),    g′/g² = (ν − t²)/((ν + 1)t²),

    of which the relative error is below 3/t² there.
    """
    size, df = np.broadcast_arrays(np.abs(np.asarray(t, float)), np.asarray(df, float))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        plain = np.log(stdtr(df, -size))
        normal = log_ndtr(-size)
        square = size**2
        constant = loggamma((df + 1) / 2) - loggamma(df / 2) - 0.5 * np.log(np.pi * df)
        density = constant - (df + 1) / 2 * np.log1p(square / df)
        slope = (df + 1) * size / (df + square)
        bend = (df - square) / ((df + 1) * square)
        far = density - np.log(slope) - np.log1p(bend)
    return np.where(np.isinf(df), normal, np.where(np.isneginf(plain), far, plain))
