"""Marginal prior densities: against SciPy, by their integral, and by draws from the joint prior."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import lmmjax as lj
from lmmjax.bayes import (
    LKJ,
    Beta,
    Exponential,
    HalfT,
    InverseGamma,
    InverseWishart,
    LogDensity,
    Normal,
    Uniform,
)
from lmmjax.postestimation.posterior.draws import Draws
from lmmjax.postestimation.posterior.prior_density import marginals
from lmmjax.postestimation.posterior.priors import named_priors


@pytest.fixture(scope="module")
def visits():
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"id": np.repeat(range(12), 3), "t": np.tile([0.0, 2.0, 4.0], 12)})
    d["y"] = rng.normal(size=36) + np.repeat(rng.normal(size=12), 3)
    return d


def priors_of(fit, priors=None, method="nuts"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = named_priors(fit.fitted.data, fit.y, priors, method)
    p, m = fit.fitted.data.design.p, len(fit.fitted.estimate.psi)
    beta, psi = np.zeros((1, 1, p)), np.ones((1, 1, m))
    return marginals(Draws(fit.fitted, method, named.text, beta, psi, None, {}, named.arrays))


def test_scalars_and_correlations(fit):
    own = {
        "Days": Normal(3.0, 2.0),
        "sd_Days|Subject": Exponential(5.0),
        "cor": LKJ(2.5),
        "sigma": Uniform(90.0),
    }
    found = priors_of(fit, own | {"sd_(Intercept)|Subject": HalfT(4.0, 20.0)})
    at = np.array([-1.0, 0.5, 7.0, 80.0])
    positive = at > 0
    assert found["Intercept"] is None
    assert_allclose(found["Days"].density(at), stats.norm.pdf(at, 3, 2), atol=1e-300)
    assert_allclose(found["sd_Days|Subject"].density(at), stats.expon.pdf(at, scale=5))
    assert_allclose(found["sd_(Intercept)|Subject"].density(at), 2 * stats.t.pdf(at / 20, 4) / 20 * positive)
    assert_allclose(found["sigma"].density(at), positive / 90)
    r = np.array([-1.2, -0.4, 0.0, 0.9])
    # of two coefficients LKJ's density is proportional to (1 − ρ²)^(η − 1)
    direct = stats.beta.pdf((r + 1) / 2, 2.5, 2.5) / 2
    assert_allclose(found["cor_Days.(Intercept)|Subject"].density(r), direct)


def test_blocks(fit):
    scale = np.diag([600.0, 40.0])
    own = {"cov|Subject": InverseWishart(5.0, scale), "sigma": InverseGamma(2.0, 300.0)}
    found = priors_of(fit, own, "gibbs")
    draws = stats.invwishart(5, scale).rvs(40_000, random_state=np.random.default_rng(1))
    sd = np.sqrt(draws[:, 1, 1])
    cor = draws[:, 0, 1] / np.sqrt(draws[:, 0, 0]) / sd
    for name, values, edges in (
        ("sd_Days|Subject", sd, np.linspace(1.5, 9.0, 12)),
        ("cor_Days.(Intercept)|Subject", cor, np.linspace(-0.95, 0.95, 12)),
    ):
        share = np.histogram(values, edges)[0] / len(values)
        fine = np.linspace(edges[:-1], edges[1:], 9)
        expected = np.trapezoid(found[name].density(fine.ravel()).reshape(fine.shape), fine, axis=0)
        # five standard errors of a share
        assert (np.abs(share - expected) < 5 * np.sqrt(expected / len(values))).all()
    variance = np.array([100.0, 200.0])
    direct = stats.invgamma.pdf(variance, 2.0, scale=300.0) * 2 * np.sqrt(variance)
    assert_allclose(found["sigma"].density(np.sqrt(variance)), direct)
    tilted = priors_of(fit, {"cov|Subject": InverseWishart(5.0, scale + 20.0)}, "gibbs")
    assert tilted["cor_Days.(Intercept)|Subject"] is None
    improper = priors_of(fit, {"sigma": InverseGamma(0.0, 0.0), "sd": LogDensity(lambda sd: -sd)})
    assert improper["sigma"] is None
    assert improper["sd_Days|Subject"] is None


@pytest.mark.parametrize("prior", [None, Beta(2.0, 3.0)], ids=["uniform", "beta"])
def test_correlations_in_units_of_time_integrate_to_one(visits, prior):
    """Uniform is the correlation of neighbours, two units apart, so that of one unit is not."""
    fit = lj.lmm("y ~ 1", visits, residual=lj.CAR1("t", group="id")).fit()
    name = fit.tidy()["term"].iloc[1]
    own = priors_of(fit, None if prior is None else {name: prior})[name]
    at = np.linspace(0.0, 1.0, 4001)[1:-1]
    assert_allclose(np.trapezoid(own.density(at), at), 1.0, rtol=2e-3)
    if prior is None:
        assert_allclose(own.density(at[[1000, 3000]]), 2 * at[[1000, 3000]], rtol=1e-6)


def test_variances_of_visits(visits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fit = lj.lmm("y ~ 1", visits, residual=lj.Unstructured("t", group="id")).fit()
    found = priors_of(fit, {"sd|Residual": HalfT(3.0, 2.0)})
    shown = [name for name, prior in found.items() if prior is not None]
    assert len(shown) == 3
    sd = np.linspace(0.01, 30.0, 4000)
    variance = found[shown[0]]
    assert_allclose(variance.density(sd**2) * 2 * sd, 2 * stats.t.pdf(sd / 2, 3) / 2, rtol=1e-9)


def test_correlations_of_three_under_lkj(visits):
    d = visits.assign(u=np.sin(np.arange(36)), v=np.cos(3 * np.arange(36)))
    d = pd.concat([d, d.assign(y=d["y"] + 0.5 * d["u"], u=-d["v"])], ignore_index=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lj.FitWarning)
        fit = lj.lmm("y ~ 1 + (u + v | id)", d).fit(max_iter=0)
    found = priors_of(fit)
    cors = [found[name] for name in found if name.startswith("cor")]
    r = np.linspace(-0.9, 0.9, 5)
    # uniform over matrices of three: the marginal is that of (1 − ρ²)^½
    for own in cors:
        assert_allclose(own.density(r), np.sqrt(1 - r**2) * 2 / np.pi)
    assert len(cors) == 3
