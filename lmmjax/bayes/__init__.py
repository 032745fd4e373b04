"""Bayesian use of the likelihood: priors, the marginal posterior of the variance parameters, two samplers."""

from lmmjax.bayes.priors import (
    LKJ,
    Beta,
    Exponential,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    InverseWishart,
    LogDensity,
    LogNormal,
    Normal,
    Uniform,
)

__all__ = [
    "LKJ",
    "Beta",
    "Exponential",
    "HalfCauchy",
    "HalfNormal",
    "HalfT",
    "InverseGamma",
    "InverseWishart",
    "LogDensity",
    "LogNormal",
    "Normal",
    "Uniform",
]
