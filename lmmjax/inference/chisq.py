"""Likelihood ratio tests on the boundary of the parameter space: mixtures of χ² distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc


def chi_square_p(statistic: float, df: int) -> float:
    """P(χ²_df ≥ statistic); χ²₀ is a point mass at zero."""
    if df == 0:
        return 1.0 if statistic <= 0 else 0.0
    return float(chdtrc(df, max(statistic, 0.0)))


def mixture_p(statistic: float, weights: dict[int, float]) -> float:
    """P(χ̄² ≥ statistic) of the mixture Σ w_k χ²_k, `weights` {k: w_k}."""
    return float(sum(w * chi_square_p(statistic, k) for k, w in weights.items()))


def boundary_weights(regular: int, blocks: Sequence[tuple[int, int]]) -> dict[int, float]:
    """Weights {k: w_k} of the null distribution of a likelihood ratio statistic.

    Blocks are taken as independent, so that their mixtures convolve: several uncorrelated variances give
    binomial weights.

    Parameters
    ----------
    regular : parameters tested that are not on the boundary, such as fixed effects.
    blocks : for each random term the variances and the covariances that are zero under the null. One
        variance with k covariances is ½χ²_k + ½χ²_{k+1}; covariances alone are regular; for several
        variances in one block the weights have no closed form, and χ² with all degrees of freedom, which is
        conservative, stands in.

    Source: Self & Liang (1987), doi:10.1080/01621459.1987.10478472; Stram & Lee (1994), doi:10.2307/2533455.
    """
    weights = {regular: 1.0}
    for variances, covariances in blocks:
        half = {covariances: 0.5, covariances + 1: 0.5}
        step = half if variances == 1 else {variances + covariances: 1.0}
        mixed: dict[int, float] = {}
        for k, w in weights.items():
            for j, v in step.items():
                mixed[k + j] = mixed.get(k + j, 0.0) + w * v
        weights = mixed
    return weights


def akaike_weights(aic: np.ndarray) -> np.ndarray:
    """exp(−Δᵢ/2)/Σ exp(−Δⱼ/2), Δ the differences of AIC to the least."""
    relative = np.exp(-0.5 * (aic - np.min(aic)))
    return relative / relative.sum()
