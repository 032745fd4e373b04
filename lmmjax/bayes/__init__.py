"""Bayesian use of the likelihood: priors, the marginal posterior of the variance parameters, two samplers."""

from lmmjax.bayes.priors import (
    LKJ,
    Exponential,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    InverseWishart,
    LogDensity,
    Normal,
    Uniform,
)

__all__ = [
    "LKJ",
    "Exponential",
    "HalfCauchy",
    "HalfNormal",
    "HalfT",
    "InverseGamma",
    "InverseWishart",
    "LogDensity",
    "Normal",
    "Uniform",
]
