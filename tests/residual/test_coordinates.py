"""Internal coordinates of residual covariances: units of visits, correlations near 1, closed starts."""

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lmmjax as lj

VISITS, GROUPS = 4, 40


@functools.cache
def complete():
    """(groups, visits) values of complete groups."""
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(VISITS, VISITS)) / 2 + np.eye(VISITS)
    return rng.normal(size=(GROUPS, VISITS)) @ mix.T + np.arange(VISITS)


def fitted(values, residual, reml=True):
    frame = pd.DataFrame({"y": values.ravel(), "id": np.repeat(np.arange(GROUPS), VISITS)})
    frame["visit"] = np.tile(np.arange(VISITS), GROUPS)
    return lj.lmm("y ~ C(visit)", frame, residual=residual).fit(reml=reml)


STRUCTURES = {
    "Unstructured": lj.Unstructured("visit", group="id"),
    "Symmetric * VarIdent": lj.Symmetric("visit", group="id") * lj.VarIdent("visit"),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("units", [(1.0, 1.0, 1.0, 1.0), (1.0, 1e3, 1e-3, 1.0), (1e-3, 1.0, 1e3, 1e6)])
def test_units_of_visits(name, units):
    fit = fitted(complete() * np.array(units), STRUCTURES[name])
    assert fit.converged
    assert fit.unidentified == []
    assert fit.estimate.n_iter <= (2 if name == "Unstructured" else 20)
    # of complete groups with a mean for every visit the sample covariance matrix is the REML estimate
    assert_allclose(fit.residual_cov(cor=True), np.corrcoef(complete().T), rtol=0, atol=1e-9)
    sample = np.cov(complete().T)
    # −2ℓᴿ = (N − 1)(log|S| + J(1 + log 2π)) + J log N, and log c for every unit
    shift = 2 * (GROUPS - 1) * np.sum(np.log(units))
    value = (GROUPS - 1) * (np.linalg.slogdet(sample)[1] + VISITS * (1 + np.log(2 * np.pi)))
    # the REML criterion has log|XᵀX| of treatment contrasts, which is that of one mean a visit
    assert_allclose(fit.deviance, value + VISITS * np.log(GROUPS) + shift, rtol=1e-9)


def test_batch_in_the_units_of_its_responses():
    units = np.array([1.0, 1e3, 1e-3, 1.0])
    frame = pd.DataFrame({"id": np.repeat(np.arange(GROUPS), VISITS)})
    frame["visit"] = np.tile(np.arange(VISITS), GROUPS)
    y = np.stack([(complete() * units).ravel(), (complete() ** 2 * units).ravel()], axis=1)
    model = lj.lmm("~ C(visit)", frame, residual=STRUCTURES["Unstructured"])
    fits = model.fit_batch(y)
    assert fits.converged.all()
    assert_allclose(
        fits.deviance[0], fitted(complete() * units, STRUCTURES["Unstructured"]).deviance, rtol=1e-12
    )


def test_correlations_near_one():
    rng = np.random.default_rng(1)
    lag = np.abs(np.subtract.outer(np.arange(VISITS), np.arange(VISITS)))
    values = rng.normal(size=(GROUPS, VISITS)) @ np.linalg.cholesky(0.995**lag).T
    free, equal = (
        fitted(values, lj.Unstructured("visit", group="id")),
        fitted(values, lj.Symmetric("visit", group="id")),
    )
    assert free.converged
    assert free.estimate.n_iter <= 3
    assert equal.converged
    assert equal.estimate.n_iter <= 14
